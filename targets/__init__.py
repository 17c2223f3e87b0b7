"""The device profiles, one TOML file each, as package data."""

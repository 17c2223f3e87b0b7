"""Examples: each folder is one model with what it needs to be built. Refuses nothing."""

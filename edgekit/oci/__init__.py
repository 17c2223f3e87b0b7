"""Bundles in OCI registries: packed as CNCF ModelPack images, pushed and pulled.

Refuses what is in the files of this package; this one only names it."""

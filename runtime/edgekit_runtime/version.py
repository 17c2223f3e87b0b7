"""The version of this runtime.

Refuses nothing."""

__version__ = "0.1.0"

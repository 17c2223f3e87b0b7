"""EdgeKit's ground floor: opens a bundle, verifies every byte, runs it. Imports numpy and nothing heavier."""

from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import EdgeKitError

__all__ = ["Bundle", "EdgeKitError", "open_bundle"]
__version__ = "0.1.0"

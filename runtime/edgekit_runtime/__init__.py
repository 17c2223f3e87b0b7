"""EdgeKit's ground floor: opens a bundle, verifies every byte, runs it. Imports numpy, and that when first used.

Refuses what is not whole: see `open_bundle`."""

from typing import TYPE_CHECKING, Any

from edgekit_runtime.version import __version__

if TYPE_CHECKING:
    from edgekit_runtime.bundle import Bundle, open_bundle
    from edgekit_runtime.errors import EdgeKitError

__all__ = ["Bundle", "EdgeKitError", "__version__", "open_bundle"]


def __getattr__(name: str) -> Any:
    """The public names, imported when asked for: a command line's help needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgekit_runtime import bundle, errors

    return getattr(errors if name == "EdgeKitError" else bundle, name)

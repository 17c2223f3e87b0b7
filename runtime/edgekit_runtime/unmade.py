"""A start that is refused leaves nothing behind: the folder that was made for it goes again.

Refuses to touch a folder that was there before, or one in which a server ran."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError

Tell = Callable[[Mapping[str, Any]], None]


@contextmanager
def unmade(folder: Path | None) -> Iterator[Callable[[Tell], Tell]]:
    """Make the folder where it is missing, and take it back, with all in it, where what follows is refused.

    What comes wraps a function that is called once the server serves: from then on the folder stays.
    """
    made, serving = _made(folder), False

    def begun(tell: Tell) -> Tell:
        def told(at: Mapping[str, Any]) -> None:
            nonlocal serving
            serving = True
            tell(at)

        return told

    try:
        yield begun
    except EdgeKitError:
        if folder is not None and made and not serving:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                for parent in made[1:]:
                    parent.rmdir()
        raise


def _made(folder: Path | None) -> list[Path]:
    """The folder and its parents, as far as they were missing, the innermost first; made here, by nobody else."""
    if folder is None:
        return []
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except OSError:  # whoever needs the folder says so; or another server was quicker
        return []
    return missing

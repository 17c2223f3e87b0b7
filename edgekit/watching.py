"""Which files Python code opens: what a model made by the user's code depends on, without knowing the code.

Refuses nothing; files of Python itself, of installed packages and of EdgeKit are left out."""

import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import edgekit_runtime

_watching: list[tuple[int, set[str]]] = []
_hooked: list[bool] = []


@contextmanager
def watched() -> Iterator[set[str]]:
    """The paths that this thread opens within, added to the set that is given; sources for compiled modules."""
    if not _hooked:
        sys.addaudithook(_seen)  # for the life of the process; idle outside of this context
        _hooked.append(True)
    entry = (threading.get_ident(), set[str]())
    _watching.append(entry)
    try:
        yield entry[1]
    finally:
        _watching.remove(entry)
        entry[1].intersection_update(path for path in set(entry[1]) if _is_the_users(path))


def _seen(event: str, details: tuple[object, ...]) -> None:
    if event != "open" or not _watching or not isinstance(details[0], str | bytes):
        return
    path = details[0].decode("utf-8", "surrogateescape") if isinstance(details[0], bytes) else details[0]
    for thread, found in _watching:
        if thread == threading.get_ident():
            found.add(_source(path))


def _source(path: str) -> str:
    """The source of a compiled module; any other path as it is."""
    if not path.endswith(".pyc"):
        return path
    try:
        return importlib.util.source_from_cache(path)
    except ValueError:
        return path


def _is_the_users(path: str) -> bool:
    home = Path(path).resolve()
    own = [Path(edgekit_runtime.__file__).parents[1], Path(__file__).parent]
    foreign = [Path(prefix).resolve() for prefix in {sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/etc"}]
    return home.is_file() and not any(home.is_relative_to(folder) for folder in (*own, *foreign))

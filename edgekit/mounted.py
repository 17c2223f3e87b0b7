"""Samples in a folder that a device kept them in, read where it lies: a card that was taken out, or a copy of it.

Refuses a folder without samples; changes nothing there. A sample that is damaged is left out."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.samples.entries import NAME, read
from edgekit_runtime.samples.exporting import PART, described, tarred
from edgekit_runtime.samples.shelves import Kept

from edgekit.parcels import MOST_EACH

STORE = "samples"
"""What the store is called in a device's --state."""


@contextmanager
def opened(folder: Path) -> Iterator[Callable[[str, Mapping[str, str]], bytes]]:
    """A function that answers as the device would.

    Raises:
        EdgeKitError: there are no samples.
    """
    try:
        store = folder / STORE if (folder / STORE).is_dir() else folder
        every = {kept.name: kept for path in sorted(store.iterdir()) if (kept := _read(path)) is not None}
    except OSError as error:
        raise EdgeKitError(f"{folder} does not read: {error.strerror}", hint="name the folder of --state") from error
    if not every:
        raise EdgeKitError(f"{folder} holds no samples that a device kept", hint="name the folder of its --state")

    def fetch(path: str, query: Mapping[str, str]) -> bytes:
        rest = [kept for kept in every.values() if kept.name > query.get("after", "")]
        if path == "/samples/index":
            return json.dumps({"samples": [described(kept) for kept in rest], "next": None}).encode()
        return _part(store, query["model"], [kept for kept in rest if kept.model == query["model"]])

    yield fetch


def _read(path: Path) -> Kept | None:
    if not NAME.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return None
    kept = read(path)
    return kept if kept is not None and kept.size <= MOST_EACH else None


def _part(store: Path, model: str, rest: list[Kept]) -> bytes:
    chosen: list[Kept] = []
    for kept in rest:
        if chosen and sum(one.size for one in chosen) + kept.size > PART:
            break
        chosen.append(kept)
    following = chosen[-1].name if len(chosen) < len(rest) else None
    head = {"model": model, "next": following}
    return b"".join(tarred(store, head, [(kept, described(kept)) for kept in chosen]))

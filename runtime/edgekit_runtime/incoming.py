"""What is carried to a device piece by piece: which files are there, where one stopped, what makes a bundle of them.

Refuses a piece that does not begin where the last one ended, more bytes than were announced or than there is room for,
another digest, and a delta from a file that is not here or was touched."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from edgekit_runtime.bundle import MANIFEST, MAX_MANIFEST
from edgekit_runtime.disk import REAL, forget, make_folder, plain_errors, write
from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound
from edgekit_runtime.files import SHA256, Files, in_folder
from edgekit_runtime.store import Store
from edgekit_runtime.store.adding import fits, no_room
from edgekit_runtime.store.layout import Layout

PART, MADE = ".part", ".made"
PIECE = 2**20
SYNC_BYTES = 8 * 2**20
"""A power cut costs so many bytes at most."""


def have(store: Store) -> dict[str, Any]:
    """The digests of the files that are here, and how many bytes of others came."""
    at = _layout(store)
    with plain_errors(str(store.root)):
        top = store.root / "objects"
        found = [name for folder in at.names(top) for name in at.names(top / folder) if SHA256.fullmatch(name)]
        parts = {
            name.removesuffix(PART): REAL.size(store.incoming / name)
            for name in at.names(store.incoming)
            if name.endswith(PART) and SHA256.fullmatch(name.removesuffix(PART))
        }
    return {"objects": sorted(found), "parts": parts}


def receive(store: Store, sha256: str, offset: int, source: BinaryIO, size: int | None = None) -> dict[str, Any]:
    """Append what comes to the file of that digest, from `offset` on; once it is whole it is an object of the store.

    It is whole when `size` bytes are there, or, where no size was announced, when its digest is right as `source` ends.

    Raises:
        BadRequest: it does not begin where the last piece ended, or is too long.
        EdgeKitError: it is whole, and another file: it was thrown away.
    """
    at, part = _layout(store), store.incoming / f"{_digest(sha256)}{PART}"
    with plain_errors(str(store.incoming)):
        if found := _whole(at, sha256):
            return found
        with _alone(store, sha256):
            _refuse_full(store, 0 if size is None else size - offset)
            got = _append(part, offset, source, size)
            return {"sha256": sha256, "complete": _finished(at, part, sha256, got, size), "size": got}


def receive_delta(store: Store, sha256: str, base: str, source: BinaryIO, size: int) -> dict[str, Any]:
    """Make the file of that digest and size from the object `base` and the delta that comes: all of it, or nothing.

    What came of the file itself is no longer needed then.

    Raises:
        NotFound: there is no such base.
        BadBundle: it was touched, or the delta is cut, touched or for other files.
    """
    from edgekit_runtime.deltas import pieces  # some Pythons are made without lzma

    at, made = _layout(store), store.incoming / f"{_digest(sha256)}{MADE}"
    with plain_errors(str(store.incoming)):
        if found := _whole(at, sha256):
            return found
        if REAL.kind(at.object(_digest(base))) != "file":
            raise NotFound(f"{base[:12]}, which the delta is from, is not here", hint="send the whole file")
        with _alone(store, sha256):
            _refuse_full(store, size)
            with REAL.open(at.object(base)) as old:
                write(REAL, made, pieces(old, source, sha256, size))
            _become_object(at, made, sha256)
            forget(REAL, store.incoming / f"{sha256}{PART}")
    return {"sha256": sha256, "complete": True, "size": size}


def staged(store: Store, folder: Path) -> Files:
    """The files of a bundle in `folder`; one below the store's `incoming` needs only those that are not here yet."""
    files = in_folder(folder)
    if not folder.absolute().is_relative_to(store.incoming.absolute()):
        return files
    at = _layout(store)
    # Not verified yet, and so believed only as far as to say which object a name might stand for.
    beside = {name: at.object(digest) for name, digest in _listed(files).items() if name not in files.names}
    there = {name: path for name, path in beside.items() if REAL.kind(path) == "file"}

    def open_one(name: str) -> BinaryIO:
        return REAL.open(there[name]) if name in there else files.open(name)

    return replace(files, names=files.names | there.keys(), open=open_one)


def _digest(sha256: str) -> str:
    if not SHA256.fullmatch(sha256):
        raise BadRequest(f"{sha256[:80]!r} is no SHA-256", hint="write 64 hex digits in lower case")
    return sha256


def _whole(at: Layout, sha256: str) -> dict[str, Any] | None:
    """The answer where the file is here already."""
    if REAL.kind(at.object(sha256)) != "file":
        return None
    return {"sha256": sha256, "complete": True, "size": REAL.size(at.object(sha256))}


@contextmanager
def _alone(store: Store, sha256: str) -> Iterator[None]:
    make_folder(REAL, store.incoming)
    try:
        with REAL.lock(store.incoming / f"{sha256}.lock", 0):
            yield
    except BlockingIOError as error:
        raise BadRequest(f"{sha256[:12]} is being received already", hint="wait until that ends") from error


def _refuse_full(store: Store, needed: int) -> None:
    """Before the first byte: a server writes to that disk too."""
    if not fits(room := REAL.room(store.incoming), needed):
        raise EdgeKitError(
            no_room(room, needed), hint="make room: `edgekit-runtime gc` removes versions that nothing needs"
        )


def _append(part: Path, offset: int, source: BinaryIO, size: int | None) -> int:
    """How many bytes there are now."""
    got = REAL.size(part) if REAL.kind(part) == "file" else 0
    if offset != got:
        raise BadRequest(f"{part.name[:12]} has {got} bytes; {offset} is not where it goes on", hint=f"--offset {got}")
    sink = REAL.append(part)
    try:
        synced = got
        while piece := source.read(PIECE):
            got += len(piece)
            if size is not None and got > size:
                raise BadRequest(f"{part.name[:12]}: more than {size} bytes came", hint="send the file that was meant")
            sink.write(piece)
            if got - synced >= SYNC_BYTES:
                sink.sync()
                synced = got
    finally:
        sink.sync()
        sink.close()
        REAL.sync_folder(part.parent)
    return got


def _finished(at: Layout, part: Path, sha256: str, got: int, size: int | None) -> bool:
    """Whether it is whole; then it is an object, under its name."""
    if size is not None and got < size:
        return False
    with REAL.open(part) as file:
        digest = hashlib.sha256()
        while piece := file.read(PIECE):
            digest.update(piece)
    right = digest.hexdigest() == sha256
    if not right and size is None:
        return False
    if right:
        _become_object(at, part, sha256)
    else:
        REAL.unlink(part)
        REAL.unlink(part.with_name(f"{sha256}.lock"))
    REAL.sync_folder(part.parent)
    if not right:
        raise EdgeKitError(f"what came is not {sha256[:12]}: it was thrown away", hint="send it again from the start")
    return True


def _become_object(at: Layout, path: Path, sha256: str) -> None:
    """Under its name; what was beside it while it came is done with."""
    make_folder(REAL, at.object(sha256).parent)
    REAL.rename(path, at.object(sha256))
    REAL.sync_folder(at.object(sha256).parent)
    forget(REAL, path.with_name(f"{sha256}.lock"))


def _listed(files: Files) -> dict[str, str]:
    """The digests that a manifest lists, whatever it is worth."""
    try:
        with files.open(MANIFEST) as file:
            listed = json.loads(file.read(MAX_MANIFEST + 1))["files"]
        return {str(name): one["sha256"] for name, one in listed.items() if SHA256.fullmatch(one["sha256"])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}  # who verifies it says what is wrong


def _layout(store: Store) -> Layout:
    return Layout(store.root, REAL, lambda: 0.0)

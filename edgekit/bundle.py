"""Make a bundle: whole or absent. Everything is written beside its place, synced, and renamed into it.

Refuses to replace anything that is not a bundle, and to write where another build writes."""

import fcntl
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgekit_runtime.bundle import MANIFEST, describe, is_bundle, open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import FileEntry, Manifest, to_json
from edgekit_runtime.signature import SIGNATURE, signed

EPOCH = "SOURCE_DATE_EPOCH"
"""Seconds since 1970: the time of a build that is to make what another made at that time (reproducible-builds.org)."""


def build_time() -> int | None:
    """The time that the environment sets for what is built; None where it sets none.

    Raises:
        EdgeKitError: it is no time.
    """
    said = os.environ.get(EPOCH)
    if not said:
        return None
    if not (said.isascii() and said.isdigit() and len(said) <= 11):
        raise EdgeKitError(f"{EPOCH} is no number of seconds", hint=f"set {EPOCH} to seconds since 1970, or unset it")
    return int(said)


def built_at() -> str:
    """When what is built now was built: in UTC, as ISO 8601 writes it."""
    said = build_time()
    when = datetime.now(UTC) if said is None else datetime.fromtimestamp(said, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def whole_folder(place: Path, refuse: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """A scratch folder that becomes `place` when the block ends well, and vanishes when it does not.

    An older bundle at `place` (or what `refuse` does not refuse) stays until then. Holds a lock, which dies with the
    process.

    Raises:
        EdgeKitError: `place` holds something else, or another build is writing it.
    """
    (refuse or refuse_to_replace)(place)
    place = place.absolute()
    scratch = place.with_name(f".{place.name}.building")
    place.parent.mkdir(parents=True, exist_ok=True)
    inner, old, lock = scratch / "bundle", scratch / "old", None
    try:
        with _uninterrupted():
            lock = _locked(scratch)
        _put_back(old, place)
        shutil.rmtree(inner, ignore_errors=True)
        inner.mkdir()
        yield inner
        _sync(inner)
        with _uninterrupted():
            if place.exists():
                place.rename(old)
            inner.rename(place)
            sync(place.parent)
    finally:
        with _uninterrupted():
            if lock is not None:
                _put_back(old, place)
                shutil.rmtree(scratch, ignore_errors=True)
                os.close(lock)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, then let it through; in another thread there is none to hold."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def refuse_to_replace(place: Path) -> None:
    """Raise if something that is not a bundle lies at `place`, or what it should lie in is no folder."""
    above = next((path for path in place.absolute().parents if path.exists()), place)
    if not above.is_dir():
        raise EdgeKitError(f"{above} is no folder", hint="say --out with a new name; nothing was touched")
    if place.exists() and not is_bundle(place) and not (place.is_dir() and not any(place.iterdir())):
        raise EdgeKitError(f"{place} exists and is not a bundle", hint="say --out with a new name; nothing was touched")


def copy_files(source: Path, to: Path) -> None:
    """Copy every file below `source` to below `to`; a failure keeps its kind, which shutil.copytree would hide."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = to / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def described(folder: Path) -> dict[str, FileEntry]:
    """The files that lie in `folder`, by their names below it."""
    return {path.relative_to(folder).as_posix(): describe(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def seal(folder: Path, manifest: Manifest, private_pem: bytes | None = None) -> Manifest:
    """Write the manifest over the files that lie in `folder`, and sign all where there is a key to sign with.

    The manifest with the files' digests; the result opens."""
    for name in (MANIFEST, SIGNATURE):
        (folder / name).unlink(missing_ok=True)
    sealed = replace(manifest, files=described(folder))
    (folder / MANIFEST).write_text(json.dumps(to_json(sealed), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if private_pem is not None:
        digests = {name: entry.sha256 for name, entry in sealed.files.items()}
        digests[MANIFEST] = describe(folder / MANIFEST).sha256
        (folder / SIGNATURE).write_bytes(signed(manifest.name, digests, private_pem))
    open_bundle(folder)
    return sealed


def _locked(scratch: Path) -> int:
    """An open descriptor of the scratch folder, exclusively locked."""
    scratch.mkdir(exist_ok=True)
    descriptor = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not scratch.exists() or os.fstat(descriptor).st_ino != scratch.stat().st_ino:
            raise BlockingIOError
    except BlockingIOError as error:
        os.close(descriptor)
        place = scratch.name.removeprefix(".").removesuffix(".building")
        raise EdgeKitError(
            f"another build is writing {place}", hint="wait for it, or say --out with another name"
        ) from error
    return descriptor


def _put_back(old: Path, place: Path) -> None:
    """Undo half a replacement, of this run or of one that was killed."""
    if old.exists() and not place.exists():
        old.rename(place)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have what was written to a file or folder on the disk before this ends."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Make a bundle: whole or absent. Everything is written beside its place, synced, and renamed into it.

Refuses to replace anything that is not a bundle, and to write where another build writes."""

import fcntl
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgekit_runtime.bundle import MANIFEST, describe, is_bundle, open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import Manifest, to_json


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A scratch folder that becomes `place` when the block ends well, and vanishes when it does not.

    An older bundle at `place` stays until then. Holds a lock, which dies with the process.

    Raises:
        EdgeKitError: `place` holds something else, or another build is writing it.
    """
    refuse_to_replace(place)
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
            _sync_folder(place.parent)
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
    """Raise if something that is not a bundle lies at `place`."""
    if place.exists() and not is_bundle(place) and not (place.is_dir() and not any(place.iterdir())):
        raise EdgeKitError(f"{place} exists and is not a bundle", hint="say --out with a new name; nothing was touched")


def copy_files(source: Path, to: Path) -> None:
    """Copy every file below `source` to below `to`; a failure keeps its kind, which shutil.copytree would hide."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = to / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest over the files that lie in `folder`; the manifest with their digests. The result opens."""
    files = {
        path.relative_to(folder).as_posix(): describe(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    sealed = replace(manifest, files=files)
    (folder / MANIFEST).write_text(json.dumps(to_json(sealed), indent=1, allow_nan=False) + "\n", encoding="utf-8")
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
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

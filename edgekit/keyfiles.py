"""Secrets as files in a folder: written whole and for their owner alone, changed by one program at a time.

Refuses a secret that others can read, a folder that others can write in, and a file system that keeps no modes."""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError, NotFound

_SCRATCH = re.compile(r"\..+\.(?:key|pub|json)\.[0-9]+")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_HINTS = {
    errno.ENOSPC: "free some space; no key was changed",
    errno.EDQUOT: "free some space; no key was changed",
    errno.EROFS: "name a folder that you can write in: --keys FOLDER; no key was changed",
}


@contextmanager
def in_words(home: Path) -> Iterator[None]:
    """What the system raises within becomes an error that says what to do."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "name a folder of your own: --keys FOLDER")
        raise EdgeKitError(f"{error.filename or home}: {error.strerror or error}", hint=hint) from error


def prepare(home: Path) -> None:
    """The folder, made for its owner alone; one that was there stays as it is."""
    try:
        home.mkdir(parents=True, mode=0o700)
    except FileExistsError as error:
        if not home.is_dir():
            raise EdgeKitError(f"{home} is no folder", hint="name a folder for keys: --keys FOLDER") from error
    if home.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EdgeKitError(
            f"others can write in {home}", hint=f"chmod go-w {home}, or name another folder: --keys FOLDER"
        )


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the folder against other programs; it waits for them, and a lock dies with its process."""
    try:
        descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"no keys in {home}", hint="edgekit key new NAME") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for path in (*home.glob(".*"), *home.glob("*/.*")):  # what a killed program left: it may hold a secret
            if _SCRATCH.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()
        yield
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes:
    """A secret, which nobody else may be able to read."""
    if path.stat().st_mode & _OTHERS:
        raise EdgeKitError(f"{path} can be read by others", hint=f"chmod 600 {path}, and think of rotating the key")
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    """Whole or as it was, for its owner only."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            _refuse_no_modes(path, os.fstat(descriptor).st_mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        scratch.replace(path)
        _sync(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_all(last: Path, files: Sequence[tuple[Path, bytes]]) -> None:
    """Write the files in their order. If one fails before `last` is there as it should be, all are as they were."""
    before: list[tuple[Path, bytes | None]] = []
    wanted = dict(files)[last]
    try:
        for path, content in files:
            before.append((path, path.read_bytes() if path.is_file() else None))
            write(path, content)
    except BaseException:
        if not _holds(last, wanted):
            for path, earlier in reversed(before):
                with suppress(OSError):
                    path.unlink(missing_ok=True) if earlier is None else write(path, earlier)
        raise


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _refuse_no_modes(path: Path, mode: int) -> None:
    if mode & _OTHERS:
        raise EdgeKitError(
            f"{path.parent} is on a file system without modes: others could read the key",
            hint="keep keys elsewhere, not on FAT or a shared folder: --keys FOLDER",
        )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems write names at once, and refuse to be asked
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

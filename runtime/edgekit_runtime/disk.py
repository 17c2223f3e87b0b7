"""The disk as the store sees it: few primitives, and changes made of them that a power cut leaves whole or undone.

Refuses to write through a link or over a file; an error of the system becomes one that says what to do.

What is not synced may be lost: bytes until `Sink.sync`, names until `sync_folder` of the folder that they stand in."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.files import open_plain

LEFT = ".tmp"
"""How the names end of what is being made: what a cut left of it is thrown away."""
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Room:
    """Bytes on a file system: free for us, and in all."""

    free: int
    total: int


class Sink(Protocol):
    """A file that is being written."""

    def write(self, data: bytes) -> None: ...
    def sync(self) -> None:
        """Return when the bytes are on the disk."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """The primitives. Those that change something are the points where the power may be cut. All raise `OSError`."""

    def create(self, path: Path) -> Sink:
        """A new file; one that is there is an error."""
        ...

    def append(self, path: Path) -> Sink: ...
    def rename(self, old: Path, new: Path) -> None:
        """Within one folder; takes the place of a file or link that is there."""
        ...

    def symlink(self, target: str, path: Path) -> None: ...
    def unlink(self, path: Path) -> None: ...
    def mkdir(self, path: Path) -> None: ...
    def rmdir(self, path: Path) -> None: ...
    def sync_folder(self, path: Path) -> None:
        """Return when the names in the folder are on the disk."""
        ...

    def open(self, path: Path) -> BinaryIO:
        """A plain file, never through a link."""
        ...

    def names(self, folder: Path) -> list[str]: ...
    def kind(self, path: Path) -> str | None:
        """file, folder, link or other; None: nothing is there."""
        ...

    def target(self, link: Path) -> str: ...
    def size(self, path: Path) -> int: ...
    def modified(self, path: Path) -> float: ...
    def room(self, path: Path) -> Room: ...
    def lock(self, path: Path, seconds: float) -> AbstractContextManager[None]:
        """Hold a lock that dies with its process. Raises `BlockingIOError` when it was not had for so long."""
        ...


class _File:
    def __init__(self, path: Path, flags: int) -> None:
        self._number = os.open(path, flags | os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._number, left) :]

    def sync(self) -> None:
        os.fsync(self._number)

    def close(self) -> None:
        os.close(self._number)


class RealDisk:
    """The system's own."""

    def create(self, path: Path) -> Sink:
        return _File(path, os.O_EXCL)

    def append(self, path: Path) -> Sink:
        return _File(path, os.O_APPEND)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def symlink(self, target: str, path: Path) -> None:
        os.symlink(target, path)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path, 0o755)  # whatever the process's mask: nobody else may put files in the place of ours

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def sync_folder(self, path: Path) -> None:
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(number)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some file systems write names at once, and refuse to be asked
                raise
        finally:
            os.close(number)

    def open(self, path: Path) -> BinaryIO:
        return open_plain(path)

    def names(self, folder: Path) -> list[str]:
        return sorted(os.listdir(folder))

    def kind(self, path: Path) -> str | None:
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(mode):
            return "link"
        return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"

    def target(self, link: Path) -> str:
        return os.readlink(link)

    def size(self, path: Path) -> int:
        return os.lstat(path).st_size

    def modified(self, path: Path) -> float:
        return os.lstat(path).st_mtime

    def room(self, path: Path) -> Room:
        told = os.statvfs(path)
        return Room(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize)

    @contextmanager
    def lock(self, path: Path, seconds: float) -> Iterator[None]:
        # To read: so it can be had on a file system that has turned read-only.
        number = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            end = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise
                time.sleep(POLL_SECONDS)
            yield
        finally:
            os.close(number)


REAL: Disk = RealDisk()


def write(disk: Disk, path: Path, chunks: Iterable[bytes]) -> None:
    """A new file whose bytes are on the disk; its name is not until the folder is synced. What fails leaves none."""
    if disk.kind(path) is not None:
        disk.unlink(path)  # a cut left it
    sink = disk.create(path)
    try:
        try:
            for chunk in chunks:
                sink.write(chunk)
            sink.sync()
        finally:
            sink.close()
    except Exception:  # whatever the chunks raise: it goes on when the file is gone
        with suppress(OSError):
            disk.unlink(path)
        raise


def replace(disk: Disk, path: Path, data: bytes) -> None:
    """Make the file say `data`: it says the old or the new at every moment."""
    beside = path.with_name(path.name + LEFT)
    write(disk, beside, [data])
    disk.rename(beside, path)
    disk.sync_folder(path.parent)


def swap_link(disk: Disk, path: Path, target: str) -> None:
    """Make the link lead to `target`: it leads to the old or the new at every moment."""
    beside = path.with_name(path.name + LEFT)
    if disk.kind(beside) is not None:
        disk.unlink(beside)
    disk.symlink(target, beside)
    disk.rename(beside, path)
    disk.sync_folder(path.parent)


def forget(disk: Disk, path: Path) -> None:
    """Remove the file if it is there."""
    if disk.kind(path) is not None:
        disk.unlink(path)
    if disk.kind(path.parent) is not None:
        disk.sync_folder(path.parent)  # in any case: who removed it may have died before this


def make_folder(disk: Disk, path: Path) -> None:
    """The folder and those above it. All their names are synced even where they were there: who made them may have
    died before that."""
    for one in (*reversed(path.parents), path):
        if disk.kind(one) is None:
            disk.mkdir(one)
        if one.parent != one:
            with suppress(PermissionError):  # far above us, and not ours: then we did not make what is in it either
                disk.sync_folder(one.parent)


def remove(disk: Disk, path: Path) -> int:
    """Remove a file, a link, or a folder with all in it; how many bytes that were."""
    freed, waiting = 0, [path]
    while waiting:
        one = waiting[-1]
        if disk.kind(one) != "folder":
            freed += disk.size(one)
            disk.unlink(waiting.pop())
        elif inside := disk.names(one):
            waiting += [one / name for name in inside]
        else:
            disk.rmdir(waiting.pop())
    return freed


_HINTS = {
    errno.ENOSPC: "make room: `edgekit-runtime gc` removes versions that nothing needs",
    errno.EDQUOT: "make room, or raise the user's quota",
    errno.EROFS: "mount it for writing; a card that turned read-only by itself is worn out: replace it",
    errno.EIO: "the disk fails: `dmesg` tells more; replace it",
    errno.EACCES: "do it as the user that the store belongs to",
    errno.EPERM: "do it as the user that the store belongs to, on a file system that has links (not FAT)",
    errno.ELOOP: "a link stands where a file should be: remove it",
    errno.ENOTDIR: "a file stands where a folder should be: name another place, or move it away",
    errno.EISDIR: "a folder stands where a file should be: name another place, or move it away",
    errno.ENAMETOOLONG: "name a place with a shorter path",
}


@contextmanager
def plain_errors(where: str) -> Iterator[None]:
    """What the system raises within becomes an `EdgeKitError`."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "look whether the disk is whole and yours: `dmesg` tells more")
        raise EdgeKitError(f"{where}: {error.strerror or error}", hint=hint) from error

"""Bytes held in memory that nobody can change any more, in a folder through which engines open them as any file.

Refuses to hold what does not fit, and leaves nothing behind then: no memory, no descriptor, no folder."""

import fcntl
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

MEMORY = Path("/dev/shm")
"""A file system in memory, which every Linux has."""
_VIEW = re.compile(r"edgekit-[0-9]+-[a-z0-9_]+")


def hold(name: str, chunks: Iterable[bytes]) -> int:
    """A descriptor of a file in memory with these bytes, sealed: they stay as they are until it is closed.

    Raises:
        EdgeKitError: there is no room for it. What raises while `chunks` are made goes through; nothing is held then.
    """
    try:
        descriptor = os.memfd_create(Path(name).name[-200:], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise _no_room(name, error) from error
    try:
        _fill(name, descriptor, chunks)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class View:
    """A folder, for this user alone, of links to held files; `close` lets go of both. So does the end of the process.

    Links name this process, so its children can follow them while it lives. A process that is killed takes the sealed
    files along, but not the folder: the next view of this user removes it, by the lock that nobody holds any more.
    """

    def __init__(self) -> None:
        sweep()
        self.folder, lock = _new_folder(_parent())
        self._descriptors = [lock]
        self._closed = weakref.finalize(self, _let_go, os.getpid(), self.folder, self._descriptors)

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Hold these bytes, sealed, as `name` in the folder. Raises as `hold` does."""
        place = self._place(name)
        self._descriptors.append(hold(name, chunks))
        try:
            place.symlink_to(f"/proc/{os.getpid()}/fd/{self._descriptors[-1]}")
        except OSError as error:
            raise _no_room(name, error) from error

    def add_plain(self, name: str, chunks: Iterable[bytes]) -> None:
        """Put these bytes as a plain file in the folder, for an engine that takes no links: in memory too, read-only,
        and out of reach of other users, but not sealed.

        Raises:
            EdgeKitError: there is no room for it, or no file system in memory here.
        """
        if not (self.folder.parent == MEMORY and MEMORY.is_mount()):
            raise EdgeKitError(f"{name} must lie in memory, and {MEMORY} is none", hint=f"mount a tmpfs at {MEMORY}")
        place = self._place(name)
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        except OSError as error:
            raise _no_room(name, error) from error
        try:
            _fill(name, descriptor, chunks)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Remove the folder and free the memory, as far as no engine maps it. Twice is once."""
        self._closed()

    def _place(self, name: str) -> Path:
        place = self.folder / name
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _no_room(name, error) from error
        return place


def _new_folder(parent: Path) -> tuple[Path, int]:
    """A folder for this user alone, and a descriptor that holds its lock for as long as any process has it."""
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"edgekit-{os.getpid()}-", dir=parent))
        except OSError as error:
            raise _no_room("a bundle", error) from error
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # another process swept it before it was locked
            continue
        except OSError as error:
            folder.rmdir()
            raise _no_room("a bundle", error) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return folder, descriptor
        os.close(descriptor)


def _parent() -> Path:
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK)
    return MEMORY if in_memory else Path(tempfile.gettempdir())


def sweep() -> None:
    """Remove the views of this user whose processes are gone: nobody holds their locks. Their numbers would not tell:
    another container's processes have numbers of their own."""
    parent = _parent()
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(parent)
    for name in filter(_VIEW.fullmatch, names):
        with suppress(OSError):  # another process sweeps too, or it is not ours: it stays
            descriptor = os.open(parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(parent / name, ignore_errors=True)
            finally:
                os.close(descriptor)


def _fill(name: str, descriptor: int, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        left = memoryview(chunk)
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except OSError as error:
                raise _no_room(name, error) from error


def _let_go(process: int, folder: Path, descriptors: list[int]) -> None:
    """Only in the process that made it: a fork's end is not the end of the view."""
    if process != os.getpid():
        return
    shutil.rmtree(folder, ignore_errors=True)
    while descriptors:
        os.close(descriptors.pop())


def _no_room(name: str, error: OSError) -> EdgeKitError:
    return EdgeKitError(
        f"{name} cannot be held in memory: {error.strerror}",
        hint="free memory, or raise the service's limits (MemoryMax, LimitNOFILE)",
    )

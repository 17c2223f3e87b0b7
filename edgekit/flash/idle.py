"""Whether anybody uses an image: a mounted loop device, an emulator that runs, a program that has it open to write.

Refuses an image in use, and holds others off with the locks that emulators and this program keep."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit_runtime.errors import Busy

FLOCK = "hhqqi4x"
"""struct flock of 64-bit Linux: type, whence, start, length, process."""
HINT = "unmount it, or stop what uses it, then try again"


@contextmanager
def unused(path: Path) -> Iterator[None]:
    """Hold the image for us alone until the block ends. Raises `Busy` where somebody uses it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An emulator takes locks of this kind: to read, on bytes that say what it does; it looks for ours as well.
            asked = fcntl.fcntl(file, fcntl.F_OFD_GETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            if struct.unpack(FLOCK, asked)[0] != fcntl.F_UNLCK:
                raise Busy(f"{path.name} is in use by another program, such as an emulator", hint=HINT)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError as error:
            raise Busy(f"{path.name} is being written by another flash", hint="wait until it ends") from error
        for who in (*_loops(path), *_writers(path)):
            raise Busy(f"{path.name} is in use: {who}", hint=HINT)
        yield


def _loops(path: Path) -> Iterator[str]:
    """Loop devices that show it: what is mounted from an image is mounted through one."""
    for backing in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        try:
            same = os.path.samefile(backing.read_text().strip(), path)
        except OSError:
            continue
        if same:
            yield f"it is /dev/{backing.parent.parent.name}"


def _writers(path: Path) -> Iterator[str]:
    """Other processes that have it open to write, as far as we may look."""
    here = path.stat()
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        process = opened.parent.parent
        if process.name == str(os.getpid()):
            continue
        try:
            found = opened.stat()
            if (found.st_dev, found.st_ino) != (here.st_dev, here.st_ino):
                continue
            lines = (process / "fdinfo" / opened.name).read_text().splitlines()
            flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
            name = (process / "comm").read_text().strip()
        except (OSError, StopIteration, ValueError):
            continue  # it ended, or is not ours to look at
        if flags & os.O_ACCMODE != os.O_RDONLY:
            yield f"{name} (process {process.name}) has it open to write"

"""A small file that is written over each second and hardly wears a card: what a kill would take from memory lies here.

Refuses content that is too long, and never raises for what the disk does: then it says that nothing is kept.

The file is mapped into memory: a kill leaves what was stored in the page cache, and the system writes the few pages
that changed about every half minute, however often they changed; a `write` would have the time of the file journaled
each second. It has two halves in turn, each with a checksum: one that was cut off is not taken for whole."""

import os
import stat
import struct
import zlib
from contextlib import suppress
from pathlib import Path

NAME = "telemetry.open"
HALF = 32 * 1024
PAGE = 4096
SIZE = 2 * HALF
MAGIC = b"edgekit\1"
HEAD = struct.Struct("<8sQII")
"""MAGIC, the number of the writing, the length of the content and its checksum."""


class Slate:
    """The file in this folder. Raises OSError where it cannot be made, or is no plain file."""

    def __init__(self, folder: Path) -> None:
        import mmap

        whole, made = _held(folder / NAME), folder / f"{NAME}.new"
        made.unlink(missing_ok=True)
        file = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _fill(file, whole)
            self._map = mmap.mmap(file, SIZE)
            self._map.madvise(mmap.MADV_RANDOM)  # pages that are read together are written together too
            made.replace(folder / NAME)
        except OSError:
            made.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        found = [one for one in (_read(whole[:HALF]), _read(whole[HALF:])) if one is not None]
        self._count, self.found = max(found, default=(0, b""))
        self._from = os.memfd_create(NAME, os.MFD_CLOEXEC)

    def keep(self, content: bytes) -> bool:
        """Put this in the place of what was kept; whether that was done."""
        head = HEAD.pack(MAGIC, self._count + 1, len(content), _sum(self._count + 1, content))
        size, at = len(head) + len(content), (self._count + 1) % 2 * HALF
        if size > HALF:
            return False
        try:
            os.pwrite(self._from, head + content, 0)
            with memoryview(self._map)[at : at + size] as place:
                # Storing there ourselves would end the process with SIGBUS where the disk fails; the system's copying
                # only fails.
                done = os.preadv(self._from, [place], 0) == size
        except (OSError, ValueError):
            return False
        self._count += done
        return done

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError):
            os.close(self._from)
        self._map.close()


def _held(path: Path) -> bytes:
    """What was kept before. Raises OSError where that is no plain file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return bytes(SIZE)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{NAME} is not a file")
        return os.pread(file, SIZE, 0).ljust(SIZE, b"\0")
    finally:
        os.close(file)


def _fill(file: int, whole: bytes) -> None:
    """Take all its room on the disk at once, page by page: what is written as one lies in memory as one, and would go
    to the disk as one for each byte that changes. Raises OSError."""
    for at in range(0, SIZE, PAGE):
        if os.pwrite(file, whole[at : at + PAGE], at) != PAGE:
            raise OSError("no space is left")
    os.fsync(file)


def _read(half: bytes) -> tuple[int, bytes] | None:
    """The number and the content of a half, where it is whole."""
    magic, count, size, checksum = HEAD.unpack_from(half)
    content = half[HEAD.size : HEAD.size + size]
    whole = magic == MAGIC and len(content) == size and count < 2**63 and _sum(count, content) == checksum
    return (count, content) if whole else None


def _sum(count: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(count.to_bytes(8, "little")))

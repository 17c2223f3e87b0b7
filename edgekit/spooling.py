"""Samples on disk instead of in memory: a file that is read a piece at a time, and scratch files for what has none.

Refuses a disk that is full, and one that it would fill. A scratch file has no name: it is gone when nobody holds it,
however the process ends. What is read does not count as memory of this process, as a mapped file would."""

import errno
import os
import shutil
import tempfile
import weakref
from array import array as numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array

RESERVE = 256 * 2**20
"""Bytes that stay free on the disk."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, eq=False)
class Disk:
    """A file open for reading pieces of it, at any place and from any thread; closed when nobody holds it."""

    file: BinaryIO
    where: str

    def read(self, offset: int, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
        """The array that lies at `offset` bytes. Raises EdgeKitError where the file has become shorter."""
        found = np.empty(tuple(shape), dtype)
        left = found.reshape(-1).view(np.uint8).data
        while len(left):
            count = os.preadv(self.file.fileno(), [left], offset)
            if not count:
                raise EdgeKitError(f"{self.where} has become shorter meanwhile", hint="leave it alone, and try again")
            left, offset = left[count:], offset + count
        return found


def disk(file: BinaryIO, where: str) -> Disk:
    """`file`, owned by what comes back."""
    held = Disk(file, where)
    weakref.finalize(held, file.close)
    return held


@dataclass(frozen=True, eq=False)
class Scratch:
    """A nameless file being written."""

    held: Disk
    folder: str

    def write(self, content: bytes | memoryview) -> None:
        """Append. Raises EdgeKitError where the disk is full."""
        with self._room():
            self.held.file.write(content)

    def put(self, offset: int, piece: Array) -> None:
        """Write a contiguous array at `offset`; not to be mixed with `write`. Raises as that does."""
        with self._room():
            os.pwrite(self.held.file.fileno(), piece.view(np.uint8).data, offset)

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise no_room(self.folder, self.held.where) from error
            raise


def scratch(where: str, needed: int = 0) -> Scratch:
    """A new scratch file for `needed` bytes of what `where` names. Raises EdgeKitError where they do not fit."""
    folder = scratch_folder()
    if needed and shutil.disk_usage(folder).free < needed + RESERVE:
        raise no_room(folder, where, needed)
    try:
        file = tempfile.TemporaryFile(dir=folder, buffering=2**20)  # noqa: SIM115 (what comes back owns it)
    except OSError as error:
        raise EdgeKitError(f"no scratch file can be made in {folder}: {error.strerror}", hint=ELSEWHERE) from error
    return Scratch(disk(file, where), folder)  # type: ignore[arg-type]


ELSEWHERE = "make room there, or set TMPDIR to a folder on a larger disk"


def no_room(folder: str, where: str, needed: int = 0) -> EdgeKitError:
    """What is said of a disk that has no room."""
    free = max(0, shutil.disk_usage(folder).free - RESERVE) / 1e6
    size = f"{needed / 1e6:,.0f} MB of " if needed else ""
    return EdgeKitError(f"no room in {folder} to unpack {size}{where}: {free:,.0f} MB are free", hint=ELSEWHERE)


def scratch_folder() -> str:
    """Where scratch files go: `$TMPDIR`, else /var/tmp, which lies on a disk where /tmp may lie in memory."""
    usual = tempfile.gettempdir()
    on_disk = Path("/var/tmp")
    return str(on_disk) if usual == "/tmp" and on_disk.is_dir() and os.access(on_disk, os.W_OK) else usual


@dataclass(frozen=True, eq=False)
class Spool:
    """Arrays of any shape, appended one after the other and read back by their number."""

    file: Scratch
    offsets: "numbers[int]" = field(default_factory=lambda: numbers("q", [0]))
    forms: "numbers[int]" = field(default_factory=lambda: numbers("l"))
    known: dict[tuple[np.dtype[Any], tuple[int, ...]], int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes written."""
        return self.offsets[-1]

    def append(self, value: Array) -> None:
        """Keep one more array. Raises EdgeKitError where the disk is full."""
        if self.size // RESERVE != (self.size + value.nbytes) // RESERVE:
            free = shutil.disk_usage(self.file.folder).free
            if free < RESERVE:
                raise no_room(self.file.folder, self.file.held.where)
        self.file.write(np.ascontiguousarray(value).tobytes())
        self.offsets.append(self.size + value.nbytes)
        self.forms.append(self.known.setdefault((value.dtype, value.shape), len(self.known)))

    def reader(self) -> "Spooled":
        """What was appended; nothing more can be."""
        self.file.held.file.flush()
        return Spooled(self.file.held, self.offsets, self.forms, tuple(self.known))


@dataclass(frozen=True, eq=False)
class Spooled:
    """Arrays read back by their number."""

    held: Disk
    offsets: Sequence[int]
    forms: Sequence[int]
    known: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]

    def __getitem__(self, number: int) -> Array:
        return self.held.read(self.offsets[number], *self.known[self.forms[number]])

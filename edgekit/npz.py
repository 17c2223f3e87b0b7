"""The arrays of an `.npz`, read a few samples at a time: stored ones where they lie, packed ones unpacked once.

Refuses what is damaged (every byte is checked), objects, and arrays that are larger than their file says."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array

from edgekit.spooling import Disk, disk, scratch

DAMAGED = (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
           struct.error)  # fmt: skip
"""What reading a damaged or encrypted archive raises."""
CHUNK = 4 * 2**20
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Rows:
    """An array on disk whose first axis is the sample. `fortran`: each sample lies there with its axes reversed."""

    held: Disk
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool = False

    def block(self, start: int, stop: int) -> Array:
        """Samples `start` to `stop`, in memory."""
        rest = self.shape[1:]
        inner = rest[::-1] if self.fortran else rest
        found = self.held.read(self.offset + start * self.bytes_each, self.dtype, (stop - start, *inner))
        return found.transpose(0, *range(len(rest), 0, -1)) if self.fortran else found

    @property
    def bytes_each(self) -> int:
        """Bytes of a sample."""
        return prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """What an array's header says, and where its numbers begin in the unpacked member."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The opened `.npz`.

    Raises:
        EdgeKitError: it is not there, or what was read meanwhile is damaged.
    """
    try:
        with path.open("rb") as file:
            alone = file.read(6) == b"\x93NUMPY"
        if alone:
            raise EdgeKitError(
                f"{path} is a single array", hint="write it with numpy.savez, its arrays named as the inputs"
            )
        with zipfile.ZipFile(path) as opened:
            yield opened
    except FileNotFoundError as error:
        raise EdgeKitError(f"no data at {path}", hint="give an .npz, a folder of images, or module:function") from error
    except DAMAGED as error:
        raise EdgeKitError(
            f"{path} does not read: {' '.join(str(error).split()) or type(error).__name__}",
            hint="write it with numpy.savez, without objects",
        ) from error


def headers(opened: zipfile.ZipFile) -> dict[str, Header]:
    """The header of every array, by the array's name. Raises one of DAMAGED."""
    found = {}
    for member in opened.infolist():
        with opened.open(member) as stream:
            found[member.filename.removesuffix(".npy")] = _header(stream, member)
    return found


def whole(opened: zipfile.ZipFile, name: str) -> Array:
    """An array in memory. Raises one of DAMAGED."""
    with opened.open(_member(opened, name)) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def rows(opened: zipfile.ZipFile, name: str, header: Header, path: Path) -> Rows:
    """An array on disk, checked against its checksum; a packed one in a scratch file.

    Raises:
        EdgeKitError: there is no room to unpack it.
        one of DAMAGED: it is damaged.
    """
    member = _member(opened, name)
    stored = member.compress_type == zipfile.ZIP_STORED
    into = None if stored else scratch(str(path), member.file_size)
    with opened.open(member) as stream:
        while chunk := stream.read(CHUNK):
            if into is not None:
                into.write(chunk)
    if into is None:
        held, offset = disk(path.open("rb", buffering=0), str(path)), _offset(path, member) + header.start
    else:
        into.held.file.flush()
        held, offset = into.held, header.start
    found = Rows(held, offset, header.dtype, header.shape)
    return _turned(found, path) if header.fortran and len(header.shape) > 1 else found


def _member(opened: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    names = opened.namelist()
    return opened.getinfo(f"{name}.npy" if f"{name}.npy" in names else name)


def _header(stream: IO[bytes], member: zipfile.ZipInfo) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"{member.filename} has an unknown header")
    shape, fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize > member.file_size - stream.tell():
        raise ValueError(f"{member.filename} is not as long as its header says")
    return Header(dtype, shape, fortran, stream.tell())


def _offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the content of a stored member begins: behind its local header, whose lengths stand at byte 26."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return member.header_offset + 30 + int(name) + int(extra)


def _turned(found: Rows, path: Path) -> Rows:
    """The same array with each sample in one piece: in Fortran's order a sample is scattered over all of it."""
    count, each = found.shape[0], found.bytes_each
    into, numbers = scratch(str(path), count * each), prod(found.shape[1:])
    columns = max(1, CHUNK * 8 // max(1, count * found.dtype.itemsize))
    into.held.file.truncate(count * each)
    for start in range(0, numbers, columns):
        width = min(columns, numbers - start)
        place = found.offset + start * count * found.dtype.itemsize
        piece = np.ascontiguousarray(found.held.read(place, found.dtype, (width, count)).T)
        for i in range(count):
            into.put(i * each + start * found.dtype.itemsize, piece[i])
    return Rows(into.held, 0, found.dtype, found.shape, fortran=True)

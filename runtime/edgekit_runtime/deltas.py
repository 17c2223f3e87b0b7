"""A version of a file as what differs from another: like stretches as bytewise differences, the rest as it is.

Refuses another base, and a delta that is cut, touched, or makes anything but the file that was asked for.

A delta is a header (see `Header`) and one xz stream. Unpacked, it is run after run: how long, where in the base
(-1: nowhere), and then as many bytes, to be added to those of the base modulo 256. A delta against no bytes at all
is the file packed by itself.
"""

import hashlib
import lzma
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgekit_runtime.alignment import NOWHERE, WINDOW, Bytes, Run, aligned
from edgekit_runtime.errors import BadBundle

MAGIC = b"EKDELTA1"
HEADER = struct.Struct("<8sQ32sQ32s")
RUN = struct.Struct("<Qq")
PIECE = 2**16
DICTIONARY, MEMORY = 4 * 2**20, 16 * 2**20
"""What a delta is packed with, and what unpacking may take on a device."""
SAMPLE = 2**20
CODINGS = ((3, 0, 2), (0, 0, 0), (0, 2, 2), (0, 3, 3))
"""lzma's lc, lp and pb: for text and graphs; for bytes, for 32-bit and for 64-bit words that differ a little."""
HINT = "fetch the whole file instead"


@dataclass(frozen=True)
class Header:
    """Which file a delta is for and which it makes: sizes, and digests in hex."""

    base_sha256: str
    base_size: int
    sha256: str
    size: int


def make(base: Path | bytes, new: Path | bytes) -> bytes | None:
    """The delta that makes `new` of `base`; None where it is no smaller than `new`, as it is or packed by itself.

    Takes the memory of both files: it is for hosts. An empty base packs `new` by itself.
    """
    old, wanted = _content(base), _content(new)
    header = HEADER.pack(MAGIC, len(old), _digest(old), len(wanted), _digest(wanted))
    alone = header + _packed(old, wanted, [Run(len(wanted), NOWHERE)])
    if not len(old):
        return alone if len(alone) < len(wanted) else None
    delta = header + _packed(old, wanted, aligned(old, wanted))
    return delta if len(delta) < min(len(alone), len(wanted)) else None


def read_header(delta: BinaryIO) -> Header:
    """What the first bytes of a delta say; the rest is read by `pieces`."""
    raw = _read(delta, HEADER.size)
    magic, base_size, base, size, new = HEADER.unpack(raw) if len(raw) == HEADER.size else (b"", 0, b"", 0, b"")
    if magic != MAGIC:
        raise BadBundle("this is no delta, or one of a later EdgeKit", hint=HINT)
    return Header(base.hex(), base_size, new.hex(), size)


def apply(base: BinaryIO, delta: BinaryIO, out: BinaryIO, sha256: str, size: int) -> None:
    """Write the file of that digest and size to `out`, which is as it was where this raises. `base` can seek.

    Raises:
        BadBundle: the base is another one, or the delta does not make that file.
    """
    begin = out.tell()
    try:
        for piece in pieces(base, delta, sha256, size):
            out.write(piece)
    except BaseException:
        out.seek(begin)
        out.truncate()
        raise


def pieces(base: BinaryIO, delta: BinaryIO, sha256: str, size: int) -> Iterator[bytes]:
    """The same piece by piece. What came is worthless unless all came: the digest is known with the last one."""
    header = read_header(delta)
    if (header.sha256, header.size) != (sha256, size):
        raise BadBundle("the delta makes another file than the one that was asked for", hint=HINT)
    if not _is_base(base, header):
        raise BadBundle("the delta is for another file than the one that is here", hint=HINT)
    unpacked, left, digest = _Unpacked(delta, size), size, hashlib.sha256()
    for _ in range(most_runs(size)):
        if not left:
            break
        length, start = RUN.unpack(unpacked.take(RUN.size))
        if not 0 < length <= left or not (start == NOWHERE or 0 <= start <= header.base_size - length):
            raise BadBundle("the delta copies what is not there, or more than the file holds", hint=HINT)
        left -= length
        for piece in _run(base, unpacked, length, start):
            digest.update(piece)
            yield piece
    unpacked.end()
    if left or digest.hexdigest() != sha256:
        raise BadBundle("the delta was touched: what it makes is not the file", hint=HINT)


def most_runs(size: int) -> int:
    """How many runs a delta for a file of `size` bytes has at most."""
    return 2 + 2 * (size // WINDOW)


def _is_base(base: BinaryIO, header: Header) -> bool:
    digest, size = hashlib.sha256(), 0
    base.seek(0)
    while size <= header.base_size and (piece := base.read(PIECE)):
        digest.update(piece)
        size += len(piece)
    return (digest.hexdigest(), size) == (header.base_sha256, header.base_size)


def _run(base: BinaryIO, unpacked: "_Unpacked", length: int, start: int) -> Iterator[bytes]:
    if start != NOWHERE:
        base.seek(start)
    for done in range(0, length, PIECE):
        count = min(PIECE, length - done)
        piece = unpacked.take(count)
        if start != NOWHERE:
            old = _read(base, count)
            if len(old) != count:
                raise BadBundle("the base became shorter while it was read", hint=HINT)
            piece = (np.frombuffer(old, np.uint8) + np.frombuffer(piece, np.uint8)).tobytes()
        yield piece


class _Unpacked:
    """The xz stream, never more of it than was asked for. Refuses one of more than `limit` bytes: no delta is as
    large as its file."""

    def __init__(self, delta: BinaryIO, limit: int) -> None:
        self._delta, self._left = delta, limit
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    def take(self, count: int) -> bytes:
        """So many bytes."""
        parts = []
        while count:
            parts.append(self._some(count))
            count -= len(parts[-1])
        return b"".join(parts)

    def end(self) -> None:
        """Raise unless there is nothing more."""
        while not self._lzma.eof:
            if self._some(1):
                raise BadBundle("the delta makes more than the file", hint=HINT)
        if self._lzma.unused_data or self._delta.read(1):
            raise BadBundle("the delta goes on after its end", hint=HINT)

    def _some(self, most: int) -> bytes:
        fed = b""
        if self._lzma.needs_input:
            fed = self._delta.read(min(PIECE, self._left + 1))
            self._left -= len(fed)
            if not fed or self._left < 0:
                raise BadBundle("the delta is cut, or larger than its file", hint=HINT)
        try:
            return self._lzma.decompress(fed, most)
        except (lzma.LZMAError, EOFError, MemoryError) as error:
            raise BadBundle(f"the delta does not unpack: {error}", hint=HINT) from error


def _packed(old: Bytes, new: Bytes, runs: Sequence[Run]) -> bytes:
    """The xz stream, with the coding that does best on a sample of it."""
    every = len(new) // SAMPLE + 1
    sample = [piece for index, piece in enumerate(_body(old, new, runs)) if index % every == 0]
    tried = [(len(packed), index, packed) for index, packed in enumerate(_xz(sample, one) for one in CODINGS)]
    _, index, packed = min(tried)
    return packed if every == 1 else _xz(_body(old, new, runs), CODINGS[index])


def _xz(content: Iterable[bytes], coding: tuple[int, int, int]) -> bytes:
    lc, lp, pb = coding
    chain = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": DICTIONARY, "lc": lc, "lp": lp, "pb": pb}
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=[chain])
    return b"".join([*map(packer.compress, content), packer.flush()])


def _body(old: Bytes, new: Bytes, runs: Sequence[Run]) -> Iterator[bytes]:
    done = 0
    for run in runs:
        yield RUN.pack(run.length, run.start)
        for begin in range(done, done + run.length, PIECE):
            end = min(begin + PIECE, done + run.length)
            piece = new[begin:end]
            if run.start != NOWHERE:
                piece = piece - old[begin - done + run.start : end - done + run.start]
            yield piece.tobytes()
        done += run.length


def _content(source: Path | bytes) -> Bytes:
    return np.frombuffer(source, np.uint8) if isinstance(source, bytes) else np.fromfile(source, np.uint8)


def _digest(content: Bytes) -> bytes:
    return hashlib.sha256(content.data).digest()


def _read(file: BinaryIO, count: int) -> bytes:
    """So many bytes, fewer only at the end: a raw file or a socket may give them in parts."""
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)

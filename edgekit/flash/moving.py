"""Bytes on their way to a device: files from an offset on, and how far all of them are.

Refuses a file that became shorter while it was sent."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

PIECE = 65536
OFTEN = 1.0
"""Seconds between two words on how far it is."""


@dataclass(frozen=True)
class Piece:
    """A file, of `size` bytes, to be sent from `offset` on."""

    path: Path
    size: int
    offset: int = 0


class Moved:
    """How many bytes were sent of how many; tells it now and then."""

    def __init__(self, what: str, total: int, tell: Callable[[str], None]) -> None:
        self.what, self.total, self.sent = what, total, 0
        self._tell = tell
        self._last = self._began = time.monotonic()

    def add(self, size: int) -> None:
        """So many more; the last of them are always told."""
        self.sent += size
        now = time.monotonic()
        if self.sent >= self.total or now - self._last >= OFTEN:
            self._last = now
            rate = self.sent / max(now - self._began, 1e-3)
            self._tell(f"{self.what}: {megabytes(self.sent)} of {megabytes(self.total)}, {megabytes(int(rate))}/s")

    def more(self, size: int) -> None:
        """So many have to be sent beside what was thought."""
        self.total += size


def stream(piece: Piece, moved: Moved) -> Iterator[bytes]:
    """The bytes of a file from its offset on."""
    left = piece.size - piece.offset
    with piece.path.open("rb") as file:
        file.seek(piece.offset)
        while left:
            data = file.read(min(left, PIECE))
            if not data:
                raise EdgeKitError(f"{piece.path} became shorter while it was sent", hint="let nothing write to it")
            left -= len(data)
            yield data
            moved.add(len(data))


def stream_bytes(content: bytes, moved: Moved) -> Iterator[bytes]:
    """The same of bytes that are here."""
    for start in range(0, len(content), PIECE):
        data = content[start : start + PIECE]
        yield data
        moved.add(len(data))


def megabytes(size: int) -> str:
    """Such as 14.4 MB."""
    return f"{size / 1e6:,.1f} MB"

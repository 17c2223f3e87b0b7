"""Content by its digest, kept in the user's cache: what was fetched once, and parts of what was not fetched whole.

Refuses to hand out bytes that are not what their name says."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.bundle import describe

from edgekit.isolated import default_cache

IN_USE = 3600.0
"""Seconds after its last use in which nothing is removed."""
KEPT_PARTS = 7 * 86400.0


@dataclass(frozen=True)
class Blobs:
    """Files named by their SHA-256 in the folder `root`, together about `limit` bytes at most."""

    root: Path
    limit: int = 2 * 2**30

    def place(self, digest: str) -> Path:
        """Where content of that digest is, or would be."""
        return self.root / digest.removeprefix("sha256:")

    def part(self, digest: str) -> Path:
        """Where a beginning of it is."""
        return self.root / f"{digest.removeprefix('sha256:')}.part"

    def find(self, digest: str, size: int) -> Path | None:
        """The content, verified; None where it is not here. What was damaged is removed."""
        place = self.place(digest)
        if place.is_symlink() or not place.is_file():
            return None
        found = describe(place)
        if (f"sha256:{found.sha256}", found.size) != (digest, size):
            place.unlink(missing_ok=True)
            return None
        os.utime(place)
        return place

    @contextmanager
    def writing(self, digest: str) -> Iterator[int | None]:
        """The part's descriptor, locked; None where another process finished it while we waited."""
        self.root.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self.part(digest), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self.place(digest).is_file():
                    yield None
                    return
                if self._is_part(digest, descriptor):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def keep(self, digest: str, descriptor: int) -> Path:
        """Give the part, which is whole and verified, its name."""
        os.fsync(descriptor)
        self.part(digest).rename(self.place(digest))
        return self.place(digest)

    def put(self, digest: str, made: Path) -> Path:
        """Take in a file that was made here and is verified."""
        made.replace(self.place(digest))
        return self.place(digest)

    def trim(self) -> None:
        """Remove what was not used for longest until the limit holds, and parts that nobody came back for."""
        entries = []
        for path in self.root.iterdir() if self.root.is_dir() else ():
            try:
                told = path.lstat()
            except FileNotFoundError:
                continue
            entries.append((told.st_mtime, told.st_size, path))
        excess, now = sum(size for _, size, _ in entries) - self.limit, time.time()
        for used, size, path in sorted(entries):
            half = not path.name.isalnum()
            if now - used > (KEPT_PARTS if half else IN_USE) and (half or excess > 0):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                excess -= size

    def size(self) -> tuple[int, int]:
        """How many files are kept, and their bytes."""
        sizes = [path.lstat().st_size for path in self.root.iterdir()] if self.root.is_dir() else []
        return len(sizes), sum(sizes)

    def clear(self) -> int:
        """Remove all but what is being fetched right now; the bytes that went."""
        gone = 0
        for path in self.root.iterdir() if self.root.is_dir() else ():
            with suppress(OSError):  # another process removes it too, or is fetching it
                size, descriptor = path.lstat().st_size, os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    gone += size
                finally:
                    os.close(descriptor)
        return gone

    def _is_part(self, digest: str, descriptor: int) -> bool:
        """Whether the part still is the file that was opened: who held it before may have renamed it."""
        try:
            return os.fstat(descriptor).st_ino == self.part(digest).lstat().st_ino
        except FileNotFoundError:
            return False


def user_blobs(root: Path | None = None) -> Blobs:
    """What is kept below `root`, else where the user's caches are."""
    return Blobs((root or default_cache()) / "blobs")


def in_tenths(name: str, size: int, tell: Callable[[str], None]) -> Callable[[int], None]:
    """Told how many bytes of a file have gone, it says so in words at every tenth, of a large one."""
    told = [0]

    def hear(count: int) -> None:
        if size > 2**24 and count * 10 // size > told[0]:
            told[0] = count * 10 // size
            tell(f"{name}: {told[0] * 10} %")

    return hear

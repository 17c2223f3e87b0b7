"""A disk in memory that loses at a power cut what was not synced: each primitive is a point where the power may go.

Refuses every primitive after the cut, so that no clean-up runs which a dead machine would not have run.

What survives a cut, for each file and folder on its own, in every combination:
- of bytes written since the file's last `sync`: none, half or all of them;
- of names changed since the folder's last `sync_folder`: any number of them, in their order.
So a file renamed into place before its bytes were synced may be empty, and a name not synced may be the old or the new.
"""

import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.disk import Room, Sink


class PowerCut(BaseException):
    """The machine is dead. Not an `Exception`: nothing may handle it."""


class File:
    """What is on the disk, and what is only in memory."""

    def __init__(self, durable: bytes = b"", pending: bytes = b"") -> None:
        self.durable, self.pending = durable, pending


class Link:
    """It is on the disk with its name."""

    def __init__(self, target: str) -> None:
        self.target = target


class Folder:
    """The names on the disk, the names now, and the changes from those to these."""

    def __init__(self, entries: "dict[str, Node] | None" = None) -> None:
        self.durable: dict[str, Node] = dict(entries or {})
        self.now = dict(self.durable)
        self.pending: list[tuple[str | None, str | None, Node | None]] = []

    def change(self, old: str | None, new: str | None, node: "Node | None" = None) -> None:
        """Take the name `old` away and put `new` there, as one."""
        self.pending.append((old, new, node))
        _apply(self.now, old, new, node)


Node = File | Link | Folder
Frozen = tuple[object, ...]
"""A whole tree as a value: equal trees are equal."""


def _apply(names: dict[str, Node], old: str | None, new: str | None, node: Node | None) -> None:
    if old is not None:
        moved = names.pop(old)
        node = node or moved
    if new is not None and node is not None:
        names[new] = node


class SimulatedDisk:
    """Implements `Disk`. `cut_after`: the power goes right after so many primitives. `fails`: called with each
    primitive's name before it is done; what it raises is raised."""

    def __init__(self, root: Folder | None = None) -> None:
        self.root = root or Folder()
        self.count, self.cut_after = 0, -1
        self.fails: Callable[[str], None] = lambda _: None
        self.clock, self.free, self.total = 1_800_000_000.0, 10**9, 10**9
        self.held: set[Path] = set()
        self.dead = False

    # the primitives that change something

    def create(self, path: Path) -> Sink:
        with self.step("create"):
            folder = self._folder(path.parent)
            if path.name in folder.now:
                raise _error(errno.EEXIST, path)
            file = File()
            folder.change(None, path.name, file)
        return _Sink(self, file)

    def append(self, path: Path) -> Sink:
        with self.step("append"):
            folder = self._folder(path.parent)
            if path.name not in folder.now:
                folder.change(None, path.name, File())
            file = folder.now[path.name]
            assert isinstance(file, File)
        return _Sink(self, file)

    def rename(self, old: Path, new: Path) -> None:
        with self.step("rename"):
            assert old.parent == new.parent, "a rename between folders may be half done"
            folder = self._folder(old.parent)
            node, there = self._at(old), folder.now.get(new.name)
            if isinstance(there, Folder) and there.now:
                raise _error(errno.ENOTEMPTY, new)
            if there is not None and isinstance(there, Folder) != isinstance(node, Folder):
                raise _error(errno.EISDIR, new)
            folder.change(old.name, new.name)

    def symlink(self, target: str, path: Path) -> None:
        with self.step("symlink"):
            self._make(path, Link(target))

    def unlink(self, path: Path) -> None:
        with self.step("unlink"):
            if isinstance(self._at(path), Folder):
                raise _error(errno.EISDIR, path)
            self._folder(path.parent).change(path.name, None)

    def mkdir(self, path: Path) -> None:
        with self.step("mkdir"):
            self._make(path, Folder())

    def rmdir(self, path: Path) -> None:
        with self.step("rmdir"):
            if self._folder(path).now:
                raise _error(errno.ENOTEMPTY, path)
            self._folder(path.parent).change(path.name, None)

    def sync_folder(self, path: Path) -> None:
        with self.step("sync_folder"):
            folder = self._folder(path)
            folder.durable, folder.pending = dict(folder.now), []

    # those that only look

    def open(self, path: Path) -> BinaryIO:
        file = self._at(path)
        if not isinstance(file, File):
            raise _error(errno.ELOOP, path)
        return io.BytesIO(file.durable + file.pending)

    def names(self, folder: Path) -> list[str]:
        return sorted(self._folder(folder).now)

    def kind(self, path: Path) -> str | None:
        try:
            return {File: "file", Link: "link", Folder: "folder"}[type(self._at(path))]
        except (FileNotFoundError, NotADirectoryError):
            return None

    def target(self, link: Path) -> str:
        node = self._at(link)
        assert isinstance(node, Link)
        return node.target

    def size(self, path: Path) -> int:
        node = self._at(path)
        return len(node.durable) + len(node.pending) if isinstance(node, File) else 0

    def modified(self, path: Path) -> float:
        self._at(path)
        return self.clock

    def room(self, path: Path) -> Room:
        self._at(path)
        return Room(self.free, self.total)

    @contextmanager
    def lock(self, path: Path, seconds: float) -> Iterator[None]:
        """Locks are in memory: a dead machine holds none."""
        if path in self.held:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.held.add(path)
        try:
            yield
        finally:
            self.held.discard(path)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if self.dead:
            raise PowerCut
        self.fails(name)
        yield
        self.count += 1
        if self.count == self.cut_after:
            self.dead = True
            raise PowerCut

    def _make(self, path: Path, node: Node) -> None:
        folder = self._folder(path.parent)
        if path.name in folder.now:
            raise _error(errno.EEXIST, path)
        folder.change(None, path.name, node)

    def _at(self, path: Path) -> Node:
        node: Node = self.root
        for part in path.parts[1:]:
            if not isinstance(node, Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            if part not in node.now:
                raise _error(errno.ENOENT, path)
            node = node.now[part]
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._at(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return node


class _Sink:
    def __init__(self, disk: SimulatedDisk, file: File) -> None:
        self._disk, self._file = disk, file

    def write(self, data: bytes) -> None:
        with self._disk.step("write"):
            self._file.pending += data

    def sync(self) -> None:
        with self._disk.step("sync"):
            self._file.durable, self._file.pending = self._file.durable + self._file.pending, b""

    def close(self) -> None:
        """Changes nothing on the disk."""


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))  # Python makes it the class of the number


def frozen(node: Node) -> Frozen:
    """The tree as it is now."""
    if isinstance(node, File):
        return ("file", node.durable + node.pending)
    if isinstance(node, Link):
        return ("link", node.target)
    return ("folder", *((name, frozen(node.now[name])) for name in sorted(node.now)))


def thawed(tree: Frozen) -> Node:
    """The tree, all of it on the disk."""
    kind, *rest = tree
    if kind == "file":
        return File(rest[0])  # type: ignore[arg-type]
    if kind == "link":
        return Link(str(rest[0]))
    return Folder({name: thawed(inside) for name, inside in rest})  # type: ignore[misc]


def started(tree: Frozen) -> SimulatedDisk:
    """A machine that starts with this on its disk."""
    root = thawed(tree)
    assert isinstance(root, Folder)
    return SimulatedDisk(root)


def survivors(node: Node) -> set[Frozen]:
    """Every tree that a power cut may leave of this one."""
    if isinstance(node, File):
        half = len(node.pending) // 2
        return {("file", node.durable + node.pending[:size]) for size in (0, half, len(node.pending))}
    if isinstance(node, Link):
        return {("link", node.target)}
    left: set[Frozen] = set()
    names = dict(node.durable)
    for change in [(None, None, None), *node.pending]:
        _apply(names, *change)
        order = sorted(names)
        for inside in itertools.product(*(survivors(names[name]) for name in order)):
            left.add(("folder", *zip(order, inside, strict=True)))
    return left

"""An ext4 file system in an image, read and written by Debian's debugfs: without mounting it, without root.

Refuses one that is damaged, names that debugfs cannot say, and a write that does not read back byte for byte."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

from edgekit.flash.at_rest import Entry, Item, Kind, Root, find
from edgekit.flash.card import Part, read_ext
from edgekit.flash.facts import Disk
from edgekit.isolated import default_cache, locked
from edgekit.model import Tell

PROGRAMS = ("debugfs", "e2fsck")
KINDS: Mapping[int, Kind] = {0o04: "folder", 0o10: "file", 0o12: "link"}
"""By the type in a mode."""
LONG = 1800.0
MOST_READ = 64 * 2**20
SAYABLE = re.compile(r"[^\"\\\x00-\x1f\x7f]+")
MENDED = 3
"""e2fsck's status up to which all is well: it mended something, or wants a restart."""


@dataclass(frozen=True)
class Ext4:
    """A file system within the file `image`; `device` is how the programs are told of it when they run in `folder`."""

    where: str
    image: Path
    folder: Path
    device: str
    programs: Mapping[str, tuple[str, ...]]
    disk: Disk

    def ask(self, command: str) -> bytes:
        """What debugfs prints for one command that changes nothing."""
        return self._run("debugfs", "-c", "-R", command, self.device).stdout

    def digest(self, entry: Entry) -> bytes:
        """The SHA-256 of a file, whatever its size."""
        hashed = hashlib.sha256()
        command = [*self.programs["debugfs"], "-c", "-R", f"cat <{entry.key}>", self.device]
        with subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            while piece := process.stdout.read(2**20):
                hashed.update(piece)
        return hashed.digest()

    def change(self, commands: Sequence[str]) -> str:
        """Let debugfs do these; what it complained of. It ends well whatever went wrong: look at what came of it."""
        script = self.folder / "commands"
        script.write_text("\n".join(commands) + "\n", encoding="utf-8")
        return self._run("debugfs", "-w", "-f", str(script), self.device).stderr.decode(errors="replace")

    def check(self, mend: bool = False) -> None:
        """Raise `EdgeKitError` where e2fsck finds damage; `mend`: let it replay the journal and what is safe first."""
        done = self._run("e2fsck", "-fp" if mend else "-fn", self.device)
        if done.returncode > (MENDED if mend else 0):
            lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
            told = next((line for line in lines if not line.startswith(("Pass ", "e2fsck "))), "it does not say why")
            hint = f"mend it: e2fsck -f on a copy of {self.where}, or get the image again"
            raise EdgeKitError(f"the file system in {self.where} is damaged: {_plain(told)}", hint=hint)

    def _run(self, program: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
        command = [*self.programs[program], *words]
        env = {**os.environ, "LC_ALL": "C", "DEBUGFS_PAGER": "cat"}
        try:
            return subprocess.run(
                command, cwd=self.folder, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=LONG
            )
        except subprocess.TimeoutExpired as error:
            raise EdgeKitError(f"{program} did not end within {LONG:.0f} s", hint="look at the image's disk") from error


def programs(
    tell: Tell, cache_folder: Path | None = None, names: Sequence[str] = PROGRAMS
) -> dict[str, tuple[str, ...]]:
    """How debugfs and e2fsck (or `names` of their package) are called: this machine's own, else Debian's, fetched once.

    Raises:
        EdgeKitError: they are not here and cannot be fetched.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    own = {name: shutil.which(name, path=path) for name in names}
    if all(own.values()):
        return {name: (str(found),) for name, found in own.items()}
    return fetched(tell, cache_folder, names)


def fetched(
    tell: Tell, cache_folder: Path | None = None, names: Sequence[str] = PROGRAMS
) -> dict[str, tuple[str, ...]]:
    """Debian's, with the C library that they were made for: this machine's may be another."""
    from edgekit.places.debian import unpack

    home = (cache_folder or default_cache()) / "programs"
    folder = home / "e2fsprogs"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "lock", "fetching e2fsprogs", tell):
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
            try:
                unpack(["e2fsprogs"], None, scratch / "whole", tell)
                (scratch / "whole").rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    loaders = sorted(folder.glob("lib*/**/ld-linux*")) + sorted(folder.glob("usr/lib*/**/ld-linux*"))
    libraries = sorted({str(found.parent) for found in folder.glob("**/*.so.*")})
    named = {name: next(iter(sorted(folder.glob(f"**/sbin/{name}"))), None) for name in names}
    if not loaders or not all(named.values()):
        raise EdgeKitError("Debian's e2fsprogs came without what is needed", hint="apt install e2fsprogs")
    start = (str(loaders[0]), "--library-path", ":".join(libraries))
    return {name: (*start, str(found)) for name, found in named.items()}


@contextmanager
def opened(image: Path, part: Part, calls: Mapping[str, tuple[str, ...]], where: str = "") -> Iterator[Ext4]:
    """The file system of a partition, until the block ends. Raises `EdgeKitError` where there is none."""
    said = read_ext(image, part)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        (Path(folder) / "card").symlink_to(image.absolute())  # the image's own name may hold a "?"
        device = f"card?offset={part.start}" if part.start else "card"
        yield Ext4(where or image.name, image, Path(folder), device, calls, Disk(said.size, said.free))


def as_root(ext: Ext4) -> Root:
    """It as a root file system. What was read of a folder is kept: make a new one after a change."""
    listing = cache(lambda inode: _names(ext.ask(f"ls -p <{inode}>")))

    def read(entry: Entry, limit: int) -> bytes:
        if entry.size > MOST_READ:
            raise EdgeKitError(f"a file in {ext.where} is too large to look into", hint="get the image again")
        place = ext.folder / "read"
        ext.ask(f"dump <{entry.key}> read")
        try:
            with place.open("rb") as file:
                return file.read(limit)
        except FileNotFoundError as error:
            raise _unread(ext) from error
        finally:
            place.unlink(missing_ok=True)

    return Root(
        ext.where,
        Entry("folder", 0, "2"),
        lambda entry: listing(entry.key),
        lambda entry: _link(ext, entry),
        read,
        ext.disk,
    )


def put(ext: Ext4, items: Sequence[Item]) -> None:
    """Put these there, in this order, owned by root; what has such a name is replaced.

    Raises:
        EdgeKitError: it cannot be done, or what was written does not read back the same.
    """
    root = as_root(ext)
    commands: list[str] = []
    made: set[str] = set()
    for number, item in enumerate(items):
        path = _ready(root, item.path, made, commands)
        if find(root, f"{path.rpartition('/')[0]}/") and _there(root, path):
            commands.append(f"rm {_word(path)}")
        if item.link is not None:
            commands.append(f'symlink {_word(path)} "{item.link}"')
            continue
        source = f"from-{number}"
        if isinstance(item.source, Path):
            (ext.folder / source).symlink_to(item.source.absolute())
        else:
            (ext.folder / source).write_bytes(item.source)
        commands.append(f"write {source} {_word(path)}")
        for field, value in (("mode", f"0{0o100000 | item.mode:o}"), ("uid", "0"), ("gid", "0")):
            commands.append(f"set_inode_field {_word(path)} {field} {value}")
    said = ext.change(commands)
    _verify(ext, items, said)


def _verify(ext: Ext4, items: Sequence[Item], said: str) -> None:
    root = as_root(ext)
    for item in items:
        folder, _, name = item.path.rpartition("/")
        parent = find(root, folder)
        entry = root.names(parent[1]).get(name) if parent else None
        if item.link is not None:
            right = entry is not None and entry.kind == "link" and root.link(entry) == item.link
        else:
            right = entry is not None and entry.kind == "file" and entry.size == item.size
            right = right and entry is not None and ext.digest(entry) == _digest(item)
        if not right:
            complaint = [line for line in said.splitlines() if line.strip() and not line.startswith("debugfs ")]
            told = _plain(complaint[0]) if complaint else "debugfs does not say why"
            hint = "make the image larger, or free space in it" if "allocate" in told else "get the image again"
            raise EdgeKitError(f"{ext.where}: {item.path} could not be written: {told}", hint=hint)


def _ready(root: Root, path: str, made: set[str], commands: list[str]) -> str:
    """The true path of what is to be written, with commands for the folders that lack."""
    *folders, name = path.strip("/").split("/")
    here = ""
    for part in folders:
        below = f"{here}/{part}".strip("/")
        if below in made:
            here = below
            continue
        found = find(root, below)
        if found is None:
            commands.append(f"mkdir {_word(below)}")
            made.add(below)
            here = below
        elif found[1].kind != "folder":
            raise EdgeKitError(f"{root.where}: {below} is no folder", hint="move it away")
        else:
            here = found[0]
    return f"{here}/{name}".strip("/")


def _there(root: Root, path: str) -> bool:
    """Whether that very name is taken; a folder is none that we replace."""
    folder, _, name = path.rpartition("/")
    parent = find(root, folder)
    entry = root.names(parent[1]).get(name) if parent else None
    if entry is not None and entry.kind == "folder":
        raise EdgeKitError(f"{root.where}: {path} is a folder", hint="move it away")
    return entry is not None


def _names(listed: bytes) -> dict[str, Entry]:
    """What `ls -p` says: /inode/mode/uid/gid/name/size/ in each line; no name holds a slash."""
    found = {}
    for line in listed.decode(errors="surrogateescape").splitlines():
        fields = line.split("/")
        if len(fields) == 8 and fields[1].isdigit() and fields[5] not in (".", "..", ""):
            mode = int(fields[2], 8)
            size = int(fields[6]) if fields[6].isdigit() else 0
            found[fields[5]] = Entry(KINDS.get(mode >> 12, "other"), size, fields[1])
    return found


def _link(ext: Ext4, entry: Entry) -> str:
    """Where a link leads: a short one stands in its inode, a long one in a block as a file's bytes do."""
    told = re.search(r'^Fast link dest: "(.*)"$', ext.ask(f"stat <{entry.key}>").decode(errors="replace"), re.M)
    return told[1] if told else ext.ask(f"cat <{entry.key}>").decode(errors="replace")


def _word(path: str) -> str:
    if not SAYABLE.fullmatch(path):
        raise EdgeKitError(f"{path!r} cannot be written into an image", hint="mount it, and say file://FOLDER")
    return f'"/{path}"'


def _digest(item: Item) -> bytes:
    if not isinstance(item.source, Path):
        return hashlib.sha256(item.source).digest()
    with item.source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _plain(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line.strip()[:240])


def _unread(ext: Ext4) -> EdgeKitError:
    return EdgeKitError(f"{ext.where} does not read", hint="get the image again")

"""A folder to flash to: the mounted root file system of a device, or an empty one that is carried to it.

Refuses a boot partition, this machine's own root, a folder of other things; follows no link out of the folder."""

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgekit_runtime.errors import EdgeKitError, NotFound

from edgekit.flash.at_rest import Entry, Item, Root, find, is_root
from edgekit.flash.facts import Disk

BOOT = ("config.txt", "cmdline.txt", "bootcode.bin", "start.elf", "extlinux", "EFI", "efi", "boot.scr", "grub")
IGNORED = ("lost+found", "System Volume Information", ".Spotlight-V100", ".fseventsd", ".Trashes", "$RECYCLE.BIN")
"""What systems leave on a stick that is otherwise empty."""
LAST = 3
"""So many items at the end, each a step of its own: a parcel's label, the unit, what enables the unit."""
CARRIED = "edgekit"
"""The folder on a stick."""


def kind_of(folder: Path) -> Literal["root", "stick"]:
    """What it is to us.

    Raises:
        NotFound: it is not there.
        EdgeKitError: it is nothing to flash to; says what would be.
    """
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="mount the card's root partition, and name the folder")
    if os.path.samefile(folder, "/"):
        raise EdgeKitError("that is this machine's own root", hint="here, say edgekit-runtime install")
    if is_root(as_root(folder)):
        return "root"
    names = sorted(path.name for path in folder.iterdir())
    if any(name in BOOT or name.startswith(("vmlinuz", "kernel")) for name in names):
        hint = "mount the other one, that has etc and usr (its file system is ext4), and name its folder"
        raise EdgeKitError(f"{folder} is a boot partition, not the root file system", hint=hint)
    others = [
        name for name in names if name not in (*IGNORED, CARRIED) and not name.startswith((".Trash-", ".edgekit"))
    ]
    if others:
        told = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise EdgeKitError(
            f"{folder} is no root file system, and not empty (it holds {told})",
            hint="name the mounted root partition of a card, or an empty folder, on a stick for example",
        )
    return "stick"


def as_root(folder: Path) -> Root:
    """A mounted root file system; what its links say is meant within it."""
    found = os.statvfs(folder)
    disk = Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
    return Root(str(folder), Entry("folder", 0, str(folder)), _names, lambda entry: os.readlink(entry.key), _read, disk)


def put(folder: Path, items: Sequence[Item]) -> None:
    """Put these there, in this order, owned by root where we are root; each file whole or not at all.

    The last ones say that the others count: each is written when all before it are on the disk.
    """
    for number, item in enumerate(items):
        if number >= len(items) - LAST:
            _sync_all(folder)
        _put(folder, item)
    _sync_all(folder)


def _put(folder: Path, item: Item) -> None:
    place = _ready(folder, item.path)
    if place.is_dir() and not place.is_symlink():
        raise EdgeKitError(f"{place} is a folder", hint="move it away")
    beside = place.with_name(f".{place.name}.new")
    beside.unlink(missing_ok=True)
    if item.link is not None:
        beside.symlink_to(item.link)
    else:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, item.mode)
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(item.source, Path):
                with item.source.open("rb") as source:
                    shutil.copyfileobj(source, file, 2**20)
            else:
                file.write(item.source)
            _mode(descriptor, item.mode)
    beside.replace(place)


def _ready(folder: Path, path: str) -> Path:
    """The true place of what is to be written, its folders made."""
    *parts, name = path.strip("/").split("/")
    here = ""
    for part in parts:
        below = f"{here}/{part}".strip("/")
        found = find(as_root(folder), below)
        if found is None:
            try:
                (folder / below).mkdir()
            except FileExistsError as error:
                raise EdgeKitError(f"{folder / below} is a link that leads nowhere", hint="mend it") from error
            (folder / below).chmod(0o755)
            here = below
        elif found[1].kind != "folder":
            raise EdgeKitError(f"{folder / below} is no folder", hint="move it away")
        else:
            here = found[0]
    return folder / here / name


def _mode(descriptor: int, mode: int) -> None:
    """FAT has no modes: a stick need not."""
    try:
        os.fchmod(descriptor, mode)
    except OSError:
        return


def _names(entry: Entry) -> dict[str, Entry]:
    found = {}
    with os.scandir(entry.key) as entries:
        for one in entries:
            status = one.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                found[one.name] = Entry("link", 0, one.path)
            elif stat.S_ISDIR(status.st_mode):
                found[one.name] = Entry("folder", 0, one.path)
            else:
                kind = stat.S_ISREG(status.st_mode)
                found[one.name] = Entry("file" if kind else "other", status.st_size, one.path)
    return found


def _read(entry: Entry, limit: int) -> bytes:
    descriptor = os.open(entry.key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit)


def _sync_all(folder: Path) -> None:
    """All that was written there is on the disk; thousands of fsyncs take minutes on a card."""
    import ctypes

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            os.sync()
    finally:
        os.close(descriptor)


def carry(folder: Path, items: Sequence[Item]) -> None:
    """A folder CARRIED with these in it, in the place of an earlier one."""
    scratch, place = folder / f".{CARRIED}.new", folder / CARRIED
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    put(scratch, items)
    shutil.rmtree(place, ignore_errors=True)
    scratch.rename(place)
    _sync_all(folder)

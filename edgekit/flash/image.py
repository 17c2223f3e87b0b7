"""An image changed whole or not at all: a copy beside it takes the change and then its place.

Refuses a disk that has no room for the copy, an image that changed meanwhile, and a device file in its stead."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit_runtime.errors import Busy, EdgeKitError, NotFound

from edgekit.bundle import sync
from edgekit.flash.card import Part, read_card, read_ext, told
from edgekit.flash.idle import unused
from edgekit.model import Tell

CLONE = 0x40049409
"""FICLONE: the copy shares its blocks with the original until either is changed."""
PIECE = 4 * 2**20


def find_image(text: str) -> Path:
    """The image that `image:FILE` names.

    Raises:
        NotFound: there is none.
        EdgeKitError: it is a device or a folder.
    """
    path = Path(os.path.realpath(text))
    if not path.exists():
        raise NotFound(f"no image {text}", hint="name a file that you can read")
    if stat.S_ISBLK(path.stat().st_mode):
        hint = "mount its root partition and say file://FOLDER, or write the image first and then the card"
        raise EdgeKitError(f"{text} is a device, not an image", hint=hint)
    if not path.is_file():
        raise EdgeKitError(f"{text} is no image", hint="name an image's file; a folder is file://FOLDER")
    return path


def root_part(path: Path, is_root: Callable[[Part], bool], number: int | None = None) -> Part:
    """The partition that holds the device's root file system, by what is in it; or that of this number.

    Raises:
        EdgeKitError: there is none, or there are several and nobody said which.
    """
    card = read_card(path)
    numbers = ", ".join(f"{part.number} ({part.holds or 'unknown'})" for part in card.parts)
    if number is not None and all(part.number != number for part in card.parts):
        raise NotFound(f"{path.name} has no partition {number}", hint=f"its partitions: {numbers}")
    asked = [part for part in card.parts if number in (None, part.number)]
    found = []
    for part in asked:
        if part.holds == "ext":
            read_ext(path, part)
            found += [part] if is_root(part) else []
    if not found:
        others = [part for part in asked if part.holds and part.holds not in ("ext", "FAT", "swap")]
        if others:
            what = f"{told(others[0])} of {path.name} is {others[0].holds}, which cannot be written without mounting it"
            raise EdgeKitError(what, hint="mount it, and say file://FOLDER")
        raise EdgeKitError(
            f"no partition of {path.name} is a Linux root file system (it has {numbers})",
            hint="name the image of a device's whole card, or of its root partition",
        )
    if len(found) > 1:
        which = " and ".join(str(part.number) for part in found)
        raise EdgeKitError(f"{path.name} has several Linux root file systems: {which}", hint="say which: --partition N")
    return found[0]


@contextmanager
def changing(path: Path, in_place: bool, needed: int, tell: Tell) -> Iterator[Path]:
    """The file to write to: a copy that takes the image's place when the block ends well, or the image itself.

    Whatever ends the block otherwise, a killed process too, leaves the image as it was; but not `in_place`.

    Raises:
        Busy: somebody uses the image.
        EdgeKitError: there is no room for the copy, or the image was changed meanwhile.
    """
    with unused(path):
        if in_place:
            _refuse_read_only(path)
            yield path
            sync(path)
            return
        _sweep(path)
        before = _mark(path)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.flashing")
        try:
            with scratch.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                tell(f"copying {path.name}")
                _copy(path, scratch, needed)
                yield scratch
                tell(f"syncing {path.name}")
                sync(scratch)
                if _mark(path) != before:
                    raise Busy(f"{path.name} was changed meanwhile; it was left alone", hint="run the same again")
                scratch.replace(path)
                sync(path.parent)
        finally:
            scratch.unlink(missing_ok=True)


def _copy(path: Path, scratch: Path, needed: int) -> None:
    """By sharing blocks where the file system can; else what is not a hole."""
    found = path.stat()
    with path.open("rb") as source, scratch.open("r+b") as target:
        try:
            fcntl.ioctl(target, CLONE, source.fileno())
        except OSError:
            _refuse_full(path, found.st_blocks * 512 + needed)
            os.ftruncate(target.fileno(), found.st_size)
            _copy_data(source.fileno(), target.fileno(), (0, found.st_size), 0)
        else:
            _refuse_full(path, needed)
    os.chmod(scratch, stat.S_IMODE(found.st_mode))
    if os.geteuid() == 0:
        os.chown(scratch, found.st_uid, found.st_gid)


def _copy_data(source: int, target: int, span: tuple[int, int], shift: int) -> None:
    """Bytes from `span` on, so many, to places `shift` further on; not what is a hole."""
    end, last = span[0], sum(span)
    while end < last:
        try:
            begin = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        end = min(last, os.lseek(source, begin, os.SEEK_HOLE))
        while begin < end:
            done = os.copy_file_range(source, target, min(PIECE, end - begin), begin, begin + shift)
            if not done:
                raise EdgeKitError("the image became shorter while it was copied", hint="run the same again")
            begin += done


@contextmanager
def extracted(path: Path, part: Part) -> Iterator[Path]:
    """A partition as a file of its own beside the image, until the block ends: e2fsck cannot replay a journal amid
    an image."""
    place = path.with_name(f".{path.name.strip('.')}.{os.getpid()}.part.flashing")
    try:
        with path.open("rb") as source, place.open("xb") as target:
            os.ftruncate(target.fileno(), part.size)
            _copy_data(source.fileno(), target.fileno(), (part.start, part.size), -part.start)
        yield place
    finally:
        place.unlink(missing_ok=True)


def restore(place: Path, path: Path, part: Part) -> None:
    """Put what `extracted` gave, and e2fsck changed, back where it is from."""
    with place.open("rb") as source, path.open("r+b") as target:
        _copy_data(source.fileno(), target.fileno(), (0, part.size), part.start)


def _refuse_full(path: Path, needed: int) -> None:
    found = os.statvfs(path.parent)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise EdgeKitError(
            f"{path.parent} has {free / 1e6:,.0f} MB free; a copy of {path.name} takes {needed / 1e6:,.0f} MB",
            hint="free some, or say --in-place: then an image whose flash is cut short has to be made anew",
        )


def _refuse_read_only(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise EdgeKitError(f"{path.name} may not be written", hint=f"chmod u+w {path}")


def _sweep(path: Path) -> None:
    """Remove copies that killed flashes of this image left; one that is still worked on is locked."""
    for left in path.parent.glob(f".{_escaped(path.name)}.*.flashing"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _mark(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns

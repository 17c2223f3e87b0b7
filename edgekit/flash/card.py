"""A raw disk image: its partitions (MBR, GPT or none), what each of them holds, and how full an ext4 one is.

Refuses a table that is broken, goes in circles, overlaps, or names bytes beyond the image; never writes."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.errors import EdgeKitError

SECTOR = 512
SECTORS = (512, 4096)
"""In which a GPT may count."""
EXTENDED = (0x05, 0x0F, 0x85)
PROTECTIVE = 0xEE
MOST_LOGICAL, MOST_ENTRIES = 128, 1024
EXT, EXT_MAGIC = 1024, 0xEF53
"""Where the superblock of an ext file system begins, and what stands in it."""
RECOVER = 0x4
PACKED = {
    b"\x1f\x8b": "gunzip -k", b"\xfd7zXZ\x00": "xz -dk", b"\x28\xb5\x2f\xfd": "unzstd -k", b"BZh": "bunzip2 -k",
    b"PK\x03\x04": "unzip", b"QFI\xfb": "qemu-img convert -O raw",
}  # fmt: skip
"""What is no raw image, by its first bytes, and what makes one of it."""
KINDS = (
    (0, b"hsqs", "squashfs"), (0, b"XFSB", "xfs"), (0x10040, b"_BHRfS_M", "btrfs"), (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (0, b"LUKS\xba\xbe", "encrypted (LUKS)"), (4086, b"SWAPSPACE2", "swap"), (82, b"FAT32", "FAT"), (54, b"FAT", "FAT"),
    (536, b"LABELONE", "LVM"), (512, b"LABELONE", "LVM"), (3, b"EXFAT", "exFAT"), (3, b"NTFS", "NTFS"),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A partition: its number as the kernel counts, where it begins and how long it is, in bytes; what it holds."""

    number: int
    start: int
    size: int
    holds: str = ""


@dataclass(frozen=True)
class Ext:
    """What the superblock of an ext file system says; sizes in bytes. `unclean`: its journal is to be replayed."""

    size: int
    free: int
    files_left: int
    unclean: bool
    label: str


@dataclass(frozen=True)
class Card:
    """An image: how its table is written ("MBR", "GPT"; "" where a file system is all of it), and its partitions."""

    table: str
    parts: tuple[Part, ...]


def read_card(path: Path) -> Card:
    """The partitions of the image.

    Raises:
        EdgeKitError: it is no raw image, cut short, or its table does not read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = _at(file, 0, SECTOR)
        for magic, program in PACKED.items():
            if head.startswith(magic):
                raise EdgeKitError(f"{path.name} is no raw image", hint=f"unpack it first: {program} {path.name}")
        entries = _primary(head)
        if entries is None:
            whole = Part(0, 0, size)
            if _ext(file, whole) is None:
                raise EdgeKitError(
                    f"{path.name} has no partition table that reads, and is no ext4 file system",
                    hint="name a raw disk image, or an image of an ext4 file system",
                )
            return Card("", (Part(0, 0, size, "ext"),))
        gpt = any(kind == PROTECTIVE for kind, _, _ in entries)
        found = _gpt(file, size) if gpt else _mbr(file, entries)
        _refuse_nonsense(path.name, found, size)
        return Card("GPT" if gpt else "MBR", tuple(_told(file, part) for part in found))


def read_ext(path: Path, part: Part) -> Ext:
    """What the file system of a partition says of itself. Raises `EdgeKitError` where it is none, or is cut short."""
    with path.open("rb") as file:
        found = _ext(file, part)
    if found is None:
        raise EdgeKitError(f"{told(part)} of {path.name} holds no ext4 file system", hint="name another --partition")
    if found.size > part.size:
        raise EdgeKitError(
            f"{told(part)} of {path.name} is cut short: its files take {found.size} bytes, {part.size} are there",
            hint="get the image again",
        )
    return found


def told(part: Part) -> str:
    """A partition in words."""
    return f"partition {part.number}" if part.number else "the whole"


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Bytes, with zeros for what is beyond the end."""
    if offset >= file.seek(0, 2):
        return bytes(size)
    file.seek(offset)
    return file.read(size).ljust(size, b"\0")


def _primary(sector: bytes) -> list[tuple[int, int, int]] | None:
    """(type, first sector, sectors) of the four entries; None where the sector is no partition table."""
    if sector[510:512] != b"\x55\xaa":
        return None
    raw = [struct.unpack_from("<B3xB3xII", sector, 446 + 16 * index) for index in range(4)]
    if any(status not in (0, 0x80) for status, *_ in raw) or not any(kind and count for _, kind, _, count in raw):
        return None
    return [(kind, first, count) for _, kind, first, count in raw]


def _mbr(file: BinaryIO, entries: list[tuple[int, int, int]]) -> list[Part]:
    found = []
    for number, (kind, first, count) in enumerate(entries, start=1):
        if kind in EXTENDED and count:
            found += list(_logical(file, first))
        elif kind and count:
            found.append(Part(number, first * SECTOR, count * SECTOR))
    return found


def _logical(file: BinaryIO, extended: int) -> Iterator[Part]:
    """The partitions in an extended one: each sector names one of them and where the next such sector is."""
    here, seen = extended, set[int]()
    while here not in seen and len(seen) < MOST_LOGICAL:
        seen.add(here)
        entries = _primary(_at(file, here * SECTOR, SECTOR))
        if entries is None:
            raise _broken("an extended partition's table does not read")
        (kind, first, count), (onward, further, _) = entries[:2]
        if kind and count:
            yield Part(4 + len(seen), (here + first) * SECTOR, count * SECTOR)
        if onward not in EXTENDED or not further:
            return
        here = extended + further
    raise _broken("its extended partitions go in circles")


def _gpt(file: BinaryIO, size: int) -> list[Part]:
    """By the first header, or the one at the end where the first is broken."""
    for sector in SECTORS:
        for where in (sector, size - sector):
            if where > 0 and (found := _gpt_at(file, where, sector)) is not None:
                return found
    raise _broken("neither header of its GPT is whole")


def _gpt_at(file: BinaryIO, where: int, sector: int) -> list[Part] | None:
    head = _at(file, where, 92)
    magic, length, checksum = struct.unpack_from("<8s4xII", head)
    entries_at, count, each, entries_sum = struct.unpack_from("<QIII", head, 72)
    if magic != b"EFI PART" or length != 92 or zlib.crc32(head[:16] + b"\0\0\0\0" + head[20:]) != checksum:
        return None
    if not 0 < count <= MOST_ENTRIES or each % 128 or not 0 < each <= 4096:
        return None
    raw = _at(file, entries_at * sector, count * each)
    if zlib.crc32(raw) != entries_sum:
        return None
    found = []
    for index in range(count):
        kind, first, last = struct.unpack_from("<16s16xQQ", raw, index * each)
        if any(kind):
            if last < first:
                raise _broken(f"partition {index + 1} ends before it begins")
            found.append(Part(index + 1, first * sector, (last - first + 1) * sector))
    return found


def _refuse_nonsense(name: str, parts: list[Part], size: int) -> None:
    if not parts:
        raise _broken("it names no partition")
    end, before = 0, None
    for part in sorted(parts, key=lambda one: one.start):
        if part.start + part.size > size:
            raise EdgeKitError(
                f"{name} is cut short: partition {part.number} goes to byte {part.start + part.size}, {size} are there",
                hint="get or unpack the image again",
            )
        if part.start < max(end, SECTOR):
            raise _broken(f"partition {part.number} lies over {told(before) if before else 'the table itself'}")
        end, before = part.start + part.size, part


def _told(file: BinaryIO, part: Part) -> Part:
    if _ext(file, part) is not None:
        return Part(part.number, part.start, part.size, "ext")
    for offset, magic, name in KINDS:
        if _at(file, part.start + offset, len(magic)) == magic:
            return Part(part.number, part.start, part.size, name)
    return part


def _ext(file: BinaryIO, part: Part) -> Ext | None:
    raw = _at(file, part.start + EXT, 1024)
    inodes, blocks, reserved, free, files_left, _, shift = struct.unpack_from("<7I", raw)
    (magic,) = struct.unpack_from("<H", raw, 56)
    if magic != EXT_MAGIC or part.size < 2 * EXT or shift > 6 or not inodes:
        return None
    (incompatible,) = struct.unpack_from("<I", raw, 96)
    if incompatible & 0x80:  # block numbers of 64 bits
        high = struct.unpack_from("<3I", raw, 0x150)
        blocks, reserved, free = (low | top << 32 for low, top in zip((blocks, reserved, free), high, strict=True))
    size = 1024 << shift
    label = raw[120:136].partition(b"\0")[0].decode("ascii", errors="replace")
    return Ext(blocks * size, max(0, free - reserved) * size, files_left, bool(incompatible & RECOVER), label)


def _broken(why: str) -> EdgeKitError:
    return EdgeKitError(f"the image's partition table is broken: {why}", hint="get or unpack the image again")

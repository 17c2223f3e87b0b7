"""Cards: partition tables that are right, wrong and hostile, and the one partition that a device starts from."""

import random
import struct
import zlib
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError, NotFound

from edgekit.flash import card, ext4, image
from edgekit.flash.at_rest import is_root
from edgekit.flash.card import Part, read_card
from tests.flash.cards import EXTENDED, FAT, LINUX, MIB, entry, gpt, make_ext4, make_root, mbr, silent, table


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root file system."""
    folder = tmp_path_factory.mktemp("root")
    return make_ext4(folder / "root.img", make_root(folder / "root"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A file system of data, not a root."""
    return make_ext4(tmp_path_factory.mktemp("data") / "data.img", None, 4)


def root_of(path: Path, number: int | None = None) -> Part:
    """As `edgekit flash` looks for it."""
    programs = ext4.programs(silent)

    def looks(part: Part) -> bool:
        with ext4.opened(path, part, programs) as one:
            return is_root(ext4.as_root(one))

    return image.root_part(path, looks, number)


def test_the_root_is_found_beside_a_boot_partition_and_one_of_data(root, other, tmp_path):
    path = mbr(tmp_path / "card.img", [(FAT, 2), (LINUX, other), (LINUX, root)])
    found = root_of(path)
    assert (found.number, found.start, found.size) == (3, 7 * MIB, 16 * MIB)


@pytest.mark.parametrize("sector", [512, 4096])
def test_the_root_is_found_in_a_gpt(root, other, tmp_path, sector):
    path = gpt(tmp_path / "card.img", [2, other, root], sector)
    assert read_card(path).table == "GPT"
    assert root_of(path).number == 3


def test_an_image_that_is_all_one_file_system_has_no_table(root):
    assert read_card(root).table == ""
    assert root_of(root) == Part(0, 0, 16 * MIB, "ext")


def test_a_gpt_whose_first_header_is_broken_is_read_by_its_copy(root, tmp_path):
    path = gpt(tmp_path / "card.img", [2, root])
    with path.open("r+b") as file:
        file.seek(512 + 80)
        file.write(b"\xff\xff")
    assert root_of(path).number == 2


def test_a_gpt_with_both_headers_broken_is_refused(root, tmp_path):
    path = gpt(tmp_path / "card.img", [2, root])
    for where in (512 + 20, path.stat().st_size - 512 + 20):
        with path.open("r+b") as file:
            file.seek(where)
            file.write(b"\xff")
    with pytest.raises(EdgeKitError, match="neither header"):
        read_card(path)


def test_gpt_entries_that_do_not_match_their_checksum_are_refused(root, tmp_path):
    path = gpt(tmp_path / "card.img", [2, root])
    sectors = path.stat().st_size // 512
    with path.open("r+b") as file:
        for where in (2 * 512 + 40, (sectors - 33) * 512 + 40):
            file.seek(where)
            file.write(b"\xee")
    with pytest.raises(EdgeKitError, match="broken"):
        read_card(path)


def test_two_roots_are_told_and_one_can_be_named(root, tmp_path):
    path = mbr(tmp_path / "card.img", [(FAT, 1), (LINUX, root), (LINUX, root)])
    with pytest.raises(EdgeKitError, match="several Linux root file systems: 2 and 3") as told:
        root_of(path)
    assert "--partition" in told.value.hint
    assert root_of(path, 3).number == 3
    with pytest.raises(NotFound, match="no partition 7"):
        root_of(path, 7)


def test_a_card_of_data_alone_has_no_root(other, tmp_path):
    path = mbr(tmp_path / "card.img", [(FAT, 1), (LINUX, other)])
    with pytest.raises(EdgeKitError, match="is a Linux root"):
        root_of(path)


def test_a_root_in_another_kind_of_file_system_is_named(tmp_path):
    path = mbr(tmp_path / "card.img", [(FAT, 1), (LINUX, 2)])
    with path.open("r+b") as file:
        file.seek(2 * MIB + 0x10040)
        file.write(b"_BHRfS_M")
    with pytest.raises(EdgeKitError, match="is btrfs") as told:
        root_of(path)
    assert "file://" in told.value.hint


def test_logical_partitions_count_from_five(root, tmp_path):
    path, start = tmp_path / "card.img", MIB // 512
    size = (root.stat().st_size + 2 * MIB) // 512
    with path.open("wb") as file:
        file.truncate(start * 512 + size * 512)
        file.write(table([entry(EXTENDED, start, size)]))
        file.seek(start * 512)
        file.write(table([entry(LINUX, 2048, root.stat().st_size // 512)]))
        file.seek((start + 2048) * 512)
        file.write(root.read_bytes())
    assert root_of(path).number == 5


def test_extended_partitions_that_go_in_circles_are_refused(tmp_path):
    path, start = tmp_path / "card.img", MIB // 512
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        file.write(table([entry(EXTENDED, start, 8192)]))
        for here, onward in ((0, 100), (100, 200), (200, 100)):
            file.seek((start + here) * 512)
            file.write(table([entry(LINUX, 8, 8), entry(EXTENDED, onward, 8)]))
    with pytest.raises(EdgeKitError, match="circles"):
        read_card(path)


def test_an_image_that_is_cut_short_is_refused(root, tmp_path):
    path = mbr(tmp_path / "card.img", [(FAT, 1), (LINUX, root)])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)
    with pytest.raises(EdgeKitError, match="cut short"):
        read_card(path)


def test_a_file_system_larger_than_its_partition_is_refused(root, tmp_path):
    path = mbr(tmp_path / "card.img", [(FAT, 1), (LINUX, root)])
    with path.open("r+b") as file:
        file.write(table([entry(FAT, 2048, 2048), entry(LINUX, 4096, 20000)]))
    with pytest.raises(EdgeKitError, match="cut short: its files take"):
        root_of(path)


def test_partitions_that_overlap_are_refused(root, tmp_path):
    path = mbr(tmp_path / "card.img", [(FAT, 4), (LINUX, root)])
    with path.open("r+b") as file:
        file.write(table([entry(FAT, 2048, 20000), entry(LINUX, 10240, 32768)]))
    with pytest.raises(EdgeKitError, match="partition 2 lies over partition 1"):
        read_card(path)


@pytest.mark.parametrize(
    ("first", "program"), [(b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b\x08", "gunzip"), (b"QFI\xfb", "qemu-img")]
)
def test_a_packed_image_is_told_with_what_unpacks_it(tmp_path, first, program):
    (tmp_path / "card.img.xz").write_bytes(first.ljust(2000, b"\1"))
    with pytest.raises(EdgeKitError, match="no raw image") as told:
        read_card(tmp_path / "card.img.xz")
    assert program in told.value.hint


@pytest.mark.parametrize("size", [0, 1, 511, 512, 5000])
def test_what_is_no_image_is_refused(tmp_path, size):
    (tmp_path / "card.img").write_bytes(random.Random(size).randbytes(size))
    with pytest.raises(EdgeKitError, match="no partition table"):
        read_card(tmp_path / "card.img")


@pytest.mark.parametrize("make", ["mbr", "gpt"])
def test_a_table_of_noise_is_read_or_refused_but_never_a_bug(root, tmp_path, make):
    """Every table with some bytes changed at random; for a GPT with checksums made right again."""
    parts = [(FAT, 1), (LINUX, root), (EXTENDED, 2)]
    path = tmp_path / "card.img"
    if make == "mbr":
        mbr(path, parts)
    else:
        gpt(path, [1, root])
    whole, chance = path.read_bytes()[: 40 * 512], random.Random(5)
    for _ in range(400):
        raw = bytearray(whole)
        where = (446, 510) if make == "mbr" else (512 + 40, 1024 + 200)
        for _ in range(chance.randint(1, 6)):
            raw[chance.randrange(*where)] = chance.randrange(256)
        if make == "gpt":
            struct.pack_into("<I", raw, 512 + 88, zlib.crc32(bytes(raw[1024 : 1024 + 128 * 128])))
            struct.pack_into("<I", raw, 512 + 16, 0)
            struct.pack_into("<I", raw, 512 + 16, zlib.crc32(bytes(raw[512 : 512 + 92])))
        with path.open("r+b") as file:
            file.write(raw)
        try:
            found = read_card(path)
        except EdgeKitError:
            continue
        assert all(part.start > 0 and part.start + part.size <= path.stat().st_size for part in found.parts)


def test_a_superblock_of_noise_is_read_or_refused_but_never_a_bug(root, tmp_path):
    path, chance = tmp_path / "root.img", random.Random(6)
    path.write_bytes(root.read_bytes())
    whole = root.read_bytes()[:2048]
    for _ in range(300):
        raw = bytearray(whole)
        raw[chance.randrange(1024, 1024 + 400)] = chance.randrange(256)
        with path.open("r+b") as file:
            file.write(raw)
        try:
            found = card.read_ext(path, read_card(path).parts[0])
        except EdgeKitError:
            continue
        assert found.size <= 16 * MIB

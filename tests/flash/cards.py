"""Makes cards for tests: small real ext4 file systems of a device's root, and MBR and GPT images around them.

Refuses nothing: what is to be wrong with a card, the tests do to it."""

import json
import struct
import subprocess
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.flash import ext4

MIB = 2**20
LINUX, FAT, EXTENDED = 0x83, 0x0C, 0x05
LINUX_TYPE = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
HEAD = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")


def silent(words: str) -> None:
    """Nobody watches."""


def elf(machine: int = 183, bits: int = 64) -> bytes:
    """The head of a program for this machine (183: aarch64, 40: ARM, 62: x86-64)."""
    head = bytearray(HEAD)
    head[4] = bits // 32
    return bytes(head) + struct.pack("<HHI", 2, machine, 1) + bytes(12) + struct.pack("<I", 0x5000400) + bytes(64)


def make_root(folder: Path, machine: int = 183, python: str = "3.11", runtime: str | None = "99.0") -> Path:
    """The files of a device's root: merged usr, a Python, a C library, systemd; and a runtime later than ours, so that
    no wheels need to be fetched (None: no runtime)."""
    libraries = f"usr/lib/{ {183: 'aarch64-linux-gnu', 62: 'x86_64-linux-gnu'}.get(machine, 'arm-linux-gnueabihf') }"
    contents: dict[str, bytes] = {
        f"usr/bin/python{python}": elf(machine),
        "usr/bin/dash": elf(machine),
        f"usr/lib/python{python}/json/__init__.py": b"",
        f"{libraries}/libc.so.6": b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n\0",
        f"{libraries}/libstdc++.so.6": b"",
        f"{libraries}/systemd/libsystemd-shared-252.so": b"",
        "usr/lib/systemd/systemd": elf(machine),
        "usr/bin/systemd-sysusers": elf(machine),
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        "opt/readme": b"",
        "var/lib/readme": b"",
    }
    if runtime is not None:
        facts = {"version": runtime, "engines": ["onnx", "tflite"], "digest": "0" * 64, "pins": {}}
        contents["opt/edgekit/runtimes/one/runtime.json"] = json.dumps(facts).encode()
    for name, raw in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    (folder / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    links = {
        "bin": "usr/bin", "sbin": "/usr/sbin", "lib": "usr/lib", "usr/bin/sh": "/bin/dash",
        "usr/bin/python3": f"python{python}", "usr/sbin": "bin", "usr/bin/init": "/lib/systemd/systemd",
    }  # fmt: skip
    for name, to in links.items():
        (folder / name).symlink_to(to)
    if runtime is not None:
        (folder / "opt/edgekit/current").symlink_to("runtimes/one")
    return folder


def make_ext4(image: Path, root: Path | None, megabytes: int = 16, *more: str) -> Path:
    """An ext4 file system with these files."""
    mke2fs = ext4.programs(silent, names=("mke2fs",))["mke2fs"]
    files = ["-d", str(root)] if root else []
    command = [*mke2fs, "-q", "-F", "-t", "ext4", "-L", "root", *files, *more, str(image), f"{megabytes}M"]
    subprocess.run(command, check=True, capture_output=True)
    return image


def fsck(image: Path, offset: int = 0) -> int:
    """What e2fsck says of it: 0 is clean."""
    call = ext4.programs(silent)["e2fsck"]
    at = f"?offset={offset}" if offset else ""
    return subprocess.run([*call, "-fn", f"{image}{at}"], capture_output=True, check=False).returncode


def entry(kind: int, first: int, count: int) -> bytes:
    """An entry of an MBR, in sectors."""
    return struct.pack("<B3xB3xII", 0, kind, first, count)


def table(entries: Sequence[bytes]) -> bytes:
    """A sector that is a partition table."""
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def mbr(image: Path, parts: Sequence[tuple[int, Path | int]]) -> Path:
    """An image with these partitions: (type, file or megabytes), one after the other from 1 MiB on."""
    entries, at = [], MIB
    with image.open("wb") as file:
        for kind, what in parts:
            raw = what.read_bytes() if isinstance(what, Path) else bytes(what * MIB)
            file.seek(at)
            file.write(raw)
            entries.append(entry(kind, at // 512, len(raw) // 512))
            at += len(raw)
        file.seek(0)
        file.write(table(entries))
    return image


def gpt(image: Path, parts: Sequence[Path | int], sector: int = 512) -> Path:
    """An image with a GPT and its copy at the end."""
    at, rows = MIB, b""
    with image.open("wb") as file:
        for number, what in enumerate(parts):
            raw = what.read_bytes() if isinstance(what, Path) else bytes(what * MIB)
            file.seek(at)
            file.write(raw)
            first, last = at // sector, (at + len(raw)) // sector - 1
            rows += (LINUX_TYPE + uuid.UUID(int=number + 1).bytes_le + struct.pack("<QQ", first, last)).ljust(
                128, b"\0"
            )
            at += len(raw)
        size = at + MIB
        file.truncate(size)
        rows, end = rows.ljust(128 * 128, b"\0"), size // sector - 1
        copied = end - len(rows) // sector
        for here, other, where in ((1, end, 2), (end, 1, copied)):
            file.seek(where * sector)
            file.write(rows)
            file.seek(here * sector)
            file.write(header(here, other, where, rows))
        file.seek(0)
        file.write(table([entry(0xEE, 1, min(end, 2**32 - 1))]))
    return image


def header(here: int, other: int, where: int, rows: bytes) -> bytes:
    """A GPT's header with right checksums."""

    def packed(checksum: int) -> bytes:
        head = struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, checksum, 0)
        head += struct.pack("<QQQQ", here, other, 34, other) + uuid.UUID(int=9).bytes_le
        return head + struct.pack("<QIII", where, len(rows) // 128, 128, zlib.crc32(rows))

    return packed(zlib.crc32(packed(0)))


def told(files: Mapping[str, bytes], folder: Path) -> Path:
    """A folder with these files."""
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder

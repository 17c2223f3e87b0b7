"""The root file system of a device that does not run: what is in it, seen as the device would, and what it tells.

Refuses links that go in circles; no link ever leads out of it. Writes nothing."""

import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgekit_runtime.errors import EdgeKitError

from edgekit.flash.facts import TOOLS, Disk, Facts, Homes

Kind = Literal["file", "folder", "link", "other"]
MOST_LINKS = 40
LIBRARY = 64 * 2**20
"""Bytes of a program or a library, at most."""
MACHINES = {183: "aarch64", 40: "armv7l", 62: "x86_64", 243: "riscv64", 3: "i686"}
"""By an ELF file's e_machine."""
HARD_FLOAT = 0x400
PROGRAMS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin")


@dataclass(frozen=True)
class Entry:
    """A name in a folder: what stands there, its size, and what its own file system calls it."""

    kind: Kind
    size: int
    key: str


@dataclass(frozen=True)
class Root:
    """A root file system. `names` are those in a folder; `link` is where a link leads; `read` gives so many bytes."""

    where: str
    top: Entry
    names: Callable[[Entry], Mapping[str, Entry]]
    link: Callable[[Entry], str]
    read: Callable[[Entry, int], bytes]
    disk: Disk


@dataclass(frozen=True)
class Item:
    """What is put at `path`, below the root: bytes, a file's content, or a link to `link`."""

    path: str
    source: bytes | Path = b""
    mode: int = 0o644
    link: str | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.source.stat().st_size if isinstance(self.source, Path) else len(self.source)


def find(root: Root, path: str) -> tuple[str, Entry] | None:
    """What is at `path`, links followed as the device would follow them, with its true path; None: nothing.

    Raises:
        EdgeKitError: its links go in circles.
    """
    waiting = path.strip("/").split("/") if path.strip("/") else []
    trail: list[tuple[str, Entry]] = [("", root.top)]
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            trail = trail[:-1] or trail
            continue
        entry = root.names(trail[-1][1]).get(part) if trail[-1][1].kind == "folder" else None
        if entry is None:
            return None
        if entry.kind != "link":
            trail.append((part, entry))
            continue
        links += 1
        if links > MOST_LINKS:
            raise EdgeKitError(f"{root.where}: the links of {path} go in circles", hint="mend its file system")
        to = root.link(entry)
        trail = trail[:1] if to.startswith("/") else trail
        waiting = [*to.split("/"), *waiting]
    return "/".join(name for name, _ in trail[1:]), trail[-1][1]


def content(root: Root, path: str, limit: int = 2**20) -> bytes | None:
    """A file's bytes; None where there is no file, or it is larger than `limit`."""
    found = find(root, path)
    if found is None or found[1].kind != "file" or found[1].size > limit:
        return None
    return root.read(found[1], limit)


def is_root(root: Root) -> bool:
    """Whether a device could start from it: it has etc/, usr/ and a first program."""
    folders = [find(root, name) for name in ("etc", "usr")]
    starts = any(find(root, name) for name in ("sbin/init", "usr/lib/systemd/systemd", "etc/inittab", "bin/sh"))
    return all(found and found[1].kind == "folder" for found in folders) and starts


def facts_of(root: Root, homes: Homes | None = None) -> Facts:
    """What it tells, in the shape in which a running device tells it; memory and CPU features nobody knows."""
    homes = homes or Homes()
    arch, bits = _program(root)
    python = _python(root)
    runtime = _json(content(root, f"{homes.prefix}/current/runtime.json"))
    starts = runtime.get("version") if runtime else None
    target = (content(root, f"{homes.device}/target", 200) or b"").decode(errors="replace").strip()
    tools = frozenset(tool for tool in TOOLS if any(find(root, f"{place}/{tool}") for place in PROGRAMS))
    return Facts(
        user="root",
        homes=homes,
        root=(),
        arch=arch,
        python=python,
        bits=bits,
        numpy=find(root, "usr/lib/python3/dist-packages/numpy/__init__.py") is not None,
        libstdcxx=any(find(root, f"{place}/libstdc++.so.6") for place in _libraries(root)),
        glibc=_glibc(root),
        now=0,
        memory=(0, 0),
        isa=(),
        disks=(root.disk, root.disk),
        systemd=_systemd(root),
        tools=tools,
        account=b"\nedgekit:" in b"\n" + (content(root, "etc/passwd") or b""),
        runtime=runtime,
        starts=str(starts)[:40] if starts else None,
        trust=content(root, f"{homes.device}/trust.json", 2 * 10**6),
        target=target[:100] or None,
        key=content(root, f"{homes.device}/device.pub", 10_000),
        words=_words(content(root, f"{homes.prefix}/serve.json")),
        status=None,
    )


def _program(root: Root) -> tuple[str, int]:
    """The architecture and bits of the device's programs; "" where none of them reads."""
    for path in ("usr/bin/python3", "bin/sh", "sbin/init"):
        found = find(root, path)
        small = found is not None and found[1].kind == "file" and found[1].size <= LIBRARY
        raw = root.read(found[1], 52) if found is not None and small else b""
        if len(raw) >= 52 and raw[:4] == b"\x7fELF" and raw[5] == 1:
            (machine,), (flags,) = struct.unpack_from("<H", raw, 18), struct.unpack_from("<I", raw, 36)
            arch = MACHINES.get(machine, f"machine {machine}")
            soft = machine == 40 and not flags & HARD_FLOAT
            return ("armv6 or soft-float ARM" if soft else arch), 64 if raw[4] == 2 else 32
    return "", 64


def _python(root: Root) -> tuple[int, int, int] | None:
    """The device's python3, by what its link leads to, if its library is there as well; the last number is unknown."""
    found = find(root, "usr/bin/python3")
    version = re.fullmatch(r".*python3\.(\d{1,3})", found[0]) if found else None
    if version is None or find(root, f"usr/lib/python3.{version[1]}/json/__init__.py") is None:
        return None
    return 3, int(version[1]), 0


def _libraries(root: Root) -> list[str]:
    """The folders that hold the device's libraries."""
    places = []
    for folder in ("usr/lib", "lib", "usr/lib64", "lib64"):
        found = find(root, folder)
        if found is not None and found[1].kind == "folder":
            inside = (name for name in root.names(found[1]) if name.endswith(("-linux-gnu", "-linux-gnueabihf")))
            places += [folder, *(f"{folder}/{name}" for name in inside)]
    return places


def _glibc(root: Root) -> tuple[int, int] | None:
    for place in _libraries(root):
        raw = content(root, f"{place}/libc.so.6", LIBRARY) or b""
        if version := re.search(rb"release version (\d{1,4})\.(\d{1,4})", raw):
            return int(version[1]), int(version[2])
    return None


def _systemd(root: Root) -> int | None:
    """The version of systemd, by the name of its own library; 0 where that does not tell, None where there is none."""
    if find(root, "usr/lib/systemd/systemd") is None and find(root, "lib/systemd/systemd") is None:
        return None
    for place in _libraries(root):
        found = find(root, f"{place}/systemd")
        for name in root.names(found[1]) if found is not None and found[1].kind == "folder" else ():
            if version := re.match(r"libsystemd-(?:shared|core)-(\d{1,5})", name):
                return int(version[1])
    return 0


def _words(raw: bytes | None) -> tuple[str, ...]:
    """What the server was last started with."""
    try:
        value = json.loads(raw or b"[]")
    except (ValueError, RecursionError):
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _json(raw: bytes | None) -> Mapping[str, Any] | None:
    try:
        value = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

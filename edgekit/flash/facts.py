"""What a device says of itself before anything is changed there: one shell script, and what its answer means.

Refuses nothing: what a device does not tell is None, and `checks` judges. Needs no Python on the device."""

import json
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.detect import detect

from edgekit.flash.line import Line

TOOLS = ("systemd-sysusers", "useradd", "adduser", "nohup", "setsid", "journalctl")
OWN = "$HOME/.local/share/edgekit"
"""Where all of it lies for a user without root."""
PYTHON = (
    "import ctypes,json,os,struct,sys,zipfile,hashlib;from importlib.util import find_spec;from pathlib import Path;"
    "shut=['',*(str(p) for p in Path(os.__file__).resolve().parents if not p.stat().st_mode&1)];"
    "print(json.dumps([list(sys.version_info[:3]),struct.calcsize('P')*8,bool(find_spec('numpy')),shut[-1]]));"
    "ctypes.CDLL('libstdc++.so.6'); print('c++')"
)
SCRIPT = """LC_ALL=C; export LC_ALL
prefix={prefix}
device={device}
say() {{ printf '\\n@@%s\\n' "$1"; }}
near() {{ n=$1; while [ ! -d "$n" ]; do n=$(dirname "$n"); done; df -Pk "$n" | tail -n 1; }}
root=
if [ "$(id -u)" != 0 ] && [ {own} = no ]; then
  if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then root="sudo -n"; say root; echo sudo; fi
else say root; echo yes; fi
say who; id -u; id -un
say home; echo "$HOME"
say arch; uname -m
say python; $root python3 -I -c {python} 2>/dev/null
say libc; getconf GNU_LIBC_VERSION 2>/dev/null
say now; date +%s
say memory; head -n 40 /proc/meminfo
say cpu; grep -E '^(flags|Features)' /proc/cpuinfo | sort -u | head -n 8 | sed G
say disk; near "$prefix"; near "$device"
say systemd; [ -d /run/systemd/system ] && systemctl --version | head -n 1
say tools; for t in {tools}; do command -v $t >/dev/null 2>&1 && echo $t; done
say user; id -u edgekit 2>/dev/null
say current; readlink "$prefix/current"
say runtime; head -c 100000 "$prefix/current/runtime.json" 2>/dev/null
say starts; "$prefix/current/bin/python" -P -m edgekit_runtime --version 2>/dev/null
say trust; $root head -c 2000000 "$device/trust.json" 2>/dev/null
say target; $root head -c 200 "$device/target" 2>/dev/null
say key; $root head -c 10000 "$device/device.pub" 2>/dev/null
say words; head -c 10000 "$prefix/serve.json" 2>/dev/null
say status; [ -x "$prefix/current/bin/python" ] && \\
  $root "$prefix/current/bin/edgekit-runtime" status --device "$device" --json 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class Homes:
    """Where things lie on the device: runtimes, and the store with its state; `own`: a user's, without root.

    Folders that are not `usual` are somebody's choice: no account is made for them, and no systemd looks after them.
    """

    prefix: str = "/opt/edgekit"
    device: str = "/var/lib/edgekit"
    own: bool = False
    usual: bool = True


@dataclass(frozen=True)
class Disk:
    """Bytes of the disk that a folder is on, or would be, and where that is mounted."""

    total: int
    free: int
    place: str = ""


@dataclass(frozen=True)
class Facts:
    """What the device told. `root`: what to put before a command for it to be root's; None where nothing does that.

    `python` is its version, `bits` those of its programs, `shut` a folder that keeps other users from it; `libstdcxx`
    whether there is a C++ library for wheels. `runtime` is the record of the runtime there, `starts` the version that
    it says it is when it is run. `trust`, `target`, `key` and `status` are as the device folder has them; `words` those
    that the server was last started with.
    """

    user: str
    homes: Homes
    root: tuple[str, ...] | None
    arch: str
    python: tuple[int, int, int] | None
    bits: int
    numpy: bool
    libstdcxx: bool
    glibc: tuple[int, int] | None
    now: int
    memory: tuple[int, int]
    isa: tuple[str, ...]
    disks: tuple[Disk | None, Disk | None]
    systemd: int | None
    tools: frozenset[str]
    account: bool
    runtime: Mapping[str, Any] | None
    starts: str | None
    trust: bytes | None
    target: str | None
    key: bytes | None
    words: tuple[str, ...]
    status: Mapping[str, Any] | None
    shut: str = ""


def asked(line: Line, homes: Homes) -> Facts:
    """Ask the device."""
    return parse(line.run(script(homes), seconds=300).out, homes)


def script(homes: Homes) -> str:
    """What is run there."""
    return SCRIPT.format(
        prefix=f'"{OWN}"' if homes.own and not homes.prefix else shlex.quote(homes.prefix),
        device=f'"{OWN}/device"' if homes.own and not homes.device else shlex.quote(homes.device),
        own="yes" if homes.own else "no",
        python=shlex.quote(PYTHON),
        tools=" ".join(TOOLS),
    )


def parse(out: bytes, homes: Homes) -> Facts:
    """What the answer says. A device may answer anything: what does not read is not known."""
    said = _sections(out.decode(errors="replace"))
    uid, name = [*said.get("who", "").split(), "", ""][:2]
    root = {"yes": (), "sudo": ("sudo", "-n", "--")}.get(said.get("root", ""))
    python, _, more = said.get("python", "").partition("\n")
    arch = said.get("arch", "")[:40]
    told = _json(python, list) or []
    version, bits, numpy = _python(told[:3])
    arch = "armv7l" if bits == 32 and arch == "aarch64" else arch
    disks = [_disk(line) for line in [*said.get("disk", "").splitlines(), "", ""][:2]]
    systemd = re.match(r"systemd (\d{1,5})", said.get("systemd", ""))
    return Facts(
        user=name or uid or "?",
        homes=_absolute(homes, said.get("home", "")),
        root=root,
        arch=arch,
        python=version,
        bits=bits,
        numpy=numpy,
        libstdcxx="c++" in more,
        glibc=_pair(said.get("libc", "")),
        now=int(said["now"]) if re.fullmatch(r"\d{1,15}", said.get("now", "")) else 0,
        memory=_memory(said.get("memory", "")),
        isa=_isa(said.get("cpu", ""), arch),
        disks=(disks[0], disks[1]),
        systemd=int(systemd[1]) if systemd else None,
        tools=frozenset(said.get("tools", "").split()),
        account=said.get("user", "").isdigit(),
        runtime=_json(said.get("runtime"), dict),
        starts=said.get("starts", "").removeprefix("edgekit-runtime ").strip()[:40] or None,
        trust=said["trust"].encode() if said.get("trust") else None,
        target=said.get("target", "")[:100] or None,
        key=said["key"].encode() + b"\n" if said.get("key") else None,
        words=tuple(map(str, _json(said.get("words"), list) or ())),
        status=_json(said.get("status"), dict),
        shut="".join(letter for letter in str(told[3])[:200] if letter.isprintable()) if len(told) > 3 else "",
    )


def _sections(text: str) -> dict[str, str]:
    found = re.split(r"(?m)^@@([a-z]+)$", text)
    return {name: body.strip() for name, body in zip(found[1::2], found[2::2], strict=True)}


def _json(text: str | None, kind: type) -> Any:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def _python(said: Any) -> tuple[tuple[int, int, int] | None, int, bool]:
    match said:
        case [[int(a), int(b), int(c)], int(bits), bool(numpy)]:
            return (a, b, c), bits, numpy
    return None, 64, False


def _absolute(homes: Homes, home: str) -> Homes:
    if not homes.own:
        return homes
    own = OWN.replace("$HOME", home)
    return replace(homes, prefix=homes.prefix or own, device=homes.device or f"{own}/device")


def _pair(text: str) -> tuple[int, int] | None:
    found = re.search(r"glibc (\d{1,4})\.(\d{1,4})", text)
    return (int(found[1]), int(found[2])) if found else None


def _disk(line: str) -> Disk | None:
    """A line of `df -Pk`; the name in front may hold anything."""
    found = re.search(r"\s(\d{1,18})\s+\d+\s+(-?\d{1,18})\s+\S+%?\s+(/.*)", line)
    return Disk(int(found[1]) * 1024, int(found[2]) * 1024, found[3]) if found else None


def _memory(text: str) -> tuple[int, int]:
    """Bytes: all, and what can be had; 0 where that is not told."""
    found = {key: int(value) * 1024 for key, value in re.findall(r"(?m)^(\w+):\s+(\d{1,15}) kB", text)}
    return found.get("MemTotal", 0), found.get("MemAvailable", found.get("MemFree", 0))


def _isa(text: str, arch: str) -> tuple[str, ...]:
    """The features as `detect` would find them there."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cpuinfo").write_text(text + "\n", encoding="utf-8")
        return tuple(detect(Path(folder), machine=arch)["isa"])

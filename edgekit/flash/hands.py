"""What is done on the device by its own Python while no runtime is there yet: take files in, make them a runtime.

Refuses bytes with another digest than was told, a wheel that leads out of its folder, a runtime that does not start.

This file is sent over as text: it uses the standard library alone, of Python 3.11."""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUSY, WRONG = 75, 76
SILENCE = 60.0
"""Seconds without a byte, after which who sends is taken for gone."""
MOST = 2**31
"""Bytes of an unpacked wheel."""
WHEELS = "wheels.json"
COMPILED = ("edgekit_runtime", "numpy")
"""What is compiled while it can be: the service may not write beside its own code."""
LAUNCHER = """#!/bin/sh
exec '{current}/bin/python' -P -m edgekit_runtime "$@"
"""


class Refused(Exception):
    """What was wrong, for who sent us."""


def have(prefix: Path) -> dict[str, int]:
    """Of each wheel that is here, in the current runtime or taken in, whole or not: its digest and how many bytes."""
    folder = prefix / "incoming"
    found = {digest: one["size"] for digest, one in _unpacked(prefix / "current").items()}
    return found | ({path.name: path.stat().st_size for path in folder.iterdir()} if folder.is_dir() else {})


def _unpacked(runtime: Path) -> dict[str, Any]:
    """The wheels that a runtime was made of: by digest their size, and their files with digests of these."""
    try:
        said = json.loads((runtime / WHEELS).read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def receive(prefix: Path) -> int:
    """Files from standard input: a line of JSON ([[digest, size, offset], ...]), then their bytes from there on."""
    wanted = json.loads(_line())
    _folder(prefix / "incoming", 0o700)
    with _alone(prefix):
        for digest, size, offset in wanted:
            _take(prefix / "incoming" / _digest(digest), size, offset)
    return len(wanted)


def _take(path: Path, size: int, offset: int) -> None:
    with path.open("ab") as file:
        if file.tell() != offset:
            raise Refused(f"{path.name[:12]} has {file.tell()} bytes here, not {offset}: another flash is at work")
        left = size - offset
        while left:
            piece = _piece(min(left, 65536))
            if not piece:
                raise Refused("the sender ended too early")
            file.write(piece)
            left -= len(piece)


def unpack(prefix: Path) -> dict[str, Any]:
    """Make the runtime that standard input describes out of the wheels that are here, and make it the current one."""
    wish = json.loads(_line())
    with _alone(prefix):
        name = _digest(wish["digest"])[:16]
        runtimes = _folder(prefix / "runtimes", 0o755)
        scratch, place = runtimes / f".{name}", runtimes / name
        shutil.rmtree(scratch, ignore_errors=True)
        if not _starts(place):
            _make(scratch, prefix, wish)
            os.sync()  # thousands of small files: one sync of all takes a second, one for each takes minutes on a card
            shutil.rmtree(place, ignore_errors=True)  # not before: the files of one that does not start may be whole
            scratch.rename(place)
        _sync(runtimes)
        _swap(prefix, name)
        if wish.get("link"):
            _link(Path(wish["link"]), prefix / "current" / "bin" / "edgekit-runtime")
        _tidy(prefix)
    return {"runtime": name}


def _make(folder: Path, prefix: Path, wish: dict[str, Any]) -> None:
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    made = {}
    before = _unpacked(prefix / "current")
    for wheel in wish["wheels"]:
        digest = _digest(wheel["sha256"])
        files = _linked(prefix / "current" / site.relative_to(folder), site, before.get(digest))
        made[digest] = {"size": wheel["size"], "files": files or _fresh(prefix, site, wheel)}
    (folder / WHEELS).write_text(json.dumps(made))
    _python(folder, bool(wish["system_site"]))
    launcher = folder / "bin" / "edgekit-runtime"
    quoted = str(prefix / "current").replace("'", "'\\''")
    launcher.write_text(LAUNCHER.format(current=quoted))
    launcher.chmod(0o755)
    (folder / "runtime.json").write_text(json.dumps(wish["facts"], indent=1))
    if not _starts(folder):
        raise Refused(f"the runtime does not start with {Path(sys.executable).resolve()}: {_said(folder)}")
    there = [str(site / name) for name in COMPILED if (site / name).is_dir()]
    subprocess.run([sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", *there], capture_output=True)


def _python(folder: Path, also_the_systems: bool) -> None:
    """What makes the folder a virtual environment of the Python that runs this."""
    python = Path(sys.executable).resolve()
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(python)
    version = ".".join(map(str, sys.version_info[:3]))
    also = str(also_the_systems).lower()
    lines = (f"home = {python.parent}", f"include-system-site-packages = {also}", f"version = {version}")
    (folder / "pyvenv.cfg").write_text("\n".join(lines) + "\n")


def _linked(source: Path, site: Path, wheel: Any) -> dict[str, str] | None:
    """The files of a wheel as the current runtime has them, each compared first; None where it has not all of them."""
    files = wheel.get("files") if isinstance(wheel, dict) else None
    if not isinstance(files, dict):
        return None
    try:
        for name, digest in files.items():
            with (source / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None
        for name in files:
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(source / name, site / name)
    except OSError:
        return None
    return files


def _fresh(prefix: Path, site: Path, wheel: dict[str, Any]) -> dict[str, str]:
    """The files of a wheel that was taken in."""
    path = prefix / "incoming" / wheel["sha256"]
    if not path.is_file():  # the current runtime was said to have it, and what it has is spoilt
        (prefix / "current" / WHEELS).unlink(missing_ok=True)
        raise Refused(f"{wheel['name']} is not whole there: run the same again")
    with path.open("rb") as file:
        right = hashlib.file_digest(file, "sha256").hexdigest() == wheel["sha256"]
    if not right:
        path.unlink()
        raise Refused(f"{wheel['name']} did not arrive as it was sent: run the same again")
    return _unzip(path, site, wheel["name"])


def _unzip(path: Path, site: Path, name: str) -> dict[str, str]:
    """The files of a wheel that Python imports; a wheel's scripts and headers are for nobody here."""
    made = {}
    with zipfile.ZipFile(path) as wheel:
        members = [member for member in wheel.infolist() if not member.is_dir()]
        if sum(member.file_size for member in members) > MOST:
            raise Refused(f"{name} unpacks to more than {MOST} bytes")
        for member in members:
            parts = member.filename.split("/")
            if parts[0].endswith(".data"):
                if len(parts) < 3 or parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            if any(part in ("", ".", "..") for part in parts) or "\\" in member.filename:
                raise Refused(f"{name} holds {member.filename!r}, which leads out of it")
            to = site.joinpath(*parts)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.unlink(
                missing_ok=True
            )  # two wheels with one file: the link to the runtime before must not be written to
            with wheel.open(member) as source, to.open("wb") as file:
                shutil.copyfileobj(source, file, 2**20)
            with to.open("rb") as file:
                made["/".join(parts)] = hashlib.file_digest(file, "sha256").hexdigest()
    return made


def _starts(folder: Path) -> bool:
    return _asked(folder) is not None


def _asked(folder: Path) -> str | None:
    """The version that the runtime in `folder` says it is, numpy imported; None where it does not start."""
    code = "import numpy, edgekit_runtime, sys; sys.stdout.write(edgekit_runtime.__version__)"
    try:
        done = subprocess.run([folder / "bin" / "python", "-P", "-B", "-c", code], capture_output=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode() if done.returncode == 0 else None


def _said(folder: Path) -> str:
    code = "import numpy, edgekit_runtime"
    done = subprocess.run([folder / "bin" / "python", "-P", "-B", "-c", code], capture_output=True, timeout=300)
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
    return next((line for line in reversed(lines) if line.strip() and not line.startswith(" ")), lines[-1])[:300]


def _swap(prefix: Path, name: str) -> None:
    """Make `name` the current runtime in one step; the one before stays, to go back to."""
    current = prefix / "current"
    wanted = f"runtimes/{name}"
    before = os.readlink(current) if current.is_symlink() else None
    if before == wanted:
        return
    if before is not None:
        _link(prefix / "previous", Path(before))
    _link(current, Path(wanted))


def _link(path: Path, to: Path) -> None:
    if path.is_symlink() and os.readlink(path) == str(to):
        return
    if path.exists() and not path.is_symlink():
        raise Refused(f"{path} is there and is not ours: move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(to)
    os.replace(beside, path)
    _sync(path.parent)


def _tidy(prefix: Path) -> None:
    """Remove runtimes that are neither current nor previous, and what was taken in and is not needed."""
    kept = {Path(os.readlink(link)).name for one in ("current", "previous") if (link := prefix / one).is_symlink()}
    for path in (prefix / "runtimes").iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(prefix / "incoming", ignore_errors=True)


def stage(device: Path) -> str:
    """Small files from standard input (a line of JSON: a folder, and name -> size; then their bytes) into that folder
    of the device's `store/incoming`, as the user that owns the device folder: its links could lead root elsewhere."""
    _become_owner(device)
    name, wanted = json.loads(_line())
    folder = device / "store" / "incoming" / _plain(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, size in wanted.items():
        data = bytearray()
        while len(data) < size:
            if not (piece := _piece(min(size - len(data), 65536))):
                raise Refused("the sender ended too early")
            data += piece
        (folder / _plain(file)).write_bytes(data)
    return str(folder)


def _become_owner(folder: Path) -> None:
    found = folder.stat()
    if os.geteuid() == 0 and found.st_uid != 0:
        os.setgroups([found.st_gid])
        os.setresgid(found.st_gid, found.st_gid, found.st_gid)
        os.setresuid(found.st_uid, found.st_uid, found.st_uid)


def _plain(word: Any) -> str:
    if not isinstance(word, str) or "/" in word or word in ("", ".", ".."):
        raise Refused(f"{word!r} leads elsewhere")
    return word


def _piece(most: int) -> bytes:
    """Some bytes of standard input; none at its end, or where the sender fell silent."""
    ready, _, _ = select.select([0], [], [], SILENCE)
    if not ready:
        raise Refused(f"nothing came for {SILENCE:.0f} s")
    return os.read(0, most)


def _line() -> bytes:
    """A line of standard input, and not a byte more."""
    line = bytearray()
    while (letter := _piece(1)) not in (b"\n", b""):
        line += letter
    return bytes(line)


def _digest(word: Any) -> str:
    if not isinstance(word, str) or len(word) != 64 or set(word) - set("0123456789abcdef"):
        raise Refused(f"{word!r} is no digest")
    return word


@contextlib.contextmanager
def _alone(prefix: Path) -> Iterator[None]:
    """The only one that changes the runtimes. The lock dies with its process."""
    with (_folder(prefix, 0o755) / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{prefix}: another flash is installing the runtime") from None
        yield


def _folder(path: Path, mode: int) -> Path:
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)
    return path


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(words: list[str]) -> int:
    """Do what the first word says to the folder that the second names; one line of JSON tells what came of it."""
    os.umask(0o022)
    verbs = {"have": have, "receive": receive, "unpack": unpack, "stage": stage}
    try:
        done = verbs[words[0]](Path(words[1]))
    except BlockingIOError as error:
        sys.stderr.write(f"{error}\n")
        return BUSY
    except (Refused, OSError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"{error}\n")
        return WRONG
    sys.stdout.write(json.dumps(done) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

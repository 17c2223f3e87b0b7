"""What a device does, by its own Python, with what was brought to it without a network: runtime, service, bundle.

Refuses what is for another architecture or Python; what runs there runs on until the new has proven itself.

This file lies beside what it installs: it uses the standard library alone, of Python 3.11, and `hands.py`."""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SERVICE = "edgekit.service"
UNITS = Path("/etc/systemd/system")
WORDS = "serve.json"
"""Of `edgekit-runtime serve`, in the folder of the runtimes."""
FAILURES, STARTS = 3, 10
"""So often what was brought is tried: until it failed so often, or was begun so often and never ended."""


class Refused(Exception):
    """Why not, for whoever reads the journal."""


def say(words: str) -> None:
    """A line of the story."""
    sys.stdout.write(f"edgekit: {words}\n")
    sys.stdout.flush()


def arrive(here: Path) -> str:
    """Install what lies in `here`; what came of it."""
    parcel = json.loads((here / "parcel.json").read_text())
    prefix, device = Path(parcel["prefix"]), Path(parcel["device"])
    told = f"{parcel['name']} {parcel['version']}"
    wish = _wish(parcel)
    say(f"installing {told} for {parcel['target']}")
    with _alone(prefix):
        changed = _runtime(here, prefix, wish)
        _account()
        _folder(device, parcel["target"])
        trust = [str(here / name) for name in parcel["trust"]]
        python = prefix / "current" / "bin" / "python"
        runtime = [str(python), "-P", "-m", "edgekit_runtime"]
        if trust:
            _ask([*runtime, "trust", *trust, "--device", str(device), "--json"])
        started = _service(runtime, prefix, device, changed, parcel["serve"])
        leave = ["--downgrade", str(here / parcel["leave"])] if parcel["leave"] else []
        with _readable(here, prefix) as bundle:
            words = [*runtime, "install", str(bundle), "--device", str(device), "--json"]
            done = _ask([*words, *parcel["install"], *leave])
        if started is False:  # it may have had nothing to serve
            started = _systemctl("start", SERVICE)
    if started is False:
        raise Refused(f"{told} is installed, and the service does not start: journalctl -u {SERVICE}")
    return f"{told}: {done.get('outcome', 'installed')}{'' if started else '; there is no systemd to start it'}"


def _wish(parcel: dict[str, Any]) -> dict[str, Any] | None:
    """What the runtime for this device is to be made of; None where the one that is here does."""
    arch = {("aarch64", 4): "armv7l"}.get((platform.machine(), struct.calcsize("P")), platform.machine())
    if arch != parcel["arch"]:
        raise Refused(f"this is for {parcel['arch']}; this device is {arch}")
    if parcel["runtimes"] is None:
        return None
    python = ".".join(map(str, sys.version_info[:2]))
    if python not in parcel["runtimes"]:
        known = ", ".join(parcel["runtimes"])
        raise Refused(f"this device has Python {python}; what was brought is for {known}: flash with --python {python}")
    found: dict[str, Any] = parcel["runtimes"][python]
    return found


def _runtime(here: Path, prefix: Path, wish: dict[str, Any] | None) -> bool:
    """Make the runtime, unless it is the one here already or that is a later one; whether it changed."""
    current = _record(prefix)
    if wish is None or current.get("digest") == wish["digest"]:
        return False
    engines = wish["facts"]["engines"]
    if _number(current.get("version")) > _number(wish["facts"]["version"]) and _has(current, engines):
        say(f"the runtime here is a later one: {current['version']}")
        return False
    incoming = prefix / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    for wheel in wish["wheels"]:
        to = incoming / wheel["sha256"]
        to.unlink(missing_ok=True)
        try:
            os.link(here / "wheels" / wheel["sha256"], to)
        except OSError:
            shutil.copyfile(here / "wheels" / wheel["sha256"], to)
    say(f"unpacking the runtime {wish['facts']['version']} ({', '.join(engines)})")
    words = [sys.executable, "-I", str(here / "hands.py"), "unpack", str(prefix)]
    done = subprocess.run(words, input=json.dumps(wish).encode() + b"\n", capture_output=True)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Refused((lines or ["the runtime could not be unpacked"])[-1][:300])
    return True


def _record(prefix: Path) -> dict[str, Any]:
    try:
        found = json.loads((prefix / "current" / "runtime.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has(current: dict[str, Any], engines: list[str]) -> bool:
    there = current.get("engines")
    return isinstance(there, list) and all(engine in there for engine in engines)


def _number(version: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version or "").split(".") if part.isdigit())


def _account() -> None:
    """The user that the service runs as."""
    if _user() is not None:
        return
    say("making the user edgekit")
    line = b'u edgekit - "EdgeKit runtime" /var/lib/edgekit /usr/sbin/nologin\n'
    home = ["--home-dir", "/var/lib/edgekit", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    for command in (
        ["systemd-sysusers", "-"],
        ["useradd", "--system", "--user-group", *home, "edgekit"],
        ["adduser", "-S", "-D", "-H", "-h", "/var/lib/edgekit", "edgekit"],
    ):
        with contextlib.suppress(OSError):
            subprocess.run(command, input=line, capture_output=True)
        if _user() is not None:
            return
    raise Refused("the user edgekit could not be made")


def _user() -> tuple[int, int] | None:
    import pwd

    try:
        found = pwd.getpwnam("edgekit")
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid


def _folder(device: Path, target: str) -> None:
    """The device's folder, its own user's; what the device is, where it was not told before."""
    device.mkdir(parents=True, exist_ok=True)
    found = device.stat()
    owner = (found.st_uid, found.st_gid)
    if found.st_uid == 0 and (owner := _user() or owner) != (0, 0):
        for path in (device, *device.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)
        device.chmod(0o750)
    if not (device / "target").exists():
        _write(device / "target", target + "\n")
        os.chown(device / "target", *owner)


def _service(runtime: list[str], prefix: Path, device: Path, changed: bool, serve: list[str] | None) -> bool | None:
    """Have the service run, with the runtime that is current; whether it does, None where there is no systemd. `serve`:
    the words to serve with, from now on."""
    systemd = Path("/run/systemd/system").is_dir()
    renewed = systemd and _unit(runtime, device, _words(prefix) if serve is None else serve)
    if serve is not None:
        _write(prefix / WORDS, json.dumps(serve))
    if not systemd:
        return None
    _systemctl("enable", "--quiet", SERVICE)
    active = _systemctl("is-active", "--quiet", SERVICE)
    if not active or not (changed or renewed):
        return active or _systemctl("start", SERVICE)
    if _systemctl("restart", SERVICE):
        return True
    before = prefix / "previous"
    if not changed or not before.is_symlink():
        return False
    say("the service does not start with the new runtime: going back to the one before")
    beside = prefix / ".current.new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.readlink(before))
    beside.replace(prefix / "current")
    _systemctl("restart", SERVICE)
    raise Refused("the service did not start with the new runtime; the one before runs again")


def _words(prefix: Path) -> list[str]:
    """What an earlier flash was told to serve with."""
    try:
        found = json.loads((prefix / WORDS).read_text())
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _unit(runtime: list[str], device: Path, words: list[str]) -> bool:
    """The unit, as the runtime writes it; whether it changed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*runtime, "unit", *words, "--device", str(device), "--out", folder]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise Refused(f"there is no unit for the service: {done.stderr.strip()[-300:]}")
        text, place = (Path(folder) / SERVICE).read_text(), UNITS / SERVICE
    if place.exists() and place.read_text() == text:
        return False
    _write(place, text)
    _systemctl("daemon-reload")
    return True


@contextlib.contextmanager
def _readable(here: Path, prefix: Path) -> Iterator[Path]:
    """The bundle where the service's user can read it: a stick may be root's alone."""
    if here.is_relative_to(prefix):
        yield here / "bundle"
        return
    place = prefix / "arriving"
    shutil.rmtree(place, ignore_errors=True)
    try:
        shutil.copytree(here / "bundle", place, copy_function=shutil.copyfile)
        for folder in (place, *(path for path in place.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _systemctl(*words: str) -> bool:
    return subprocess.run(["systemctl", *words], stdout=subprocess.DEVNULL).returncode == 0


def _ask(words: list[str]) -> dict[str, Any]:
    """What a command of the runtime answers; its own steps go where ours go."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=sys.stdout, cwd="/")
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    if done.returncode:
        why = said.get("error") or said.get("why") or f"{words[4]} ended with {done.returncode}"
        raise Refused(f"{said.get('outcome', 'refused')} ({said.get('reason', 'unknown')}): {why}")
    return said


@contextlib.contextmanager
def _alone(prefix: Path) -> Iterator[None]:
    prefix.mkdir(parents=True, exist_ok=True)
    with (prefix / "arrival.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    """Whole or as it was."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def at_boot(here: Path) -> int:
    """As `arrive`; once it is done, or was tried often enough, what was brought is removed."""
    starts = _count(here / "starts") + 1
    _write(here / "starts", str(starts))
    try:
        came, code = arrive(here), 0
    except (Refused, OSError, KeyError, ValueError) as error:
        came, code = f"not installed: {error}", 1
        _write(here / "failures", str(_count(here / "failures") + 1))
    say(came)
    last = code == 0 or _count(here / "failures") >= FAILURES or starts >= STARTS
    with (here.parent.parent / "arrivals.jsonl").open("a") as told:
        told.write(json.dumps({"when": int(time.time()), "what": here.name, "came": came, "over": last}) + "\n")
    if last:
        (here / "parcel.json").unlink(missing_ok=True)  # it counts no more, wherever a cut leaves the rest
        shutil.rmtree(here, ignore_errors=True)
    else:
        say("it is tried again at the next start")
    return code


def _count(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def main(words: list[str]) -> int:
    """`arrival.py FOLDER`: install it now. `arrival.py --boot FOLDER`: each parcel in it, oldest release first."""
    os.umask(0o022)
    if words[0] == "--boot":
        found = [path.parent for path in sorted(Path(words[1]).glob("*/parcel.json"))]
        return max([at_boot(here) for here in found], default=0)
    try:
        say(arrive(Path(words[0]).absolute()))
    except (Refused, OSError, KeyError, ValueError) as error:
        say(f"not installed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

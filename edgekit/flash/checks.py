"""Is this device right for this bundle? Each question a line: ok, a warning, or a refusal with what to do. Pure.

Refuses nothing itself: `refused` of the lines says whether anything may be done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit_runtime.manifest import Manifest

from edgekit.flash.bundles import Terms
from edgekit.flash.facts import Disk, Facts
from edgekit.flash.running import has_account, live_of, model_of
from edgekit.target import CORES, Target

State = Literal["ok", "warning", "refusal"]
MARGIN = 1.25
"""Memory over the peak that was measured."""
BESIDE = 64 * 2**20
"""Bytes for the process itself."""
RESERVE, RESERVE_PART = 16 * 2**20, 0.05
"""Bytes of a disk that stay free: so many, or this part of it where that is less."""
CLOCK_OFF = 600
"""Seconds that a clock may be off before that is worth a word."""
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """A question, how it came out, in words, and what to do about it."""

    name: str
    state: State
    words: str
    hint: str = ""


@dataclass(frozen=True)
class Needed:
    """Bytes that will be written: of the runtime, unpacked and packed, and of the bundle."""

    runtime: int
    bundle: int


def refused(checks: Sequence[Check]) -> list[Check]:
    """Those that stand in the way."""
    return [check for check in checks if check.state == "refusal"]


def first(facts: Facts, manifest: Manifest, target: Target | None, now: float) -> list[Check]:
    """What can be told before a byte is fetched or sent."""
    return [
        Check("reachable", "ok", f"as {facts.user}, {facts.arch or 'of unknown architecture'}"),
        _root(facts),
        _arch(facts, manifest, target),
        *_isa(facts, target),
        _libc(facts),
        _python(facts),
        _target(facts, manifest),
        _clock(facts, now),
        _memory(facts, manifest),
        *_running(facts, manifest),
    ]


def version(facts: Facts, manifest: Manifest, id: str, terms: Terms) -> list[Check]:
    """Whether the device takes this version beside what it has: its floor, what it went back from, what is on trial;
    and whether there is a live one for it to be compared with."""
    model = model_of(facts.status, manifest.name)
    live, found = live_of(model), []
    if terms.shadow and live is None:
        words = f"no version of {manifest.name} is live there to compare with"
        found.append(Check("shadow", "refusal", words, "leave --shadow out"))
    if model is None:
        return found
    floor = model.get("floor")
    told = f"{manifest.name} {live} is live" if live else f"no version of {manifest.name} is live"
    on_trial = isinstance(model.get("trial"), dict) and model["trial"].get("id") != id
    if on_trial and terms.shadow:
        words = f"{told}, and on trial: nothing is compared with what is not proven"
        found.append(Check("shadow", "refusal", words, "wait until its probation is over, or leave --shadow out"))
    elif on_trial:
        words = f"{told}, and on trial: it is not proven, and will not be what the device goes back to"
        found.append(Check("versions", "warning", words, "wait until its probation is over"))
    else:
        found.append(Check("versions", "ok", told))
    if isinstance(floor, int) and manifest.release < floor and terms.downgrade is None and live != id:
        words = f"release {manifest.release} is below the device's floor {floor}"
        found.append(Check("floor", "refusal", words, "flash a newer one, or have a leave signed: --downgrade FILE"))
    if isinstance(model.get("refused"), list) and id in model["refused"] and not terms.again and live != id:
        found.append(
            Check("refused", "refusal", f"the device went back from {id} before", "say --again, or build anew")
        )
    return found


def room(facts: Facts, needed: Needed) -> list[Check]:
    """Whether the disks take it: both are of one file system, or each of its own."""
    runtimes, store = facts.disks
    if runtimes is None or store is None or runtimes.place == store.place:
        return [_room("disk", facts.homes.device, store, needed.runtime + needed.bundle)]
    return [
        _room("disk", facts.homes.prefix, runtimes, needed.runtime),
        _room("disk", facts.homes.device, store, needed.bundle),
    ]


def _root(facts: Facts) -> Check:
    if facts.homes.own:
        return Check("rights", "ok", f"none needed: all goes below {facts.homes.prefix}")
    if facts.root is None:
        return Check(
            "rights",
            "refusal",
            f"{facts.user} is not root there, and sudo asks for a password",
            "let sudo work without one there, log in as root, or flash with --user",
        )
    return Check("rights", "ok", "root by sudo" if facts.root else "root")


def _arch(facts: Facts, manifest: Manifest, target: Target | None) -> Check:
    arch = target.arch if target else None
    if facts.arch not in CORES:
        return Check(
            "architecture", "refusal", f"{facts.arch or 'unknown'} is none that EdgeKit knows", "use a 64-bit OS"
        )
    if arch is None:
        return Check("architecture", "warning", f"{facts.arch}; the target {manifest.target} is not known here")
    if arch != facts.arch:
        hint = f"build for this device: edgekit build --target ... (one of {facts.arch})"
        return Check("architecture", "refusal", f"the device is {facts.arch}, {manifest.target} is {arch}", hint)
    return Check("architecture", "ok", f"{facts.arch}, as {manifest.target}")


def _isa(facts: Facts, target: Target | None) -> Iterator[Check]:
    """A lacking feature is no refusal: the golden replay there tells whether the answers are right."""
    if target is None or target.arch != facts.arch:
        return
    missing = [feature for feature in target.isa if feature not in facts.isa]
    if missing:
        words = f"the device has no {', '.join(missing)}: it will be slower than the bundle says"
        yield Check(
            "instructions", "warning", words, "build for this CPU: `edgekit-runtime detect` there writes its profile"
        )
    elif target.isa:
        yield Check("instructions", "ok", ", ".join(target.isa))


def _libc(facts: Facts) -> Check:
    if facts.glibc is None:
        hint = "use a system with glibc, such as Raspberry Pi OS, Debian or Ubuntu"
        return Check("C library", "refusal", "no glibc, which the wheels of the engines need", hint)
    if facts.python is not None and not facts.libstdcxx:
        words = "no libstdc++.so.6, which numpy and the engines need"
        return Check("C library", "refusal", words, "on it: apt install libstdc++6")
    return Check("C library", "ok", f"glibc {facts.glibc[0]}.{facts.glibc[1]}")


def _python(facts: Facts) -> Check:
    if facts.python is None:
        return Check(
            "Python", "refusal", "there is no python3, or a part of it is missing", "on it: apt install python3"
        )
    told = ".".join(map(str, facts.python))
    if facts.python[:2] < OLDEST_PYTHON:
        return Check("Python", "refusal", f"{told}; the runtime needs 3.11", "update the device's system")
    if facts.arch == "armv7l" and not facts.numpy:
        words = f"{told}, without numpy, for which there is no 32-bit wheel"
        return Check("Python", "refusal", words, "on it: apt install python3-numpy")
    if facts.shut and has_account(facts.homes):
        words = f"{told} is below {facts.shut}, where the service's user may not look"
        hint = "have python3 be one that every user may run (on it: apt install python3), or flash with --user"
        return Check("Python", "refusal", words, hint)
    return Check("Python", "ok", told)


def _target(facts: Facts, manifest: Manifest) -> Check:
    if facts.target is None:
        return Check("target", "ok", f"{manifest.target}; the device was not told what it is")
    if facts.target != manifest.target:
        hint = f"build with --target {facts.target}, or write another word into {facts.homes.device}/target"
        return Check("target", "refusal", f"the device is {facts.target}, the bundle is for {manifest.target}", hint)
    return Check("target", "ok", manifest.target)


def _clock(facts: Facts, now: float) -> Check:
    off = facts.now - now
    if abs(off) <= CLOCK_OFF:
        return Check("clock", "ok", "right")
    far = f"{abs(off) / 86400:,.0f} days" if abs(off) > 2 * 86400 else f"{abs(off) / 60:,.0f} minutes"
    words = f"{far} {'ahead' if off > 0 else 'behind'}; the device goes by the last signed time that it saw"
    return Check("clock", "warning", words, "let it have a time server: timedatectl set-ntp true")


def _memory(facts: Facts, manifest: Manifest) -> Check:
    total, free = facts.memory
    peak = manifest.evidence.get("peak_mb")
    if not isinstance(peak, int | float) or isinstance(peak, bool):
        return Check("memory", "warning", f"{_mb(free)} are free; what the bundle takes was not measured")
    needed = int(peak * 1e6 * MARGIN) + BESIDE
    told = f"{_mb(free)} are free, {_mb(needed)} are needed"
    if total and total < needed:
        return Check(
            "memory", "refusal", f"{_mb(total)} in all, {_mb(needed)} are needed", "build a smaller one: --max-memory"
        )
    if free < needed:
        return Check("memory", "warning", told, "stop other programs there; it may swap or be killed")
    return Check("memory", "ok", told)


def _running(facts: Facts, manifest: Manifest) -> Iterator[Check]:
    if facts.runtime is None:
        yield Check("runs there", "ok", "nothing yet")
        return
    if facts.starts is None:
        yield Check("runs there", "warning", "a runtime that does not start; it is replaced")
        return
    engines = facts.runtime.get("engines")
    more = f" with {', '.join(map(str, engines))}" if isinstance(engines, list) else ""
    yield Check("runs there", "ok", f"edgekit-runtime {facts.starts}{more}")


def _room(name: str, folder: str, disk: Disk | None, needed: int) -> Check:
    if disk is None:
        return Check(name, "warning", f"the disk of {folder} does not say how full it is")
    reserve = int(min(RESERVE, disk.total * RESERVE_PART))
    told = f"{_mb(disk.free)} are free at {folder}, {_mb(needed)} will be written and {_mb(reserve)} stay free"
    if disk.free < needed + reserve:
        return Check(name, "refusal", told, "remove files there; `edgekit-runtime gc` removes old versions")
    return Check(name, "ok", told)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:,.1f} MB"

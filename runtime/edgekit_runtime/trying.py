"""The trial of a verified bundle before it is served: in a child process, within what its manifest promises.

Refuses wrong answers, an exam that is missed, a crash, more memory than promised, more time than was measured on such
a machine."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeGuard

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.candidate import EXAM, peak_mb
from edgekit_runtime.disk import plain_errors
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.scored import SECONDS, Scored, from_json

LONGEST = 600.0
"""Seconds that a trial may take."""
MARGIN, BESIDE_MB = 1.5, 64.0
"""Over the peak memory that the build measured, for another machine's allocator and for what verifies it."""
OF_FREE = 0.9
"""Of the free memory, where the manifest promises nothing."""
SLOWER, BESIDE_MS = 2.0, 1.0
"""Over the time that was promised: the device is busy meanwhile, it serves the version before."""
LOOK_SECONDS = 0.03
MOST_TOLD = 100_000
NO_MEMORY = ("bad_alloc", "Failed to allocate memory", "Cannot allocate memory")
"""What engines say when they are not given what they ask for."""


Tell = Callable[[str], None]


class Unfit(EdgeKitError):
    """The bundle was verified, and does not do here what it promises; `reason` is golden, exam, crashed, memory, slow,
    late or engine. `exam` is the one that was missed."""

    def __init__(self, what: str, hint: str, reason: str, exam: Scored | None = None) -> None:
        super().__init__(what, hint)
        self.reason, self.exam = reason, exam


@dataclass(frozen=True)
class Limits:
    """What the trial may take: memory in MB, milliseconds for one inference (None: they are only told), seconds; and of
    these its exam."""

    memory_mb: float
    inference_ms: float | None = None
    seconds: float = LONGEST
    exam_seconds: float = SECONDS


@dataclass(frozen=True)
class Found:
    """What the trial measured; `worst` is the largest difference to a recorded answer, in parts of its range; `exam`
    how it did in the one that the bundle brings."""

    worst: float
    tolerance: float
    p50_ms: float
    p90_ms: float
    peak_mb: float
    exam: Scored | None = None


def limits_of(manifest: Manifest, model: str, on_target: bool, free_mb: float) -> Limits:
    """What a manifest promises, on a machine of this `model` with so much free memory; `on_target` says that the device
    is known to be of the manifest's target."""
    peak, latency = manifest.evidence.get("peak_mb"), manifest.evidence.get("latency")
    memory = free_mb * OF_FREE
    if _positive(peak) and manifest.options.device == "cpu":  # an accelerator's own libraries are no part of that
        memory = min(float(peak) * MARGIN + BESIDE_MB, memory)  # what is served is not to be killed for a promise
    p90 = latency.get("p90_ms") if isinstance(latency, Mapping) else None
    if not _positive(p90) or not _timed_on_such(str(manifest.evidence.get("timed", "")), model, on_target):
        return Limits(memory)
    return Limits(memory, float(p90) * SLOWER + BESIDE_MS)


def _positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12


def _timed_on_such(words: str, model: str, on_target: bool) -> bool:
    """Whether the build took its times on a device of the target, or on a machine of this very model."""
    if words.startswith("measured on this machine ("):
        return words.startswith(f"measured on this machine ({model}), ")
    return on_target and words.startswith("measured on ")


def try_out(bundle: Bundle, limits: Limits, tell: Tell = lambda line: None) -> Found:
    """Run the bundle, whose files are held in memory by this process, in a child; what it measured. `tell` hears how
    far its exam is.

    Raises:
        Unfit: it does not do what it promises; says what it did.
    """
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    told, ended = _run(bundle.folder, limits, tell)
    at = next((one["at"] for one in reversed(told) if "at" in one), "starting")
    facts: dict[str, Any] = {}
    for one in told:
        facts |= one
    if ended == "memory" or facts.get("memory") or any(word in str(facts.get("error")) for word in NO_MEMORY):
        raise _too_much(name, limits, at)
    if ended == "late":
        raise Unfit(f"{name} did not end within {limits.seconds:g} s while {at}", "build a smaller model", "late")
    if "error" in facts:
        reason = {"reading its recorded inputs": "golden", EXAM: "exam"}.get(at, "engine")
        raise Unfit(f"{name} does not run here: {facts['error']}", facts["hint"] or "look at its report", reason)
    if ended:
        raise Unfit(
            f"{name} crashed ({ended}) while {at}", "build it for this device's target, with its engine", "crashed"
        )
    if _untold(facts, at):
        raise Unfit(f"{name} ended while {at}", "build it for this device's target, with its engine", "crashed")
    return _judged(name, facts, limits)


def _untold(facts: Mapping[str, Any], at: str) -> bool:
    """Whether the child ended well by its exit code, and did not come to its end: an engine can end its process."""
    if "passed" not in facts:
        return True
    return bool(facts["passed"]) and ("timed" not in facts or (at == EXAM and "exam" not in facts))


def _judged(name: str, facts: Mapping[str, Any], limits: Limits) -> Found:
    if float(facts["peak_mb"]) > limits.memory_mb:  # between two looks
        raise _too_much(name, limits, "being tried")
    replayed = facts["replayed"]
    worst = float("inf") if replayed["worst"] is None else float(replayed["worst"])
    if not facts["passed"]:
        raise Unfit(
            f"{name} answers its recorded inputs otherwise here: {replayed['output']} is off by {worst:.2g} of its "
            f"range; {replayed['tolerance']:g} is allowed",
            "build it for this device's target",
            "golden",
        )
    timed, peak = facts["timed"], float(facts["peak_mb"])
    if limits.inference_ms is not None and timed["p50_ms"] > limits.inference_ms:
        raise Unfit(
            f"{name} takes {timed['p50_ms']:.3g} ms here; its manifest promises it in {limits.inference_ms:.3g} ms",
            "look what else runs on the device, or build it again with --measure-on",
            "slow",
        )
    exam = None if "exam" not in facts else from_json(facts["exam"])
    if exam is not None and exam.outcome == "missed":
        raise Unfit(
            f"{name} does not do here what its build proved elsewhere: {exam.text()}",
            "build it with another --precision, or look at the engine and the driver of this device",
            "exam",
            exam,
        )
    return Found(worst, replayed["tolerance"], timed["p50_ms"], timed["p90_ms"], round(peak, 1), exam)


def _too_much(name: str, limits: Limits, at: str) -> Unfit:
    return Unfit(
        f"{name} took more than {limits.memory_mb:,.0f} MB of memory while {at}",
        "build it again: its manifest promises less; or free memory on the device",
        "memory",
    )


def _run(folder: Path, limits: Limits, tell: Tell) -> tuple[list[dict[str, Any]], str]:
    """What the child told, and how it ended: "" (well), "memory", "late", or the name of a signal."""
    data = min(
        int(limits.memory_mb * 2e6) + 2**30, sys.maxsize
    )  # memory that is asked for and not used does not count: a second line
    command = [sys.executable, "-P", "-m", "edgekit_runtime.candidate", str(folder), f"--data={data}"]
    command += [f"--exam-seconds={limits.exam_seconds}", f"--parent={os.getpid()}"]
    with tempfile.TemporaryFile() as out, plain_errors("the trial of the bundle cannot begin"):
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True
        ) as child:
            try:
                ended = _watched(child, limits, _heard(out.fileno(), tell))
            finally:  # at Ctrl-C too, which it does not hear of in a session of its own
                with suppress(ProcessLookupError, PermissionError):  # nobody of its group is left, or nobody of ours
                    os.killpg(child.pid, signal.SIGKILL)
                child.kill()
        return _read(out), ended


def _heard(out: int, tell: Tell) -> Callable[[], None]:
    """Tells how far the exam is by what was written since the last look. The child writes on where the file's place
    is, which is left alone."""
    place = 0

    def look() -> None:
        nonlocal place
        new, _, _ = os.pread(out, MOST_TOLD, place).rpartition(b"\n")
        for line in new.splitlines():
            said = json.loads(line)
            if "examined" in said:
                tell(f"exam: {said['examined']:,} of {said['of']:,} samples")
        place += len(new) + 1 if new else 0

    return look


def _watched(child: "subprocess.Popen[bytes]", limits: Limits, look: Callable[[], None]) -> str:
    end = time.monotonic() + limits.seconds
    while True:
        try:
            code = child.wait(LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            look()
            if peak_mb(child.pid) > limits.memory_mb:
                return "memory"
            if time.monotonic() > end:
                return "late"
    if code == -signal.SIGKILL:  # not by us: the system kills what takes too much
        return "memory"
    return "" if code == 0 else _name(-code) if code < 0 else f"exit code {code}"


def _name(number: int) -> str:
    """Of a signal; the real-time ones have none."""
    known = {int(one): one.name for one in signal.Signals}
    return known.get(number, f"signal {number}")


def _read(out: IO[bytes]) -> list[dict[str, Any]]:
    """The child's lines; one that it was killed amid is left out."""
    out.seek(0)
    told = []
    for line in out.read(MOST_TOLD).splitlines():
        try:
            told.append(dict(json.loads(line)))
        except ValueError:
            break
    return told


def free_mb(path: Path = Path("/proc/meminfo")) -> float:
    """The memory that programs can still have, in MB."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024 / 1e6
    except (OSError, ValueError, StopIteration) as error:
        raise EdgeKitError("this system does not tell how much memory is free", hint="install on Linux") from error

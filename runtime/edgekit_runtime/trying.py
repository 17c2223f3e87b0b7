"""The trial of a verified bundle before it is served: in a child process, within what its manifest promises.

Refuses wrong answers, a crash, more memory than promised, more time than was measured on such a machine."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeGuard

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.candidate import peak_mb
from edgekit_runtime.disk import plain_errors
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import Manifest

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


class Unfit(EdgeKitError):
    """The bundle was verified, and does not do here what it promises; `reason` is golden, crashed, memory, slow, late
    or engine."""

    def __init__(self, what: str, hint: str, reason: str) -> None:
        super().__init__(what, hint)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What the trial may take: memory in MB, milliseconds for one inference (None: they are only told), seconds."""

    memory_mb: float
    inference_ms: float | None = None
    seconds: float = LONGEST


@dataclass(frozen=True)
class Found:
    """What the trial measured; `worst` is the largest difference to a recorded answer, in parts of its range."""

    worst: float
    tolerance: float
    p50_ms: float
    p90_ms: float
    peak_mb: float


def limits_of(manifest: Manifest, model: str, on_target: bool, free_mb: float) -> Limits:
    """What a manifest promises, on a machine of this `model` with so much free memory; `on_target` says that the device
    is known to be of the manifest's target."""
    peak, latency = manifest.evidence.get("peak_mb"), manifest.evidence.get("latency")
    memory = free_mb * OF_FREE
    if _positive(peak):
        memory = float(peak) * MARGIN + BESIDE_MB
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


def try_out(bundle: Bundle, limits: Limits) -> Found:
    """Run the bundle, whose files are held in memory by this process, in a child; what it measured.

    Raises:
        Unfit: it does not do what it promises; says what it did.
    """
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    told, ended = _run(bundle.folder, limits)
    at = next((one["at"] for one in reversed(told) if "at" in one), "starting")
    facts: dict[str, Any] = {}
    for one in told:
        facts |= one
    if ended == "memory" or facts.get("memory") or any(word in str(facts.get("error")) for word in NO_MEMORY):
        raise _too_much(name, limits, at)
    if ended == "late":
        raise Unfit(f"{name} did not end within {limits.seconds:g} s while {at}", "build a smaller model", "late")
    if "error" in facts:
        reason = "golden" if at == "reading its recorded inputs" else "engine"
        raise Unfit(f"{name} does not run here: {facts['error']}", facts["hint"] or "look at its report", reason)
    if ended:
        raise Unfit(
            f"{name} crashed ({ended}) while {at}", "build it for this device's target, with its engine", "crashed"
        )
    return _judged(name, facts, limits)


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
    return Found(worst, replayed["tolerance"], timed["p50_ms"], timed["p90_ms"], round(peak, 1))


def _too_much(name: str, limits: Limits, at: str) -> Unfit:
    return Unfit(
        f"{name} took more than {limits.memory_mb:,.0f} MB of memory while {at}",
        "build it again: its manifest promises less; or free memory on the device",
        "memory",
    )


def _run(folder: Path, limits: Limits) -> tuple[list[dict[str, Any]], str]:
    """What the child told, and how it ended: "" (well), "memory", "late", or the name of a signal."""
    data = min(
        int(limits.memory_mb * 2e6) + 2**30, sys.maxsize
    )  # memory that is asked for and not used does not count: a second line
    command = [sys.executable, "-P", "-m", "edgekit_runtime.candidate", str(folder), f"--data={data}"]
    with tempfile.TemporaryFile() as out, plain_errors("the trial of the bundle cannot begin"):
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL) as child:
            try:
                ended = _watched(child, limits)
            finally:
                child.kill()
        return _read(out), ended


def _watched(child: "subprocess.Popen[bytes]", limits: Limits) -> str:
    end = time.monotonic() + limits.seconds
    while True:
        try:
            code = child.wait(LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if peak_mb(child.pid) > limits.memory_mb:
                return "memory"
            if time.monotonic() > end:
                return "late"
    if code == -signal.SIGKILL:  # not by us: the system kills what takes too much
        return "memory"
    return "" if code == 0 else signal.Signals(-code).name if code < 0 else f"exit code {code}"


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

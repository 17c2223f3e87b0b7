"""Runs an artifact on and on, and tells interval by interval what a run took and what the machine felt meanwhile.

Refuses more than a day, and intervals that are no measure of anything. Sensors are read between runs, never in one."""

import math
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.machine import Machine, Reader, scaling
from edgekit_runtime.tensors import Array

LONGEST = 86_400.0
SHORTEST, WIDEST = 0.05, 600.0
"""Seconds that an interval may be."""
FASTEST = 1e6
WARM_RUNS, WARM_SECONDS = 3, 0.5
"""Before the clock: at least so many runs, and at least so long, since a clock takes a moment to rise."""
LOOKS = 0.2
"""Seconds between two looks at the power of an idle machine."""


@dataclass(frozen=True)
class Course:
    """For how many seconds, in intervals of how many; `rate`: so many starts a second, else back to back. `idle`:
    seconds for which the idle machine's power is read first, where there is a sensor."""

    seconds: float
    interval: float = 1.0
    rate: float | None = None
    idle: float = 2.0

    def __post_init__(self) -> None:
        bounds = {"seconds": (0, LONGEST), "interval": (SHORTEST, WIDEST), "idle": (0, WIDEST)}
        if self.rate is not None:
            bounds["rate"] = (1 / WIDEST, FASTEST)
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise BadRequest(f"{name} {value:g}", hint=f"say {name} between {low:g} and {high:g}")


def parse_course(raw: Mapping[str, Any]) -> Course:
    """What a message asks for. Raises `BadRequest` where that is no course."""
    try:
        rate = raw.get("rate")
        numbers = {key: float(raw[key]) for key in ("seconds", "interval", "idle") if key in raw}
        return Course(rate=None if rate is None else float(rate), **numbers)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"a course that does not read: {error}") from error


Told = tuple[dict[str, Any], Array]
"""What is said of the start, or of an interval, as JSON values; and the milliseconds of its runs."""


def endure(run: Callable[[], object], course: Course, root: Path = Path("/")) -> Iterator[Told]:
    """First what holds throughout ("begun"), then each interval ("row"), as soon as it is over."""
    reader = Reader(root, often=max(course.interval, 1.0))
    began: dict[str, Any] = {"do": "begun", "kernel": platform.release(), "governors": scaling.governors(root)}
    began |= {"fastest": scaling.fastest(root), "locked": scaling.locked(root), "idle": _idle(reader, course.idle)}
    warm, until = 0, time.perf_counter() + WARM_SECONDS
    while warm < WARM_RUNS or time.perf_counter() < until:
        run()
        warm += 1
    found = reader.read(time.monotonic())
    yield {**began, "cpus": found.cpus, "reasons": list(found.reasons), **_felt(found)}, np.empty(0, np.float32)
    beat, start = _Beat(course.rate), time.perf_counter()
    end = start + course.seconds
    while time.perf_counter() < end:
        before = _Spent.now(root)
        taken = _interval(run, beat, min(time.perf_counter() + course.interval, end))
        row = {"do": "row", "at": time.perf_counter() - start, "missed": beat.forget(), **_times(taken)}
        felt = _felt(reader.read(time.monotonic()))
        yield {**row, **before.until(_Spent.now(root)), **felt}, taken


def _interval(run: Callable[[], object], beat: "_Beat", end: float) -> Array:
    """Milliseconds of the runs until `end`; of one at least, however long it takes."""
    taken: list[float] = []
    clock = time.perf_counter
    while not taken or clock() < end:
        beat.wait()
        start = clock()
        run()
        taken.append(clock() - start)
    return np.array(taken, np.float32) * 1000


class _Beat:
    """When the next run starts, at a steady rate; at once where there is none. A start whose time passed while another
    ran is left out and counted: hurrying after it would measure the hurry."""

    def __init__(self, rate: float | None) -> None:
        self._period = None if rate is None else 1 / rate
        self._due: float | None = None
        self._missed = 0

    def wait(self) -> None:
        if self._period is None:
            return
        now = time.perf_counter()
        due = now if self._due is None else self._due
        if now < due:
            time.sleep(due - now)
        else:
            late = int((now - due) / self._period)
            self._missed += late
            due += late * self._period
        self._due = due + self._period

    def forget(self) -> int:
        """How many starts were left out since this was asked last."""
        missed, self._missed = self._missed, 0
        return missed


@dataclass(frozen=True)
class _Spent:
    """Clocks at one moment: the wall's, this process's, and the hypervisor's."""

    at: float
    cpu: float
    ticks: scaling.Ticks | None

    @classmethod
    def now(cls, root: Path) -> "_Spent":
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter(), used.ru_utime + used.ru_stime, scaling.ticks(root))

    def until(self, later: "_Spent") -> dict[str, Any]:
        stolen = scaling.stolen(self.ticks, later.ticks)
        return {"seconds": later.at - self.at, "cpu_s": later.cpu - self.cpu, "stolen": stolen}


def _times(taken: Array) -> dict[str, Any]:
    p50, p90, p99 = (float(value) for value in np.quantile(taken, (0.5, 0.9, 0.99)))
    return {"n": len(taken), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": float(taken.max())}


def _felt(found: Machine) -> dict[str, Any]:
    """The machine as it is now: GPUs among the sensors, by their numbers."""
    temperatures, power, clocks = dict(found.temperatures), dict(found.power), dict(found.frequencies)
    slowed = list(found.throttled)
    for index, gpu in enumerate(found.gpus):
        name = f"gpu{index}"
        temperatures |= {} if gpu.temperature is None else {name: gpu.temperature}
        power |= {} if gpu.power is None else {name: gpu.power}
        clocks |= {} if gpu.frequency is None else {name: gpu.frequency}
        slowed += [f"{name} {reason}" for reason in gpu.throttled]
    return {
        "temperatures": temperatures, "clocks": clocks, "power": power, "busy": found.cpu,
        "load": found.load, "throttled": slowed, "resident": found.resident,
        "gpus": [asdict(gpu) for gpu in found.gpus],
    }  # fmt: skip


def _idle(reader: Reader, seconds: float) -> dict[str, float]:
    """Watts by sensor while nothing is run here; none where no sensor tells any, and no time is spent then."""
    looks = [_power(reader)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(LOOKS, max(0.0, end - time.monotonic())))
        looks.append(_power(reader))
        if not any(looks):
            break
    # a counter of energy gives the mean since the look before, so the first look has none; a meter tells the moment
    names = {name for look in looks for name in look}
    return {name: float(np.mean([look[name] for look in looks if name in look])) for name in sorted(names)}


def _power(reader: Reader) -> Mapping[str, float]:
    power: Mapping[str, float] = _felt(reader.read(time.monotonic()))["power"]
    return power

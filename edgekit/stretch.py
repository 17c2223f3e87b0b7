"""What a long run told: how it began, its intervals, and all its times. Values; parsed once, where they arrive.

Refuses what a worker of this version would not say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array, Feeds

MOST = 2_000_000
"""Times that are kept whole; of more, every second one, then every fourth..."""


@dataclass(frozen=True)
class Interval:
    """One interval: `at` seconds after the start it was over. Milliseconds of its `n` runs; starts that were `missed`
    at a steady rate; CPU seconds of the worker (`cpu_s`), the busy and the stolen share of all CPUs; degrees, hertz
    and watts by sensor; why the machine said that it was slowed down."""

    at: float
    seconds: float
    n: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_s: float
    missed: int = 0
    busy: float | None = None
    stolen: float | None = None
    load: float | None = None
    resident: int | None = None
    temperatures: Mapping[str, float] = field(default_factory=dict)
    clocks: Mapping[str, float] = field(default_factory=dict)
    power: Mapping[str, float] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()
    gpus: tuple[Mapping[str, Any], ...] = ()

    @property
    def hottest(self) -> float | None:
        """Degrees of the hottest sensor."""
        return max(self.temperatures.values(), default=None)

    @property
    def mhz(self) -> tuple[float, float] | None:
        """The slowest and the fastest clock of the cores."""
        clocks = [hertz for name, hertz in self.clocks.items() if not name.startswith("gpu")]
        return (min(clocks) / 1e6, max(clocks) / 1e6) if clocks else None


@dataclass(frozen=True)
class Begun:
    """What holds throughout: the kernel, what governs each clock and how fast it could be in hertz, the reasons that
    the machine is able to tell, watts while idle, and whether there are energy counters that only root may read."""

    kernel: str
    cpus: int | None
    governors: Mapping[str, str]
    fastest: Mapping[str, float]
    reasons: tuple[str, ...]
    idle: Mapping[str, float]
    locked: bool
    temperatures: Mapping[str, float]


class Times:
    """All times of a run in milliseconds, in bounded memory: beyond `MOST` evenly thinned."""

    def __init__(self) -> None:
        self._pieces: list[Array] = []
        self._held = self._next = 0
        self._step = 1
        self.n = 0

    def add(self, taken: Array) -> None:
        """The times of one more interval."""
        kept = taken[self._next :: self._step]
        self._next = (self._next - len(taken)) % self._step
        self._pieces.append(kept)
        self._held += len(kept)
        self.n += len(taken)
        while self._held > MOST:
            whole = np.concatenate(self._pieces)
            # the next to be kept is two of the old steps after the last that is kept now
            self._next += self._step * (len(whole) % 2)
            self._step *= 2
            self._pieces = [whole[::2]]
            self._held = len(self._pieces[0])

    def quantile(self, share: float) -> float:
        """That quantile; there must be a time."""
        return float(np.quantile(np.concatenate(self._pieces), share))


def parse_begun(raw: Mapping[str, Any]) -> Begun:
    """How a run began, from a worker's message."""
    try:
        cpus = raw["cpus"]
        return Begun(
            _text(raw["kernel"]), None if cpus is None else int(cpus),
            {_text(cpu): _text(rule) for cpu, rule in raw["governors"].items()}, _numbers(raw["fastest"]),
            tuple(map(_text, raw["reasons"])), _numbers(raw["idle"]), bool(raw["locked"]),
            _numbers(raw["temperatures"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _strange(error) from error


def parse_interval(raw: Mapping[str, Any], arrays: Feeds) -> tuple[Interval, Array]:
    """An interval and the milliseconds of its runs, from a worker's message."""
    measured = ("at", "seconds", "p50_ms", "p90_ms", "p99_ms", "max_ms", "cpu_s")
    beside = ("busy", "stolen", "load")
    try:
        taken = np.asarray(arrays["ms"], np.float32).ravel()
        if len(taken) != raw["n"] or not len(taken) or not np.isfinite(taken).all():
            raise ValueError(f"{len(taken)} times of {raw['n']} runs")
        row = Interval(
            n=int(raw["n"]), missed=int(raw["missed"]), **{key: _number(raw[key]) for key in measured},
            **{key: None if raw[key] is None else _number(raw[key]) for key in beside},  # type: ignore[arg-type]
            resident=None if raw["resident"] is None else int(raw["resident"]),
            temperatures=_numbers(raw["temperatures"]),
            clocks=_numbers(raw["clocks"]),
            power=_numbers(raw["power"]),
            throttled=tuple(map(_text, raw["throttled"])), gpus=tuple(dict(gpu) for gpu in raw["gpus"]),
        )  # fmt: skip
        return row, taken
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _strange(error) from error


def _strange(error: Exception) -> EdgeKitError:
    what = f"the worker tells what does not read ({type(error).__name__}: {error})"
    return EdgeKitError(what, hint="update EdgeKit, here and there")


def _number(raw: Any) -> float:
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError(f"{value} is no measure")
    return value


def _numbers(raw: Mapping[str, Any]) -> dict[str, float]:
    return {_text(name): _number(value) for name, value in raw.items()}


def _text(raw: Any) -> str:
    """Words for a terminal: a device may say anything."""
    if not isinstance(raw, str):
        raise TypeError(f"{raw!r} is no text")
    return "".join(filter(str.isprintable, raw))[:80]

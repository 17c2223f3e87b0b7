"""Energy of one inference above what the idle machine takes, from the watts of a run. Pure.

Refuses to make up a sensor: where there is none, it says so."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.stretch import Begun, Interval

WHOLE = (r"pmic_rails", r"vdd_in", r"pom_5v_in|vin_sys_5v0|sys5v", r"rapl_package_\d+", r"rapl_psys")
"""Sensors that tell of the machine or its processor as a whole, best first; several of one kind are added up."""
OF_A_GPU = r"gpu\d+"


@dataclass(frozen=True)
class Energy:
    """Mean watts while it ran and while idle, by the sensors `of`; joules of one inference above idle."""

    of: str
    watts: float
    idle_watts: float
    joules: float

    @property
    def words(self) -> str:
        """For a person."""
        told = f"{self.watts:.2f} W, idle {self.idle_watts:.2f} W ({self.of})"
        if self.joules <= 0:
            return f"{told}: not above idle"
        size = f"{self.joules:.3g} J" if self.joules >= 0.1 else f"{self.joules * 1000:.3g} mJ"
        return f"{told}: {size} an inference above idle"


def energy(begun: Begun, rows: Sequence[Interval], device: str = "cpu") -> Energy | None:
    """What an inference took; None where no sensor tells both of the run and of the idle machine."""
    names = sorted(set(begun.idle) & {name for row in rows for name in row.power})
    seconds, n = sum(row.seconds for row in rows), sum(row.n for row in rows)
    if not names or not n or seconds <= 0:
        return None
    means = {name: _mean(rows, name) for name in names}
    chosen = _chosen(names, device) or [max(names, key=lambda name: means[name])]
    watts, idle = sum(means[name] for name in chosen), sum(begun.idle[name] for name in chosen)
    return Energy(" + ".join(chosen), watts, idle, (watts - idle) * seconds / n)


def _chosen(names: Sequence[str], device: str) -> list[str]:
    wanted = WHOLE if device == "cpu" else (OF_A_GPU, *WHOLE)
    found = ([name for name in names if re.fullmatch(pattern, name)] for pattern in wanted)
    return next((some for some in found if some), [])


def _mean(rows: Sequence[Interval], name: str) -> float:
    """Weighted by the intervals' lengths: a counter's watts are means over them."""
    told = [(row.power[name], row.seconds) for row in rows if name in row.power]
    return sum(watts * seconds for watts, seconds in told) / sum(seconds for _, seconds in told)


def why_none(begun: Begun) -> str:
    """Why no energy is told."""
    return "no sensor" + (" (the CPU counts its energy, but for root alone)" if begun.locked else "")

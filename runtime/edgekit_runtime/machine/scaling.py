"""By what rule and between which limits the CPU's clock moves, what a hypervisor took, and what is kept from us.

Refuses nothing: what does not read is left out. For long runs, beside what the reader tells."""

from pathlib import Path
from typing import NamedTuple

from edgekit_runtime.machine.files import entries, number, text

POLICIES = "sys/devices/system/cpu/cpufreq"
RAPL = "sys/class/powercap"
STAT = 2**16
KILO, FASTEST = 1000, 20_000_000
"""The files hold kilohertz; beyond the second one is broken."""


class Ticks(NamedTuple):
    """Of all CPUs together, since the start: what a hypervisor gave to others, and all."""

    stolen: int
    total: int


def governors(root: Path) -> dict[str, str]:
    """The rule of each clock, by the first CPU of those that share it: ondemand, schedutil, performance..."""
    read = ((cpu, text(path / "scaling_governor", 64)) for path, cpu in entries(root / POLICIES, r"policy(\d+)"))
    return {cpu: name for cpu, name in read if name is not None and name.isprintable()}


def fastest(root: Path) -> dict[str, int]:
    """Hertz that each clock could reach by its hardware."""
    read = ((cpu, number(path / "cpuinfo_max_freq")) for path, cpu in entries(root / POLICIES, r"policy(\d+)"))
    return {cpu: kilohertz * KILO for cpu, kilohertz in read if kilohertz is not None and 0 < kilohertz < FASTEST}


def ticks(root: Path) -> Ticks | None:
    """What was stolen so far, and of how much time."""
    words = (text(root / "proc/stat", STAT) or "").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu" or not all(word.isdecimal() and len(word) < 19 for word in words[1:9]):
        return None
    spent = [int(word) for word in words[1:9]]
    return Ticks(spent[7], sum(spent))


def stolen(before: Ticks | None, now: Ticks | None) -> float | None:
    """The share of the time between two looks that a hypervisor took; None where no time passed."""
    if before is None or now is None or now.total <= before.total:
        return None
    return min(1.0, max(0.0, (now.stolen - before.stolen) / (now.total - before.total)))


def locked(root: Path) -> bool:
    """Whether there are counters of energy that only root may read."""
    zones = [zone for zone, _ in entries(root / RAPL, r"intel-rapl:(\d+)")]
    return bool(zones) and all(number(zone / "energy_uj") is None for zone in zones)

"""Temperatures, clocks and power: thermal zones, hwmon chips, cpufreq, RAPL. Found once, read often.

Refuses nothing: a sensor that does not read, or reads what cannot be, is left out of that reading.

The names of hwmon's files and their units (thousandths of a degree, microwatts, millivolts, milliamperes) are in the
kernel's Documentation/hwmon/sysfs-interface.rst, RAPL's in Documentation/power/powercap."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.machine.files import MOST, entries, number, plain, text

COLDEST, HOTTEST = -50.0, 150.0
"""Degrees; beyond them a sensor is broken, or says so with such a number."""
STRONGEST = 10_000.0
"""Watts."""
FASTEST = 20_000_000
"""Kilohertz."""


@dataclass(frozen=True)
class Rapl:
    """A counter of energy in microjoules that starts again at zero beyond `most`."""

    path: Path
    most: int


@dataclass(frozen=True)
class Found:
    """Where to read: `temperatures` and `power` by sensor, `rails` as pairs of volts and amperes."""

    temperatures: Mapping[str, Path]
    frequencies: Mapping[str, Path]
    power: Mapping[str, Path]
    rails: Mapping[str, tuple[Path, Path]]
    energy: Mapping[str, Rapl]


def find(root: Path) -> Found:
    """The sensors that the machine has now; some come and go, so look again from time to time."""
    zones = dict(_zones(root))
    temperatures = dict(zones)
    power: dict[str, Path] = {}
    rails: dict[str, tuple[Path, Path]] = {}
    for chip, _ in entries(root / "sys/class/hwmon", r"hwmon(\d+)"):
        name = plain(text(chip / "name") or chip.name)
        for path, label in _inputs(chip, r"temp(\d+)_input", name):
            # a thermal zone shows itself as a chip of its name too: that is one sensor, not two
            if label != name or name not in zones:
                _add(temperatures, label, path)
        for path, label in (*_inputs(chip, r"power(\d+)_input", name), *_inputs(chip, r"power(\d+)_average", name)):
            _add(power, label, path)
        for pair, rail in _rails(chip) if name.startswith("ina3221") else ():
            rails.setdefault(rail, pair)
    clocks = entries(root / "sys/devices/system/cpu/cpufreq", r"policy(\d+)")
    frequencies = {cpu: path / "scaling_cur_freq" for path, cpu in clocks}
    return Found(temperatures, frequencies, power, rails, dict(_energy(root)))


def temperatures(found: Found) -> dict[str, float]:
    """Degrees Celsius by sensor."""
    read = ((name, number(path)) for name, path in found.temperatures.items())
    return {name: raw / 1000 for name, raw in read if raw is not None and COLDEST < raw / 1000 < HOTTEST}


def frequencies(found: Found) -> dict[str, int]:
    """Hertz by the first CPU of those that share a clock."""
    read = ((cpu, number(path)) for cpu, path in found.frequencies.items())
    return {cpu: kilohertz * 1000 for cpu, kilohertz in read if kilohertz is not None and 0 < kilohertz < FASTEST}


def power(found: Found) -> dict[str, float]:
    """Watts by sensor, of those that tell it at once."""
    made = {}
    for name, path in found.power.items():
        if (microwatts := number(path)) is not None:
            made[name] = microwatts / 1e6
    for name, (volts, amperes) in found.rails.items():
        millivolts, milliamperes = number(volts), number(amperes)
        if millivolts is not None and milliamperes is not None:
            made[name] = millivolts * milliamperes / 1e6
    return {name: watts for name, watts in made.items() if 0 <= watts < STRONGEST}


def energy(found: Found) -> dict[str, int]:
    """Microjoules so far, by sensor."""
    read = ((name, number(one.path)) for name, one in found.energy.items())
    return {name: value for name, value in read if value is not None and value >= 0}


def spent(found: Found, before: Mapping[str, int], now: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Watts by sensor, from the energy at two looks so many seconds apart."""
    made = {}
    for name in before.keys() & now.keys() & found.energy.keys() if seconds > 0 else ():
        used = now[name] - before[name]
        if used < 0:
            used += found.energy[name].most
        made[name] = used / 1e6 / seconds
    return {name: watts for name, watts in sorted(made.items()) if 0 <= watts < STRONGEST}


def _zones(root: Path) -> Iterable[tuple[str, Path]]:
    made: dict[str, Path] = {}
    for zone, index in entries(root / "sys/class/thermal", r"thermal_zone(\d+)"):
        _add(made, plain(text(zone / "type") or f"zone {index}"), zone / "temp")
    return made.items()


def _inputs(chip: Path, pattern: str, name: str) -> list[tuple[Path, str]]:
    """A chip's files of one kind, each with the sensor's name: the chip's, and the label where there is one."""
    found = list(entries(chip, pattern))
    made = []
    for path, index in found:
        label = text(path.with_name(path.name.rpartition("_")[0] + "_label"), 64)
        made.append((path, plain(f"{name} {label}") if label else name if len(found) == 1 else f"{name}_{index}"))
    return made


def _rails(chip: Path) -> Iterable[tuple[tuple[Path, Path], str]]:
    """What an INA3221, as Jetsons have it, measures. Its fourth to seventh voltages are those of its own shunts."""
    for amperes, index in entries(chip, r"curr([123])_input"):
        label = text(chip / f"in{index}_label", 64)
        if label and label != "NC":  # not connected
            yield (chip / f"in{index}_input", amperes), plain(label)


def _energy(root: Path) -> Iterable[tuple[str, Rapl]]:
    """RAPL's zones; the same packages show up as intel-rapl-mmio once more. Since 2020 for root alone."""
    names: dict[str, str] = {}
    for zone, index in entries(root / "sys/class/powercap", r"intel-rapl:(\d+(?::\d+)?)"):
        name, most = plain(text(zone / "name", 64) or index), number(zone / "max_energy_range_uj")
        names[index] = name
        if most and most > 0 and number(zone / "energy_uj") is not None:
            parent = names.get(index.partition(":")[0], "") if ":" in index else ""
            yield "_".join(filter(None, ("rapl", parent, name))), Rapl(zone / "energy_uj", most)


def _add(made: dict[str, Path], name: str, path: Path) -> None:
    """Under its name, or the name with a number where another sensor has it."""
    if len(made) >= MOST:
        return
    free, count = name, 2
    while free in made:
        free, count = f"{name}_{count}", count + 1
    made[free] = path

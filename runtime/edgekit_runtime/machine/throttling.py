"""Why the machine is slowed down: the counters of x86, a Jetson's alerts and counters, a Pi's alarm of its voltage.

Refuses nothing: a source that does not read tells nothing."""

from collections.abc import Iterable
from pathlib import Path

from edgekit_runtime.machine.files import entries, number, text
from edgekit_runtime.machine.firmware import UNDERVOLTAGE

HOT, POWER, OVERCURRENT = "temperature", "power", "overcurrent"
X86 = (("core_throttle_count", HOT), ("package_throttle_count", HOT), ("package_power_limit_count", POWER))
EVENTS = {"1": UNDERVOLTAGE, "2": OVERCURRENT, "3": OVERCURRENT}
"""A Jetson Orin's oc1 to oc3: too low a voltage, too high a current on average, and at once."""

Sources = list[tuple[str, Path]]
"""A reason, and the number that tells of it."""


class Throttling:
    """The sources that a machine has. A counter that grew since the last look, or a flag that is up, says: now."""

    def __init__(self, root: Path) -> None:
        self._counters: Sources = [*_x86(root), *_events(root)]
        self._flags: Sources = [*_alerts(root), *_voltage(root)]
        self._counts: dict[Path, int] = {}

    def read(self) -> tuple[set[str], set[str]]:
        """Why it is slowed down now, and the reasons that it is able to tell of."""
        now, able = set[str](), set[str]()
        for reason, path in self._counters:
            if (count := number(path)) is None:
                continue
            able.add(reason)
            if count > self._counts.get(path, count):
                now.add(reason)
            self._counts[path] = count
        for reason, path in self._flags:
            if (state := number(path)) is None:
                continue
            able.add(reason)
            if state > 0:
                now.add(reason)
        return now, able


def _x86(root: Path) -> Iterable[tuple[str, Path]]:
    """A counter for each core; those of a package are the same under each of its CPUs, so the first one's do."""
    packages = set[str | None]()
    for cpu, _ in entries(root / "sys/devices/system/cpu", r"cpu(\d+)"):
        if not (cpu / "thermal_throttle").is_dir():
            return
        package = text(cpu / "topology/physical_package_id")
        for name, reason in X86:
            if name.startswith("core") or package not in packages:
                yield reason, cpu / "thermal_throttle" / name
        packages.add(package)


def _events(root: Path) -> Iterable[tuple[str, Path]]:
    for chip, _ in entries(root / "sys/class/hwmon", r"hwmon(\d+)"):
        if text(chip / "name") == "soctherm_oc":
            yield from ((EVENTS[index], path) for path, index in entries(chip, r"oc([123])_event_cnt"))


def _alerts(root: Path) -> Iterable[tuple[str, Path]]:
    """The cooling devices of a Jetson by which its hardware slows a part of itself down."""
    for device, _ in entries(root / "sys/class/thermal", r"cooling_device(\d+)"):
        if (text(device / "type") or "").endswith("throttle-alert"):
            yield HOT, device / "cur_state"


def _voltage(root: Path) -> Iterable[tuple[str, Path]]:
    for chip, _ in entries(root / "sys/class/hwmon", r"hwmon(\d+)"):
        if text(chip / "name") == "rpi_volt":
            yield UNDERVOLTAGE, chip / "in0_lcrit_alarm"

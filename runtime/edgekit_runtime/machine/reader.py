"""Reads a machine again and again, and keeps what the next reading takes differences with.

Refuses nothing: whatever does not read is left out of that reading."""

from dataclasses import dataclass, field
from pathlib import Path

from edgekit_runtime.machine import gpu, sensors, system
from edgekit_runtime.machine.firmware import BITS, EVERY, Firmware
from edgekit_runtime.machine.throttling import Throttling
from edgekit_runtime.machine.values import Machine

LOOK_AGAIN = 60.0
"""Seconds after which sensors are searched for again: some come and go."""
RAILS = "pmic_rails"


@dataclass
class _Last:
    """Of the reading before."""

    at: float = 0.0
    cpu: system.CpuTime | None = None
    energy: dict[str, int] = field(default_factory=dict)


class Reader:
    """The machine whose /proc and /sys are under `root`, and the disk that holds the folder `disk`; a program that
    has to be run to know is run every `often` seconds at most."""

    def __init__(self, root: Path = Path("/"), disk: Path | None = None, often: float = EVERY) -> None:
        self._root, self._disk, self._often = root, disk, often
        self._found: sensors.Found | None = None
        self._looked = 0.0
        self._throttling: Throttling | None = None
        self._firmware: Firmware | None = None
        self._gpus: gpu.Read | None = None
        self._last = _Last()

    def read(self, now: float) -> Machine:
        """The machine now; `now` is in seconds, of a clock that nobody sets (`time.monotonic`).

        Call it in a thread, one call at a time, and never on an event loop's: it takes about a millisecond where all
        is well, but a sensor on a slow bus, a driver's library that the first call loads, or the program that asks a
        Raspberry Pi's firmware every ten seconds take what they take.
        """
        found, throttling, firmware = self._parts(now)
        slow, able = throttling.read()
        told = firmware.read(now)
        if told.reasons is not None:
            slow, able = slow | told.reasons, able.union(BITS)
        watts, cpu, cpus = self._watts(found, now), *system.cpu_time(self._root)
        if told.watts is not None:
            watts[RAILS] = told.watts
        busy, self._last.cpu = system.share(self._last.cpu, cpu), cpu
        self._last.at = now
        memory_total, memory_available = system.memory(self._root)
        disk_total, disk_free = system.disk(self._disk)
        return Machine(
            cpu=busy,
            cpus=cpus,
            load=system.load(self._root),
            temperatures=sensors.temperatures(found),
            throttled=tuple(sorted(slow)),
            reasons=tuple(sorted(able)),
            frequencies=sensors.frequencies(found),
            memory_total=memory_total,
            memory_available=memory_available,
            resident=system.resident(self._root),
            disk_total=disk_total,
            disk_free=disk_free,
            power=watts,
            uptime=system.uptime(self._root),
            gpus=self._gpus() if self._gpus else (),
        )

    def _parts(self, now: float) -> tuple[sensors.Found, Throttling, Firmware]:
        """What there is to read; searched for in the thread that reads, since that takes longer than a reading."""
        if self._throttling is None or self._firmware is None:
            self._throttling, self._firmware = Throttling(self._root), Firmware(self._root, self._often)
            self._gpus = gpu.find(self._root)
        if self._found is None or now - self._looked >= LOOK_AGAIN:
            self._found, self._looked = sensors.find(self._root), now
        return self._found, self._throttling, self._firmware

    def _watts(self, found: sensors.Found, now: float) -> dict[str, float]:
        energy = sensors.energy(found)
        watts = sensors.power(found) | sensors.spent(found, self._last.energy, energy, now - self._last.at)
        self._last.energy = energy
        return watts

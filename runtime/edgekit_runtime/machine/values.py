"""What was read of a machine, as values, as families of metrics and as JSON. Pure.

Refuses nothing; what is not known is None or absent, and makes no sample."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit_runtime.families import Family, Sample


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: shares of 1, bytes, degrees Celsius, watts, hertz. A Jetson's has no memory of its own.

    `throttled` says why its clock is lower than it could be, in words of `reasons`: all that it is able to tell."""

    name: str
    utilization: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    temperature: float | None = None
    power: float | None = None
    power_limit: float | None = None
    frequency: int | None = None
    throttled: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine at one moment.

    `cpu` is the busy share of all `cpus` since the read before; `load` is the mean over a minute; `frequencies` are
    by the first CPU of those that share a clock. `throttled` says why it is slowed down now, or was since the read
    before, in words of `reasons`: those that this machine is able to tell. `resident` is what this process holds.
    Bytes, degrees Celsius, hertz, watts, seconds.
    """

    cpu: float | None = None
    cpus: int | None = None
    load: float | None = None
    temperatures: Mapping[str, float] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    frequencies: Mapping[str, int] = field(default_factory=dict)
    memory_total: int | None = None
    memory_available: int | None = None
    resident: int | None = None
    disk_total: int | None = None
    disk_free: int | None = None
    power: Mapping[str, float] = field(default_factory=dict)
    uptime: float | None = None
    gpus: tuple[Gpu, ...] = ()


GAUGES = (
    ("cpu", "edgekit_machine_cpu_ratio", "Busy share of all CPUs since the last look."),
    ("load", "edgekit_machine_load1", "Mean number of runnable tasks over a minute."),
    ("memory_total", "edgekit_machine_memory_total_bytes", "Memory of the machine."),
    ("memory_available", "edgekit_machine_memory_available_bytes", "Memory that a new program could have."),
    ("disk_total", "edgekit_machine_disk_total_bytes", "Size of the disk that the server writes to."),
    ("disk_free", "edgekit_machine_disk_free_bytes", "What is free there for this server."),
    ("uptime", "edgekit_machine_uptime_seconds", "Seconds since the machine started."),
)
LABELLED = (
    ("temperatures", "edgekit_machine_temperature_celsius", "sensor", "Temperature by sensor."),
    ("frequencies", "edgekit_machine_frequency_hertz", "cpu", "Clock by the first CPU of those that share it."),
    ("power", "edgekit_machine_power_watts", "sensor", "Power drawn, by sensor; one may be part of another."),
)
OF_GPUS = (
    ("utilization", "edgekit_gpu_utilization_ratio", "Share of the time in which the GPU computed."),
    ("memory_used", "edgekit_gpu_memory_used_bytes", "Memory of the GPU in use."),
    ("memory_total", "edgekit_gpu_memory_total_bytes", "Memory of the GPU."),
    ("temperature", "edgekit_gpu_temperature_celsius", "Temperature of the GPU."),
    ("power", "edgekit_gpu_power_watts", "Power drawn by the GPU."),
    ("power_limit", "edgekit_gpu_power_limit_watts", "Power that the GPU may draw."),
    ("frequency", "edgekit_gpu_frequency_hertz", "Clock of the GPU's processors."),
)


def families(machine: Machine) -> list[Family]:
    """The machine as metrics; a family without samples is one that the machine does not have."""
    made = [Family(name, "gauge", words, _one(getattr(machine, part))) for part, name, words in GAUGES]
    for part, name, label, words in LABELLED:
        values: Mapping[str, float] = getattr(machine, part)
        made.append(Family(name, "gauge", words, tuple(Sample(values[key], ((label, key),)) for key in values)))
    slowed = tuple(Sample(float(one in machine.throttled), (("reason", one),)) for one in _reasons(machine))
    made.append(Family("edgekit_machine_throttled", "gauge", "1 while the machine is slowed down, by reason.", slowed))
    for part, name, words in OF_GPUS:
        told = ((str(index), getattr(gpu, part)) for index, gpu in enumerate(machine.gpus))
        samples = tuple(Sample(value, (("gpu", index),)) for index, value in told if value is not None)
        made.append(Family(name, "gauge", words, samples))
    slow = tuple(
        Sample(float(reason in gpu.throttled), (("gpu", str(index)), ("reason", reason)))
        for index, gpu in enumerate(machine.gpus)
        for reason in gpu.reasons
    )
    made.append(Family("edgekit_gpu_throttled", "gauge", "1 while the GPU is slowed down, by reason.", slow))
    return made


def to_json(machine: Machine) -> dict[str, Any]:
    """The machine for a program: the fields by their names, null for what is not known."""
    return asdict(machine) | {"throttled": list(machine.throttled), "reasons": list(_reasons(machine))}


def _one(value: float | None) -> tuple[Sample, ...]:
    return () if value is None else (Sample(value),)


def _reasons(machine: Machine) -> Iterable[str]:
    return dict.fromkeys((*machine.reasons, *machine.throttled))

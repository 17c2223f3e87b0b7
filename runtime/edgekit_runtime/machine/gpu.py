"""GPUs: NVIDIA's through the driver's own library, a Jetson's through its load file.

Refuses nothing: without a driver nothing is loaded, and a question that a GPU does not answer is left out."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgekit_runtime.machine.files import entries, number
from edgekit_runtime.machine.values import Gpu

LIBRARY = "libnvidia-ml.so.1"
DRIVER = ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/dxg")
"""One of these is there where NVIDIA's driver runs; the last in Windows' Linux."""
LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")
MOST_GPUS = 16
NAME_SIZE = 96
OF_THE_CHIP = 0
"""NVML_TEMPERATURE_GPU."""
OF_THE_PROCESSORS = 1
"""NVML_CLOCK_SM."""
HOTTEST, STRONGEST, FASTEST = 150, 10_000_000, 100_000
"""Degrees, milliwatts and megahertz beyond which an answer is none."""
SLOWED = {"power": 0x4 | 0x80, "temperature": 0x20 | 0x40, "hardware": 0x8}
"""Bits of nvmlClocksThrottleReason*: SwPowerCap, HwPowerBrakeSlowdown; Sw- and HwThermalSlowdown; HwSlowdown.
The others (idle, a clock that somebody set, a display's) are no throttling."""

log = logging.getLogger(__name__)

Read = Callable[[], tuple[Gpu, ...]]


def find(root: Path) -> Read | None:
    """How to read the GPUs under `root`; None where there are none."""
    if any((root / one).exists() for one in DRIVER):
        if (found := open_nvml()) is not None:
            return found
        log.warning("NVIDIA's driver runs, but %s does not answer: its GPUs are not told of", LIBRARY)
    return _jetson(root)


def open_nvml(library: str = LIBRARY) -> Read | None:
    """The GPUs that NVML knows; None where it does not load or finds none."""
    import ctypes  # a megabyte or two, so only where there is a driver

    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return None
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0 or count.value == 0:
            return None
        ask = _questions(nvml)
        handles = []
        for index in range(min(count.value, MOST_GPUS)):
            handle = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == 0:
                handles.append(handle)
    except (OSError, AttributeError):  # not there, or too old to have these functions
        return None
    return lambda: tuple(ask(handle) for handle in handles)


def _questions(nvml: Any) -> Callable[[Any], Gpu]:
    """How to ask one GPU. The layouts are those of NVIDIA's nvml.h, the same since its first versions; `later`
    are questions that old drivers do not know."""
    import ctypes

    class Utilization(ctypes.Structure):
        _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))

    class Memory(ctypes.Structure):
        _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))

    name = ctypes.create_string_buffer(NAME_SIZE)
    busy, memory, degrees, reasons = Utilization(), Memory(), ctypes.c_uint(), ctypes.c_ulonglong()
    milliwatts, limit, megahertz = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
    calls = {
        "name": (nvml.nvmlDeviceGetName, (name, ctypes.c_uint(NAME_SIZE))),
        "busy": (nvml.nvmlDeviceGetUtilizationRates, (ctypes.byref(busy),)),
        "memory": (nvml.nvmlDeviceGetMemoryInfo, (ctypes.byref(memory),)),
        "degrees": (nvml.nvmlDeviceGetTemperature, (ctypes.c_int(OF_THE_CHIP), ctypes.byref(degrees))),
        "milliwatts": (nvml.nvmlDeviceGetPowerUsage, (ctypes.byref(milliwatts),)),
    }
    later = {
        "limit": ("nvmlDeviceGetEnforcedPowerLimit", (ctypes.byref(limit),)),
        "megahertz": ("nvmlDeviceGetClockInfo", (ctypes.c_int(OF_THE_PROCESSORS), ctypes.byref(megahertz))),
        "reasons": ("nvmlDeviceGetCurrentClocksThrottleReasons", (ctypes.byref(reasons),)),
    }
    calls |= {key: (getattr(nvml, word), rest) for key, (word, rest) in later.items() if hasattr(nvml, word)}

    def ask(handle: Any) -> Gpu:
        told = {key for key, (call, rest) in calls.items() if call(handle, *rest) == 0}
        whole = "memory" in told and memory.used <= memory.total
        return Gpu(
            name.value.decode("utf-8", "replace") if "name" in told else "NVIDIA GPU",
            busy.gpu / 100 if "busy" in told and busy.gpu <= 100 else None,
            memory.used if whole else None,
            memory.total if whole else None,
            float(degrees.value) if "degrees" in told and degrees.value < HOTTEST else None,
            milliwatts.value / 1000 if "milliwatts" in told and milliwatts.value < STRONGEST else None,
            limit.value / 1000 if "limit" in told and limit.value < STRONGEST else None,
            megahertz.value * 10**6 if "megahertz" in told and megahertz.value < FASTEST else None,
            *_slowed(reasons.value if "reasons" in told else None),
        )

    return ask


def _slowed(bits: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Why a GPU is slowed down, and what it is able to tell of."""
    if bits is None:
        return (), ()
    return tuple(reason for reason, those in SLOWED.items() if bits & those), tuple(SLOWED)


def _jetson(root: Path) -> Read | None:
    """A Jetson's GPU: its load in thousandths. Its memory is the machine's, its temperature and power are sensors."""
    paths = [path for path in _load_files(root) if number(path) is not None]
    if not paths:
        return None

    def read() -> tuple[Gpu, ...]:
        load = number(paths[0])
        return (Gpu("integrated", load / 1000 if load is not None and 0 <= load <= 1000 else None),)

    return read


def _load_files(root: Path) -> Iterable[Path]:
    yield from (root / one for one in LOADS)
    for folder in ("sys/devices/platform", "sys/devices/platform/bus@0"):
        yield from (path / "load" for path, _ in entries(root / folder, r"([0-9a-f]+)\.(?:gpu|gv11b|ga10b)"))

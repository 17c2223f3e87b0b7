"""A target's CPU emulated by qemu's user mode: the very wheels of the device, as ordinary processes of this machine.

Refuses to guess a core, and to stand for a GPU or an NPU. What runs here answers as there, a hundred times slower."""

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import edgekit_runtime
from edgekit_runtime.detect import detect
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.places import Absent, Place, Start, roots
from edgekit.places.cores import CORES, Core
from edgekit.target import Target, did_you_mean, find_target, list_targets

SIGNAL = re.compile(r"uncaught target signal \d+ \(([^)]*)\)")
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
"""Settings that are meant for this machine's programs."""


def find_place(target: Target, engine: str, cache: Path | None = None) -> Place | Absent:
    """The emulated core that stands for `target`, where `engine` can be run on it here and now."""
    device = target.engine_options(engine).device
    if device != "cpu":
        return Absent(f"{target.title} runs {engine} on its {device}, which nothing emulates", _MEASURE)
    if target.emulate is None:
        return Absent(f"no emulated core stands for {target.title}", _MEASURE)
    return find_core(CORES[target.emulate], engine, cache)


def core_named(name: str) -> Core:
    """The core of that name, whatever its case, or the one that stands for the target of that name.

    Raises:
        EdgeKitError: there is none.
    """
    cores = {core.lower(): found for core, found in CORES.items()}
    if name.lower() in cores:
        return cores[name.lower()]
    targets = {target.name.lower(): target.name for target in list_targets()}
    if name.lower() not in targets and not name.endswith(".toml") and "/" not in name:
        near = did_you_mean(name, [*CORES, *targets.values()])
        raise EdgeKitError(f"no core or target {name!r}{near}", hint=f"use {', '.join(CORES)}, or a target")
    target = find_target(targets.get(name.lower(), name))
    if target.emulate is None:
        raise EdgeKitError(f"no emulated core stands for {target.title}", hint=f"use {', '.join(CORES)}")
    return CORES[target.emulate]


def find_core(core: Core, engine: str, cache: Path | None = None) -> Place | Absent:
    """That core, where `engine` can be run on it here and now."""
    if core.arch == "x86_64" and platform.machine() != "x86_64":
        return Absent(f"{core.name} is emulated on x86_64 machines only; this is {platform.machine()}", _MEASURE)
    installed = detect()["engines"] if core.arch == "x86_64" else roots.engines_there(core.arch)
    if engine not in installed:
        return Absent(*_no_engine(core, engine))
    if absent := roots.missing(core, cache):
        words = " and ".join(part.words.partition(":")[0] for part in absent)
        return Absent(f"{core.name} is not emulated yet: {words} missing", f"edgekit emulators add {core.name}")
    start = partial(_start_worker, core, cache)
    return Place(core.name, "emulated", f"{core.name}, emulated", start, partial(_explain, core))


def command(core: Core, scratch: Path, module: Sequence[str], cache: Path | None = None) -> Start:
    """How `python -m MODULE WORDS...` is run on that core, with the runtime's sources of here; `scratch` is an empty
    folder that has to live as long.

    It cannot start programs of its own where the machine does not know how to emulate them.

    Raises:
        EdgeKitError: what emulating it takes was not fetched.
    """
    if absent := roots.missing(core, cache):
        words = " and ".join(part.words.partition(":")[0] for part in absent)
        raise EdgeKitError(
            f"{core.name} is not emulated yet: {words} missing", hint=f"say edgekit emulators add {core.name}"
        )
    qemu = roots.find_qemu(core.arch, cache)
    assert qemu is not None, "a part of `missing`"
    _write_cpuinfo(core, scratch / "view")
    runtime = _runtime_alone(scratch)
    python, path = _own_python() if core.arch == "x86_64" else _roots_python(core, scratch / "view", cache)
    emulator = (str(qemu), "-cpu", core.name, "-L", str(scratch / "view"))
    return Start(
        (*emulator, *python, "-m", *module), {**_environment(), "PYTHONPATH": os.pathsep.join([str(runtime), *path])}
    )


_MEASURE = "name a device with --measure-on ssh://user@host"


def _no_engine(core: Core, engine: str) -> tuple[str, str]:
    """Why an engine is not to be had on a core, and what to do."""
    if core.arch == "armv7l":
        return f"engine {engine!r} has no 32-bit ARM build", "build for it with --format tflite"
    return f"engine {engine!r} is not installed here", "pip install the extra of that name, then try again"


def _start_worker(core: Core, cache: Path | None, scratch: Path) -> Start:
    return command(core, scratch, ("edgekit_runtime.worker",), cache)


def _own_python() -> tuple[tuple[str, ...], list[str]]:
    """This very Python and its packages; only its /proc/cpuinfo is the core's."""
    return (sys.executable,), [path for path in sys.path if path]


def _roots_python(core: Core, view: Path, cache: Path | None) -> tuple[tuple[str, ...], list[str]]:
    """The root's Python with the wheels of the other machine; `view` is made its file system."""
    root, site = roots.root(core.arch, cache).folder, roots.site(core.arch, cache).folder
    if core.arch == "aarch64":
        registers = view / "sys/devices/system/cpu/cpu0/regs/identification"
        registers.mkdir(parents=True)
        (registers / "midr_el1").write_text(core.midr(), encoding="ascii")  # OpenVINO reads which core it is
    for entry in root.iterdir():
        if entry.name not in ("proc", "sys"):
            (view / entry.name).symlink_to(entry)
    return (str(root / roots.root_python(root)), "-s"), [str(site), str(root / "usr/lib/python3/dist-packages")]


def _write_cpuinfo(core: Core, view: Path) -> None:
    """Without it ONNX Runtime, from 1.28 on, reads the host's file on an ARM core and crashes at import."""
    (view / "proc").mkdir(parents=True)
    (view / "proc" / "cpuinfo").write_text(core.cpuinfo(os.cpu_count() or 1), encoding="ascii")


def _runtime_alone(scratch: Path) -> Path:
    """A folder that holds nothing but the runtime: beside it may lie packages for another machine."""
    folder = scratch / "path"
    folder.mkdir()
    (folder / "edgekit_runtime").symlink_to(Path(edgekit_runtime.__file__).parent)
    return folder


def _environment() -> Mapping[str, str]:
    return {key: value for key, value in os.environ.items() if key not in FOREIGN}


def _explain(core: Core, status: int, said: str) -> EdgeKitError | None:
    if found := SIGNAL.search(said):
        return Unsupported(
            f"{core.name}, emulated: the engine ended with {found[1].lower()}",
            hint="an instruction that this core has not, or a fault of the emulation: try another --format",
        )
    return None

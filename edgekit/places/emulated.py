"""A target's CPU emulated by qemu's user mode: the very wheels of the device, as ordinary processes of this machine.

Refuses to guess a core, and to stand for a GPU or an NPU. What runs here answers as there, a hundred times slower."""

import os
import platform
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import edgekit_runtime
from edgekit_runtime.detect import detect
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.places import Absent, Place, Start, roots
from edgekit.places.cores import CORES, Core
from edgekit.target import Target

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


def find_core(core: Core, engine: str, cache: Path | None = None) -> Place | Absent:
    """That core, where `engine` can be run on it here and now."""
    if core.arch == "x86_64" and platform.machine() != "x86_64":
        return Absent(f"{core.name} is emulated on x86_64 machines only; this is {platform.machine()}", _MEASURE)
    installed = detect()["engines"] if core.arch == "x86_64" else roots.engines_there()
    if engine not in installed:
        return Absent(f"engine {engine!r} is not installed here", "pip install the extra of that name, then try again")
    if absent := roots.missing(core, cache):
        words = " and ".join(part.words.partition(":")[0] for part in absent)
        return Absent(f"{core.name} is not emulated yet: {words} missing", f"edgekit emulators add {core.name}")
    qemu = roots.find_qemu(core.arch, cache)
    assert qemu is not None, "a part of `missing`"
    start = partial(_start_x86, core, qemu) if core.arch == "x86_64" else partial(_start_arm, core, qemu, cache)
    return Place(core.name, "emulated", f"{core.name}, emulated", start, partial(_explain, core))


_MEASURE = "name a device with --measure-on ssh://user@host"


def _start_x86(core: Core, qemu: Path, scratch: Path) -> Start:
    """This very Python and its packages; only its /proc/cpuinfo is the core's."""
    _write_cpuinfo(core, scratch / "view")
    python = (str(qemu), "-cpu", core.name, "-L", str(scratch / "view"), sys.executable)
    path = os.pathsep.join([str(_runtime_alone(scratch)), *filter(None, sys.path)])
    return Start((*python, "-m", "edgekit_runtime.worker"), {**_environment(), "PYTHONPATH": path})


def _start_arm(core: Core, qemu: Path, cache: Path | None, scratch: Path) -> Start:
    """The root's Python with the wheels of the other machine, and the runtime's sources from here."""
    root, site = roots.root(core.arch, cache).folder, roots.site(core.arch, cache).folder
    _write_cpuinfo(core, scratch / "view")
    registers = scratch / "view" / "sys/devices/system/cpu/cpu0/regs/identification"
    registers.mkdir(parents=True)
    (registers / "midr_el1").write_text(core.midr(), encoding="ascii")  # OpenVINO reads which core it is
    for entry in root.iterdir():
        if entry.name not in ("proc", "sys"):
            (scratch / "view" / entry.name).symlink_to(entry)
    python = root / roots.root_python(root)
    command = (str(qemu), "-cpu", core.name, "-L", str(scratch / "view"), str(python))
    path = os.pathsep.join([str(_runtime_alone(scratch)), str(site)])
    return Start((*command, "-s", "-m", "edgekit_runtime.worker"), {**_environment(), "PYTHONPATH": path})


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

"""What this machine is: its CPU features, memory, storage and installed engines; as facts, and as a target profile.

Refuses nothing: what cannot be read is left out or named "unknown". Imports no engine to find it."""

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FEATURES = {
    "aarch64": ("asimd", "fphp", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "svei8mm", "sme"),
    "armv7l": ("neon", "vfpv4", "asimdhp", "asimddp", "i8mm"),
    "x86_64": (
        *("ssse3", "sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8"),
        *("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    ),
}
"""By architecture (uname -m): the features that change int8 arithmetic or speed, as /proc/cpuinfo names them."""

PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "onnx": {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")},
    "openvino": {"openvino": ("openvino",)},
    "tflite": {"ai_edge_litert": ("ai-edge-litert",), "tflite_runtime": ("tflite-runtime",)},
}
"""Engine -> module -> the distributions that may have brought it."""

CUDA_PACKAGE = "onnxruntime-gpu"
"""The distribution of ONNX Runtime that computes on NVIDIA's GPUs."""
MOST_GPUS = 16

VNNI = {"avx512_vnni", "avx_vnni"}


def detect(proc: Path = Path("/proc"), storage: Path = Path("/"), machine: str | None = None) -> dict[str, Any]:
    """This machine's facts, all plain values; `machine` stands in for `uname -m`."""
    cpus = _cpus(proc / "cpuinfo")
    arch = _arch(machine or platform.machine())
    disk = shutil.disk_usage(storage)
    return {
        "model": _model(proc, cpus),
        "arch": arch,
        "isa": _isa(arch, cpus),
        "cores": sum("processor" in cpu for cpu in cpus) or os.cpu_count() or 1,
        "memory_mb": _memory_mb(proc / "meminfo"),
        "storage_mb": (disk.used + disk.free) // 2**20,
        "engines": _engines(),
        "gpus": _gpus(proc),
        "cuda": _version((CUDA_PACKAGE,)) != "unknown",
        "python": platform.python_version(),
        "glibc": _glibc(),
    }


def saturating(arch: str, isa: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The engines whose 8-bit multiply-add saturates on such a CPU, and that want 7-bit weights there.

    Seen with all-largest inputs and weights: without VNNI, ONNX Runtime adds up half of what it should
    from AVX2 on but is exact on SSE4.2; OpenVINO does so on both; LiteRT never does.
    """
    if arch != "x86_64" or VNNI & set(isa):
        return ()
    return ("onnx", "openvino") if "avx2" in isa else ("openvino",)


def profile(facts: Mapping[str, Any]) -> str:
    """The target profile (TOML) of the machine that `detect` told of."""
    arch, isa = facts["arch"], facts["isa"]
    name = re.sub(r"[^a-z0-9]+", "-", facts["model"].lower()).strip("-")[:60] or "this-machine"
    lines = {
        "name": name,
        "title": facts["model"],
        "arch": arch,
        "isa": isa,
        "cores": facts["cores"],
        "threads": facts["cores"],
        "memory_mb": facts["memory_mb"],
        "storage_mb": facts["storage_mb"],
        "engines": _preferred(arch, isa, facts["engines"]),
        "precisions": ["int8", "float32", "float16", "int8-weights"] + ["int4-weights"] * (arch != "armv7l"),
        "saturates": saturating(arch, isa),
    }
    if arch == "armv7l":
        lines["dense_per_tensor"] = ["tflite"]
    tables: list[str] = []
    if facts["gpus"] and facts["cuda"]:
        lines |= {"engines": ["onnx"], "precisions": ["float16", "float32"], "accelerators": ["cuda"], "saturates": ()}
        tables = ["", "[options.onnx]", 'device = "cuda"']
    sources = {key: _source(key, facts) for key in list(lines)[2:]}
    if tables:
        sources |= {"options": f"{facts['gpus'][0]}, by {CUDA_PACKAGE}"}
    text = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items()]
    if facts["gpus"] and not facts["cuda"]:
        text.insert(
            0, f"# {facts['gpus'][0]} computes once {CUDA_PACKAGE} stands in for onnxruntime: detect again then."
        )
    text += tables
    text += ["", "[sources]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in sources.items())]
    return "\n".join(text) + "\n"


def _source(key: str, facts: Mapping[str, Any]) -> str:
    if key == "accelerators":
        return f"read from this machine by edgekit_runtime.detect: {', '.join(facts['gpus'])}"
    if facts["gpus"] and facts["cuda"] and key in ("saturates", "precisions"):
        return {
            "saturates": "none: the host's CPU does not compute",
            "precisions": "not measured: of ONNX Runtime's CUDA",
        }[key]
    if key == "saturates":
        return "inferred from isa: x86 without VNNI, see edgekit_runtime.detect.saturating"
    if key == "dense_per_tensor":
        return "tflite-runtime 2.14, the last for 32-bit ARM, as EdgeKit's own target armv7 has it"
    if key == "precisions":
        return "not measured: the order that serves most CPUs"
    if key == "engines":
        found = ", ".join(f"{engine} {number}" for engine, number in facts["engines"].items()) or "none"
        return (
            f"installed on this machine (Python {facts['python']}, glibc {facts['glibc']}): {found}; order not measured"
        )
    return "read from this machine by edgekit_runtime.detect"


def _preferred(arch: str, isa: list[str], installed: Mapping[str, str]) -> list[str]:
    """The installed engines, or where there is none yet those that can be, in the order that serves such CPUs."""
    if arch == "armv7l":
        return ["tflite"]
    if arch == "aarch64":
        order = ["tflite", "onnx", "openvino"]
    else:
        order = ["openvino", "onnx", "tflite"] if VNNI & set(isa) else ["onnx", "openvino", "tflite"]
    return [engine for engine in order if engine in installed] or order


def _cpus(cpuinfo: Path) -> list[dict[str, str]]:
    """The paragraphs of /proc/cpuinfo."""
    try:
        paragraphs = cpuinfo.read_text(errors="replace").split("\n\n")
    except OSError:
        return []
    pairs = ([line.partition(":") for line in paragraph.splitlines() if ":" in line] for paragraph in paragraphs)
    return [{key.strip(): value.strip() for key, _, value in lines} for lines in pairs if lines]


def _arch(machine: str) -> str:
    """`uname -m`, but of the programs: a 32-bit system under a 64-bit ARM kernel is armv7l."""
    return "armv7l" if machine == "aarch64" and sys.maxsize < 2**32 else machine


def _isa(arch: str, cpus: list[dict[str, str]]) -> list[str]:
    """The features that every core has."""
    flags = [set(words.split()) for cpu in cpus if (words := cpu.get("flags") or cpu.get("Features"))]
    common = set.intersection(*flags) if flags else set()
    if arch == "armv7l" and "asimd" in common:  # a 64-bit kernel's name for it
        common |= {"neon", "vfpv4"}
    return [feature for feature in FEATURES.get(arch, ()) if feature in common]


def _model(proc: Path, cpus: list[dict[str, str]]) -> str:
    """The board's name in the device tree, else what /proc/cpuinfo calls the board or the CPU."""
    try:
        named = [(proc / "device-tree" / "model").read_text(errors="replace").rstrip("\0")]
    except OSError:
        named = [cpu[key] for key in ("Model", "model name") for cpu in cpus if key in cpu]
    return "".join(filter(str.isprintable, named[0])).strip() or "unknown" if named else "unknown"


def _memory_mb(meminfo: Path) -> int:
    try:
        found = re.search(r"^MemTotal:\s*(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) // 1024 if found else 0


def _gpus(proc: Path) -> list[str]:
    """NVIDIA's GPUs by name, as its driver tells them: a folder for each; a Jetson's by what its board is."""
    names = []
    try:
        if b"nvidia,tegra" in (proc / "device-tree" / "compatible").read_bytes():
            names.append("the GPU of NVIDIA Tegra")
    except OSError:
        pass
    for path in sorted((proc / "driver" / "nvidia" / "gpus").glob("*/information"))[:MOST_GPUS]:
        try:
            found = re.search(r"^Model:[ \t]*(\S.*)$", path.read_text(errors="replace"), re.MULTILINE)
        except OSError:
            continue
        names.append("".join(filter(str.isprintable, found[1])).strip()[:96] if found else "NVIDIA GPU")
    return names


def _engines() -> dict[str, str]:
    """The engines installed here and their versions, without importing them."""
    return {
        engine: _version(names)
        for engine, modules in PACKAGES.items()
        for names in [next((names for module, names in modules.items() if find_spec(module)), ())]
        if names
    }


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _glibc() -> str:
    """The C library's version: wheels have a floor."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ") or "unknown"
    except (ValueError, OSError, AttributeError):
        return "unknown"

"""NVIDIA's GPUs under ONNX Runtime: its libraries, what is said to its providers, and what its errors mean.

Refuses a GPU that cannot be had, naming the library that does not load: ONNX Runtime itself would take the CPU."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import onnxruntime as ort

from edgekit_runtime.engines.options import EngineOptions
from edgekit_runtime.errors import Busy, EdgeKitError, Unsupported

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = (TENSORRT, CUDA)
DEVICES = {"cuda": (CUDA,), "tensorrt": PROVIDERS}
"""By the device of a manifest: the providers that make it up, the best first. TensorRT leaves to CUDA what it lacks."""
SHARED = "libonnxruntime_providers_shared.so"
LIBRARIES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
OF_TENSORRT = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
"""What the pip packages of TensorRT put into the folder tensorrt_libs, in the order in which they need each other."""
OF_CUDA = {
    *("device_id", "arena_extend_strategy", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace"),
    *("cudnn_conv1d_pad_to_nc1d", "do_copy_in_default_stream", "enable_cuda_graph", "fuse_conv_bias", "prefer_nhwc"),
    *("enable_skip_layer_norm_strict_mode", "sdpa_kernel", "tunable_op_enable", "tunable_op_tuning_enable", "use_tf32"),
}
FOR_TENSORRT = {
    *("trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_max_workspace_size", "trt_min_subgraph_size"),
    *("trt_max_partition_iterations", "trt_builder_optimization_level", "trt_auxiliary_streams", "trt_dla_enable"),
    *("trt_dla_core", "trt_sparsity_enable", "trt_layer_norm_fp32_fallback", "trt_cuda_graph_enable"),
    *("trt_context_memory_sharing_enable", "trt_op_types_to_exclude", "trt_force_sequential_engine_build"),
    *("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"),
}
"""What a manifest may say to the providers: no address, no path and no library, which would be code of a stranger's."""
PLAIN = re.compile(r"[\w.,:*+-]{1,400}", re.ASCII)
MIB = 2**20
FULL = ("Failed to allocate memory for requested buffer", "smaller than requested bytes", "out of memory",
        "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA failure 2:")  # fmt: skip
"""What ONNX Runtime, CUDA and its libraries say when there is no memory left."""
BROKEN = re.compile(r"CUDA failure (?:46|214|7\d\d|999)\b|an illegal memory access|unspecified launch failure")
"""After these no call of the process succeeds any more."""
FAILED = re.compile(r"CUDA failure \d{1,4}: [^;\n]{1,200}")
LOOK = "see that nvidia-smi lists the GPU, and that its driver is new enough for this CUDA"

log = logging.getLogger(__name__)


def providers(path: Path, options: EngineOptions) -> list[tuple[str, dict[str, str]]]:
    """The providers of `options.device` that can be had here, the best first, with what is said to each.

    Raises:
        Unsupported: not even CUDA can be had, or the settings are none of theirs.
    """
    names = DEVICES[options.device]
    for name, value in options.settings:
        if name not in OF_CUDA | FOR_TENSORRT or not PLAIN.fullmatch(value):
            raise Unsupported(
                f"{path.name}: {name} = {value[:80]!r} is no setting for an NVIDIA GPU",
                hint=f"say some of {', '.join(sorted(OF_CUDA | FOR_TENSORRT))}",
            )
    if (reason := lack(CUDA)) is not None:
        raise Unsupported(f"ONNX Runtime has no NVIDIA GPU here: {reason}", hint=_instead(reason))
    if TENSORRT in names and (reason := lack(TENSORRT)) is not None:
        log.warning("%s runs by CUDA, without TensorRT: %s", path.name, reason)
        names = (CUDA,)
    return [(name, _tensorrt(path, options) if name == TENSORRT else _cuda(options)) for name in names]


def number(options: EngineOptions) -> int:
    """Which GPU.

    Raises:
        Unsupported: `settings` say no number.
    """
    said = dict(options.settings).get("device_id", "0")
    if not said.isdecimal() or len(said) > 3:
        raise Unsupported(f"device_id {said!r} is no number of a GPU", hint="say 0 for the first")
    return int(said)


@cache
def lack(provider: str) -> str | None:
    """Why a provider cannot be had here; None where it can. Asked before a session is: that falls back silently."""
    if provider not in ort.get_available_providers():
        return f"this ONNX Runtime has no {provider} (it has {', '.join(ort.get_available_providers())})"
    import ctypes  # a megabyte or two, which a CPU's device keeps

    _preload(provider)
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / SHARED), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / LIBRARIES[provider]))
    except OSError as error:
        return " ".join(str(error).replace(f"{folder}/", "").split())[:300]
    return None


def failure(error: Exception, name: str) -> EdgeKitError | None:
    """What an error of a run on a GPU means, where it is not the model's or the input's fault; else None."""
    told = str(error)
    if any(word in told for word in FULL):
        return Busy(f"{name}: the GPU has no memory left for this", "try again later, or send less at once", 2)
    if BROKEN.search(told):
        return EdgeKitError(f"{name}: the GPU failed, and answers this process no more", hint="start the server again")
    return None


def unopened(error: Exception, name: str) -> EdgeKitError | None:
    """What an error of opening a file for a GPU means, where it is not the file's fault; else None."""
    told = str(error)
    if any(word in told for word in FULL):
        return Unsupported(
            f"{name} does not fit into the GPU's memory", hint="end what else runs there, or allow more (memory_mb)"
        )
    if (found := FAILED.search(told)) is not None:
        return Unsupported(f"{name} does not open on the GPU: {' '.join(found[0].split())}", hint=LOOK)
    return None


def _cuda(options: EngineOptions) -> dict[str, str]:
    """Arithmetic is as precise as was said (TF32 keeps 10 of float32's 23 bits), and memory stays within the limit."""
    said = {"device_id": str(number(options)), "use_tf32": str(int(options.precision != "float32"))}
    if options.memory_mb is not None:
        said |= {"gpu_mem_limit": str(options.memory_mb * MIB), "arena_extend_strategy": "kSameAsRequested"}
    return said | {name: value for name, value in options.settings if not name.startswith("trt_")}


def _tensorrt(path: Path, options: EngineOptions) -> dict[str, str]:
    """Engines take minutes to make, so they are kept."""
    said = {"device_id": str(number(options))}
    if options.memory_mb is not None:
        said["trt_max_workspace_size"] = str(options.memory_mb * MIB)
    said["trt_fp16_enable"] = str(int(options.precision == "float16"))
    said["trt_int8_enable"] = str(int(_quantized(path)))
    if (folder := kept(path)) is not None:
        said |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        said |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder.parent)}
    return said | {name: value for name, value in options.settings if name.startswith("trt_")}


def kept(path: Path, home: Path | None = None) -> Path | None:
    """The folder for what TensorRT made of exactly this file; None where no safe one can be had.

    By the file's digest: TensorRT's provider names engines by the graph alone, and so would run a new version of a
    model with the old one's weights. An engine is code, so nobody else may write there."""
    place = (home or Path.home()) / ".cache" / "edgekit" / "tensorrt" / _digest(path)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (place, place.parent):
            state = folder.lstat()
            if state.st_uid != os.geteuid() or state.st_mode & 0o022 or folder.is_symlink():
                log.warning("TensorRT's engines are not kept: others may write to %s", folder)
                return None
    except OSError as error:
        log.warning("TensorRT's engines are not kept, so each start makes them anew: %s", error)
        return None
    return place


def _digest(path: Path) -> str:
    """Of the file and of what lies beside it by its name: large models keep their weights there."""
    found = hashlib.sha256()
    for one in sorted(path.parent.glob(f"{path.name}*")):
        with one.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:32]


def _quantized(path: Path) -> bool:
    """Whether the file has 8-bit nodes: their kind stands in it as plain text."""
    from mmap import ACCESS_READ, mmap

    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
        return text.find(b"DequantizeLinear") >= 0


def _preload(provider: str) -> None:
    """Load what pip installed of CUDA and TensorRT, which the system's loader does not find by itself."""
    import ctypes

    if provider == TENSORRT:
        spec = find_spec("tensorrt_libs")
        for library in _inside(list(spec.submodule_search_locations or []) if spec else []):
            try:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                log.warning("%s does not load: %s", library.name, error)
    elif (preload := getattr(ort, "preload_dlls", None)) is not None:  # since 1.21
        with redirect_stdout(StringIO()):  # it prints what is missing; loading the provider will tell
            preload()


def _inside(folders: Iterable[str]) -> list[Path]:
    paths = (Path(folder) / name for folder in folders for name in OF_TENSORRT)
    return [path for path in paths if path.is_file()]


def _instead(reason: str) -> str:
    if "has no" in reason:
        return "install onnxruntime-gpu instead of onnxruntime, or build for a CPU target"
    if "libcuda.so" in reason:
        return "install NVIDIA's driver (nvidia-smi tells when it runs), or build for a CPU target"
    return "install CUDA's libraries: pip install 'onnxruntime-gpu[cuda,cudnn]' (some 2 GB), or build for a CPU target"

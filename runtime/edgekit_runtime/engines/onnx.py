"""ONNX Runtime as an engine: opens `.onnx` files on CPU or CUDA.

Refuses a file that ONNX Runtime cannot load, and a GPU that is not there."""

from pathlib import Path
from typing import Any

import onnxruntime as ort

from edgekit_runtime.engines import EngineOptions, Specs
from edgekit_runtime.errors import BadRequest, Unsupported
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
CRASHING = ["MatmulTransposeFusion"]
"""Optimizers that end the process: this one, in 1.31, on transformers in float16. Without it they take no longer."""
DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


def open_model(path: Path, options: EngineOptions) -> Runner:
    """A runner over one ONNX Runtime session with `options.threads` threads, which spin where `options.spin` says."""
    session = _session(path, options)
    names = [output.name for output in session.get_outputs()]
    words = [given.name for given in session.get_inputs() if given.type == "tensor(string)"]

    def run(feeds: Feeds) -> Feeds:
        for name in words:
            if any(isinstance(item, bytes) for item in feeds[name].ravel().tolist()):  # it would take their repr()
                raise BadRequest(f"{name}: ONNX Runtime takes texts, not bytes", hint="send UTF-8")
        try:
            return dict(zip(names, session.run(names, feeds), strict=True))
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            raise Unsupported(f"{path.name} does not run in ONNX Runtime: {_first_line(error, path)}") from error

    return run


def read_specs(path: Path) -> Specs:
    """Inputs and outputs of the file; a symbolic dimension is free."""
    session = _session(path, EngineOptions())
    return tuple(map(_spec, session.get_inputs())), tuple(map(_spec, session.get_outputs()))


def _session(path: Path, options: EngineOptions) -> Any:
    if options.device not in PROVIDERS:
        raise Unsupported(f"onnx engine has no device {options.device!r}", hint=f"use one of {', '.join(PROVIDERS)}")
    provider = PROVIDERS[options.device]
    if provider not in ort.get_available_providers():
        raise Unsupported(
            f"this ONNX Runtime has no {provider} (it has {', '.join(ort.get_available_providers())})",
            hint="install onnxruntime-gpu instead of onnxruntime, or build for a CPU target",
        )
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what goes wrong is raised, and told once
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spin)))
    try:
        return ort.InferenceSession(str(path), settings, providers=[provider], disabled_optimizers=CRASHING)
    except Exception as error:  # ONNX Runtime's errors share no base class below Exception
        raise Unsupported(f"{path.name} does not load in ONNX Runtime: {_first_line(error, path)}") from error


def _spec(value: Any) -> TensorSpec:
    dtype = DTYPES.get(value.type) or value.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(value.name, dtype, tuple(n if isinstance(n, int) else None for n in value.shape or ()))


def _first_line(error: Exception, path: Path) -> str:
    lines = str(error).replace(str(path), path.name).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

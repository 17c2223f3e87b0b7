"""ONNX Runtime as an engine: opens `.onnx` files on the CPU, or on an NVIDIA GPU by CUDA or TensorRT.

Refuses a file that ONNX Runtime cannot load, a GPU that is not there, and to run on the CPU what was for a GPU."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edgekit_runtime.engines import EngineOptions, Specs, bound, nvidia
from edgekit_runtime.engines.placed import Placement, check_placement
from edgekit_runtime.errors import BadRequest, EdgeKitError, Unsupported
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec

CPU = "CPUExecutionProvider"
DEVICES = ("cpu", *nvidia.DEVICES)
CRASHING = ["MatmulTransposeFusion"]
"""Optimizers that end the process: this one, in 1.31, on transformers in float16. Without it they take no longer."""
DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
TOLD_SINCE = "1.24"
"""The first ONNX Runtime that tells which provider runs which operator."""

log = logging.getLogger(__name__)


def open_model(path: Path, options: EngineOptions) -> Runner:
    """A runner over one ONNX Runtime session with `options.threads` threads, which spin where `options.spin` says.

    On a GPU what goes in and out is bound to its memory.
    """
    session = _session(path, options)
    inputs, outputs = _specs(session)
    names = [spec.name for spec in outputs]
    words = [spec.name for spec in inputs if spec.dtype == "object"]
    if options.device != "cpu":
        _check(path, options, session)

    def plain(feeds: Feeds) -> Feeds:
        return dict(zip(names, session.run(names, feeds), strict=True))

    once: Runner = plain
    if options.device != "cpu" and bound.bindable((*inputs, *outputs)):
        once = bound.bound(session, inputs, outputs, "cuda", nvidia.number(options))

    def run(feeds: Feeds) -> Feeds:
        for name in words:
            if any(isinstance(item, bytes) for item in feeds[name].ravel().tolist()):  # it would take their repr()
                raise BadRequest(f"{name}: ONNX Runtime takes texts, not bytes", hint="send UTF-8")
        try:
            return once(feeds)
        except EdgeKitError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            if options.device != "cpu" and (known := nvidia.failure(error, path.name)) is not None:
                raise known from error
            raise Unsupported(f"{path.name} does not run in ONNX Runtime: {_first_line(error, path)}") from error

    return run


def read_specs(path: Path) -> Specs:
    """Inputs and outputs of the file; a symbolic dimension is free."""
    return _specs(_session(path, EngineOptions()))


def placement(path: Path, options: EngineOptions) -> Placement | None:
    """Where the file's operators run under `options`; None for the CPU, and where this one does not tell.

    Raises:
        Unsupported: as `open_model` does, but for operators that are left on the CPU.
    """
    if options.device == "cpu":
        return None
    session = _session(path, options)
    return told(session, _device(session), nvidia.PROVIDERS)


def told(session: Any, device: str, providers: Collection[str]) -> Placement | None:
    """What a session says of its operators: those that `providers` run, and the others. None where it cannot say."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    accelerated, left = 0, Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name in providers:
            accelerated += len(part.get_nodes())
        else:
            left.update(node.op_type for node in part.get_nodes())
    return Placement(device, accelerated, dict(left))


def _check(path: Path, options: EngineOptions, session: Any) -> None:
    """Refuse a session of which nothing, or less than was wanted, runs on the GPU; tell what is left on the CPU."""
    placement = told(session, _device(session), nvidia.PROVIDERS)
    if placement is None:
        if options.least:
            raise Unsupported(
                f"ONNX Runtime {ort.__version__} does not tell which operators run on the GPU",
                hint=f"install {TOLD_SINCE} or newer, or leave out --min-accelerated",
            )
        return
    if not placement.accelerated:
        raise Unsupported(
            f"{path.name}: no operator runs on {placement.device}; left on the CPU: {placement.left_text() or 'none'}",
            hint="build for a CPU target: the GPU would only be waited for",
        )
    check_placement(placement, options.least, path.name)
    if placement.left:
        log.warning("%s: %s", path.name, placement.text())


def _device(session: Any) -> str:
    """By which of a GPU's providers the session runs at best."""
    return "tensorrt" if nvidia.TENSORRT in session.get_providers() else "cuda"


def _session(path: Path, options: EngineOptions) -> Any:
    if options.device not in DEVICES:
        raise Unsupported(f"onnx engine has no device {options.device!r}", hint=f"use one of {', '.join(DEVICES)}")
    providers = [(CPU, {})] if options.device == "cpu" else nvidia.providers(path, options)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what goes wrong is raised, and told once
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spin)))
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", str(int(options.device != "cpu")))
    try:
        session = ort.InferenceSession(
            str(path), settings, providers=providers, disabled_optimizers=CRASHING, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's errors share no base class below Exception
        if options.device != "cpu" and (known := nvidia.unopened(error, path.name)) is not None:
            raise known from error
        raise Unsupported(f"{path.name} does not load in ONNX Runtime: {_first_line(error, path)}") from error
    took, wanted = session.get_providers(), [name for name, _ in providers]
    if wanted[0] not in took and wanted[-1] in took:
        log.warning("%s runs by %s: ONNX Runtime did not take %s", path.name, wanted[-1], wanted[0])
    elif wanted[0] not in took:  # it says so nowhere else
        raise Unsupported(
            f"{path.name}: ONNX Runtime did not take {wanted[0]} and would run on {', '.join(took)}",
            hint=nvidia.LOOK,
        )
    return session


def _specs(session: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    sides: Sequence[Any] = (session.get_inputs(), session.get_outputs())
    inputs, outputs = (tuple(map(_spec, side)) for side in sides)
    return inputs, outputs


def _spec(value: Any) -> TensorSpec:
    dtype = DTYPES.get(value.type) or value.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(value.name, dtype, tuple(n if isinstance(n, int) else None for n in value.shape or ()))


def _first_line(error: Exception, path: Path) -> str:
    lines = str(error).replace(str(path), path.name).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

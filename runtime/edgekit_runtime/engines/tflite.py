"""LiteRT (or its ancestor tflite-runtime, the only engine with a 32-bit ARM wheel) as an engine: opens `.tflite` files.

Refuses a file with operators that the interpreter lacks, empty inputs, and any device but the CPU."""

from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.engines import EngineOptions, Specs
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.muted import muted
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec

try:
    from ai_edge_litert.interpreter import Interpreter
except ModuleNotFoundError as missing:
    if missing.name is not None and missing.name.split(".")[0] != "ai_edge_litert":
        raise
    try:
        from tflite_runtime.interpreter import Interpreter
    except ModuleNotFoundError:
        raise missing from None  # the one to install


def open_model(path: Path, options: EngineOptions) -> Runner:
    """A runner over one interpreter; free dimensions are resized when a feed's shape changes."""
    if options.device != "cpu":
        raise Unsupported(f"tflite engine has no device {options.device!r}", hint="use device 'cpu'")
    interpreter = _interpreter(path, options.threads)
    inputs = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
    outputs = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    shapes: dict[str, tuple[int, ...]] = {}
    allocated = False

    def allocate(wanted: dict[str, tuple[int, ...]]) -> None:
        nonlocal allocated
        allocated = False
        for name, shape in wanted.items():
            interpreter.resize_tensor_input(inputs[name], shape, strict=True)
        interpreter.allocate_tensors()
        shapes.update(wanted)
        allocated = True

    def run(feeds: Feeds) -> Feeds:
        wanted = {name: feeds[name].shape for name in inputs}
        if any(0 in shape for shape in wanted.values()):  # some kernels divide by it: the process would end
            raise Unsupported(f"{path.name}: LiteRT does not run empty inputs")
        try:
            if not allocated or wanted != shapes:
                allocate(wanted)
            for name, index in inputs.items():
                interpreter.set_tensor(index, feeds[name])
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise Unsupported(f"{path.name} does not run in LiteRT: {' '.join(str(error).split())[:300]}") from error
        return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return run


def read_specs(path: Path) -> Specs:
    """Inputs and outputs of the file; a -1 in the shape signature is free; integers carry scale and zero point."""
    interpreter = _interpreter(path, 1)
    return (
        tuple(map(_spec, interpreter.get_input_details())),
        tuple(map(_spec, interpreter.get_output_details())),
    )


def _interpreter(path: Path, threads: int) -> Any:
    try:
        with muted():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise Unsupported(f"{path.name} does not load in LiteRT: {' '.join(str(error).split())[:300]}") from error
    return interpreter


def _spec(detail: dict[str, Any]) -> TensorSpec:
    signature = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"]).name
    real = scale == 0.0 or not np.issubdtype(np.dtype(dtype), np.integer)
    return TensorSpec(
        detail["name"],
        dtype,
        tuple(None if n < 0 else int(n) for n in signature),
        None if real else float(scale),
        None if real else int(zero_point),
    )

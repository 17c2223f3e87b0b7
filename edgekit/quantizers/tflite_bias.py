"""Bias correction for a quantized TFLite file: what rounding the weights adds to each output channel on average,
taken out of the bias (Nagel et al. 2019, 4.2).

Refuses nothing; a layer without a bias, or whose weights stayed in float, is left as it is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from edgekit_runtime.tensors import Array, Feeds

from edgekit.quantizers.tflite_graph import Graph, read_graph, whole
from edgekit.quantizers.tflite_statistics import every_tensor

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
NUMPY = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT32: np.int32,
}


@dataclass(frozen=True)
class Layer:
    """A layer by its result: the operator, the tensors of its file, and the names of its input and result."""

    kind: str
    op: Any
    tensors: list[Any]
    taken: str
    result: str

    def constant(self, slot: int) -> Any | None:
        """The tensor at an input; None where there is none."""
        there = len(self.op.inputs) > slot and self.op.inputs[slot] >= 0
        return self.tensors[self.op.inputs[slot]] if there else None


def corrected(source: Graph, content: bytes, samples: Iterable[Feeds]) -> bytes:
    """The quantized file `content` with corrected biases; `samples` go through the float `source`.

    With x the mean input at each place of the kernel, the rounded weights add (W' - W) x to a channel
    before its activation. That is exact for the layer alone, padding included.
    """
    source, made, pairs = _pairs(source, content)
    means = _mean_inputs(source, [before for before, _ in pairs], samples)
    for before, after in pairs:
        if before.result in means:
            change = _value(made, after.constant(1)) - _value(source, before.constant(1))
            _shift(made, after, -_applied(after.kind, change, means[before.result]))
    return bytes(flatbuffer_utils.convert_object_to_bytearray(made.model))


def unsaturated(source: Graph, content: bytes) -> bytes:
    """The quantized file with coarser scales for channels whose weights are almost zero: the tool fits the scale to
    the weights alone, and the bias, which shares it, would not fit into 32 bits and be cut off."""
    source, made, pairs = _pairs(source, content)
    cut = 0
    for before, after in pairs:
        weights, bias = after.constant(1), after.constant(2)
        assert weights is not None
        assert bias is not None
        if bias.type != schema.TensorType.INT32:
            continue
        scales = [np.asarray(tensor.quantization.scale, np.float64) for tensor in (weights, bias)]
        if scales[0].size != scales[1].size or not scales[1].all():
            continue
        wanted = np.abs(_value(source, before.constant(2)))
        grow = np.where(wanted >= scales[1] * (2.0**31 - 2), wanted / (scales[1] * 2.0**30), 1.0)
        if (grow > 1).any():
            cut += 1
            _coarser(made, weights, grow)
            _coarser(made, bias, grow, _value(source, before.constant(2)))
    return bytes(flatbuffer_utils.convert_object_to_bytearray(made.model)) if cut else content


def _coarser(graph: Graph, tensor: Any, grow: Array, wanted: Array | None = None) -> None:
    """Multiply the scales, and hold the same numbers, or those `wanted` where a scale grew."""
    value = _value(graph, tensor)
    if wanted is not None:
        value = np.where(grow > 1, wanted, value)
    tensor.quantization.scale = (np.asarray(tensor.quantization.scale) * grow).astype(np.float32)
    axes = [1] * value.ndim
    axes[tensor.quantization.quantizedDimension] = -1
    steps = np.rint(value / np.asarray(tensor.quantization.scale, np.float64).reshape(axes))
    graph.model.buffers[tensor.buffer].data = steps.astype(NUMPY[tensor.type]).reshape(-1).view(np.uint8)


def _pairs(source: Graph, content: bytes) -> tuple[Graph, Graph, list[tuple[Layer, Layer]]]:
    """Both files with their constants at hand, and the layers whose bias can be changed, in float and quantized."""
    made = read_graph(content)
    source, made = replace(source, model=whole(source)), replace(made, model=whole(made))
    floats = {layer.result: layer for layer in _layers(source)}
    both = [(floats[layer.result], layer) for layer in _layers(made) if layer.result in floats]
    return source, made, [(before, after) for before, after in both if _correctable(made, after)]


def _layers(graph: Graph) -> Iterator[Layer]:
    main = graph.model.subgraphs[0]
    for op in main.operators:
        kind = graph.op_name(op)
        if kind in LAYERS:
            taken, result = (main.tensors[index].name.decode() for index in (op.inputs[0], op.outputs[0]))
            yield Layer(kind, op, main.tensors, taken, result)


def _correctable(graph: Graph, layer: Layer) -> bool:
    """Whether the weights are int8 and there is a bias to shift, which no other layer uses."""
    weights, bias = layer.constant(1), layer.constant(2)
    if weights is None or bias is None or weights.type != schema.TensorType.INT8 or bias.type not in NUMPY:
        return False
    uses = sum(list(op.inputs).count(layer.op.inputs[2]) for op in graph.model.subgraphs[0].operators)
    return graph.is_constant(weights) and graph.is_constant(bias) and uses == 1


def _mean_inputs(graph: Graph, layers: list[Layer], samples: Iterable[Feeds]) -> Mapping[str, Array]:
    """For each layer, by its result, the mean of its input under every place of the kernel: [height, width, channels]
    of the kernel, or [inputs] of a dense layer."""
    sums: dict[str, Array] = {}
    count = 0
    for tensors in every_tensor(graph, graph.content, samples):
        count += 1
        for layer in layers:
            if layer.taken in tensors:
                mean = _under_kernel(layer, tensors[layer.taken]).astype(np.float64)
                sums[layer.result] = sums[layer.result] + mean if layer.result in sums else mean
    return {name: total / count for name, total in sums.items()}


def _under_kernel(layer: Layer, value: Array) -> Array:
    weights = layer.constant(1)
    assert weights is not None
    if layer.kind == "FULLY_CONNECTED":
        return np.asarray(value.reshape(-1, int(weights.shape[1])).mean(0))
    options, (height, width) = layer.op.builtinOptions, (int(n) for n in weights.shape[1:3])
    steps = ((options.strideH, options.dilationHFactor, height), (options.strideW, options.dilationWFactor, width))
    padding, spans = [(0, 0)], []
    for size, (stride, dilation, kernel) in zip(value.shape[1:3], steps, strict=True):
        reach = (kernel - 1) * dilation + 1
        places = -(-size // stride) if options.padding == schema.Padding.SAME else (size - reach) // stride + 1
        missing = max(0, (places - 1) * stride + reach - size) if options.padding == schema.Padding.SAME else 0
        padding.append((missing // 2, missing - missing // 2))
        spans.append([slice(k * dilation, k * dilation + (places - 1) * stride + 1, stride) for k in range(kernel)])
    padded = np.pad(value, [*padding, (0, 0)])
    return np.stack([np.stack([padded[:, rows, columns].mean((0, 1, 2)) for columns in spans[1]]) for rows in spans[0]])


def _applied(kind: str, weights: Array, mean: Array) -> Array:
    """The layer without bias and activation on the mean input: a value for each output channel."""
    if kind == "FULLY_CONNECTED":
        return np.asarray(weights @ mean)
    if kind == "DEPTHWISE_CONV_2D":
        return np.asarray((weights[0] * np.repeat(mean, weights.shape[3] // mean.shape[2], axis=2)).sum((0, 1)))
    groups = mean.shape[2] // weights.shape[3]
    parts = zip(np.split(weights, groups), np.split(mean, groups, axis=2), strict=True)
    return np.concatenate([np.tensordot(some, part, 3) for some, part in parts])


def _value(graph: Graph, tensor: Any) -> Array:
    """A constant in real numbers."""
    data = np.asarray(graph.model.buffers[tensor.buffer].data, np.uint8).view(NUMPY[tensor.type])
    value = data.reshape(tensor.shape).astype(np.float64)
    if tensor.type == schema.TensorType.FLOAT32:
        return value
    axes = [1] * value.ndim
    axes[tensor.quantization.quantizedDimension] = -1
    return np.asarray(value * np.asarray(tensor.quantization.scale, np.float64).reshape(axes if value.ndim else ()))


def _shift(graph: Graph, layer: Layer, by: Array) -> None:
    """Add to the bias, in its own type."""
    bias = layer.constant(2)
    assert bias is not None
    buffer, kind = graph.model.buffers[bias.buffer], NUMPY[bias.type]
    value = np.asarray(buffer.data, np.uint8).view(kind)
    if kind is np.int32:
        scale = np.asarray(bias.quantization.scale, np.float64)
        by = np.rint(np.divide(by.reshape(-1), scale, out=np.zeros(by.size), where=scale > 0))
    limits = np.iinfo(np.int32) if kind is np.int32 else np.finfo(np.float32)
    made = np.clip(value.astype(np.float64) + by.reshape(-1), limits.min, limits.max).astype(kind)
    buffer.data = made.view(np.uint8)

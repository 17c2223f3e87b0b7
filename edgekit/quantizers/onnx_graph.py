"""Look into an ONNX graph and store one: nodes of subgraphs, constants, the weights and who uses them.

Refuses nothing; every function is small because protobuf graphs know nothing by themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from edgekit_runtime.tensors import Array
from onnx import numpy_helper

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "LSTM", "GRU", "RNN"}
"""Operators whose constant inputs of two or more dimensions are weights."""

INTEGER_OPS = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm"),
    *("ConvInteger", "MatMulInteger", "MatMulNBits", "GatherBlockQuantized", "DynamicQuantizeLSTM"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
}
LARGE = 1_800_000_000
"""Bytes of weights from which a protobuf file (2 GiB at most) keeps them beside it."""


@dataclass(frozen=True)
class Weight:
    """A float constant that weighted operators use: its number of elements, and one operator name for each use."""

    size: int
    users: tuple[str, ...]


def load(path: Path) -> onnx.ModelProto:
    """The model with all external data in memory."""
    return onnx.load(str(path))


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model; weights too large for one file go beside it."""
    if model.ByteSize() < LARGE:
        onnx.save(model, str(path))
    else:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of the branches and bodies of control flow too."""
    for inner in all_graphs(graph):
        yield from inner.node


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_graphs(attribute.g)
            for inner in attribute.graphs:
                yield from all_graphs(inner)


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the tensors of Constant nodes of this graph, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def value(graph: onnx.GraphProto, name: str) -> Array | None:
    """A constant's numbers; None where `name` is computed."""
    tensor = constants(graph).get(name)
    return None if tensor is None else numpy_helper.to_array(tensor)


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A number among the node's attributes."""
    for found in node.attribute:
        if found.name == name:
            return float(onnx.helper.get_attribute_value(found))
    return default


def weights(model: onnx.ModelProto) -> dict[str, Weight]:
    """The float weights by name, of all graphs."""
    found: dict[str, Weight] = {}
    known: dict[str, onnx.TensorProto] = {}
    for graph in all_graphs(model.graph):
        known |= constants(graph)
        for node in graph.node:
            for name in node.input if node.op_type in WEIGHTED else ():
                tensor = known.get(name)
                if tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2:
                    users = found[name].users if name in found else ()
                    found[name] = Weight(int(np.prod(tensor.dims)), (*users, node.op_type))
    return found


def is_float16(model: onnx.ModelProto) -> bool:
    """Whether the weights are mostly in half precision."""
    sizes: dict[int, int] = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0, onnx.TensorProto.BFLOAT16: 0}
    for graph in all_graphs(model.graph):
        for tensor in constants(graph).values():
            if tensor.data_type in sizes:
                sizes[tensor.data_type] += int(np.prod(tensor.dims))
    return sum(sizes.values()) > 2 * sizes[onnx.TensorProto.FLOAT]


def replace_node(graph: onnx.GraphProto, old: onnx.NodeProto, new: list[onnx.NodeProto]) -> None:
    """Put `new` in the place of `old`, keeping the order that ONNX demands."""
    place = next(i for i, node in enumerate(graph.node) if node is old or node == old)
    del graph.node[place]
    for offset, node in enumerate(new):
        graph.node.insert(place + offset, node)

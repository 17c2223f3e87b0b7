"""Write every product with a constant matrix as Gemm: of MatMul onnx2tf makes a batched product, not a dense layer.

TFLite quantizes dense layers per channel and runs them fast; batched products it does not. Refuses nothing: a product
whose sizes are not fixed stays as it is."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, its shapes inferred, with Gemm (between two Reshapes where there are more than two axes) for
    each MatMul whose right side is a constant matrix; the Add of a constant vector after it becomes its bias."""
    made = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = made.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    sizes = {value.name: _size(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    kept = {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    swallowed: set[int] = set()
    for index, node in enumerate(graph.node):
        if index in swallowed:
            continue
        matrix = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        shape = sizes.get(node.input[0]) if matrix is not None else None
        if matrix is None or not shape or len(matrix.dims) != 2:
            nodes.append(node)
            continue
        users = [i for i, user in enumerate(graph.node) if node.output[0] in user.input]
        bias = _bias(graph.node[users[0]], node.output[0], constants) if len(users) == 1 else None
        last = node
        if bias is not None and node.output[0] not in kept:
            last = graph.node[users[0]]
            swallowed.add(users[0])
        else:
            bias = None
        nodes += _gemm(graph, node, shape, bias, last.output[0])
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def _gemm(
    graph: onnx.GraphProto, node: onnx.NodeProto, shape: list[int], bias: str | None, out: str
) -> list[onnx.NodeProto]:
    """The nodes that take the place of `node`."""
    rest, terms = node.input[0], [node.input[1], *([bias] if bias else [])]
    if len(shape) == 2:
        return [helper.make_node("Gemm", [rest, *terms], [out], name=f"{out}_dense")]
    columns = next(tensor.dims[1] for tensor in graph.initializer if tensor.name == node.input[1])
    flat, back = f"{out}_flat_shape", f"{out}_back_shape"
    graph.initializer.append(numpy_helper.from_array(np.array([-1, shape[-1]], np.int64), flat))
    graph.initializer.append(numpy_helper.from_array(np.array([*shape[:-1], columns], np.int64), back))
    return [
        helper.make_node("Reshape", [rest, flat], [f"{out}_flat"], name=f"{out}_flatten"),
        helper.make_node("Gemm", [f"{out}_flat", *terms], [f"{out}_rows"], name=f"{out}_dense"),
        helper.make_node("Reshape", [f"{out}_rows", back], [out], name=f"{out}_unflatten"),
    ]


def _bias(node: onnx.NodeProto, product: str, constants: dict[str, onnx.TensorProto]) -> str | None:
    """The constant vector that an Add puts on `product`; None where the node does something else."""
    if node.op_type != "Add":
        return None
    other = node.input[1] if node.input[0] == product else node.input[0]
    return other if other in constants and len(constants[other].dims) == 1 else None


def _size(value: onnx.ValueInfoProto) -> list[int]:
    """Its fixed shape; empty where a size is free or unknown."""
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value for d in dims] if all(d.HasField("dim_value") and d.dim_value > 0 for d in dims) else []

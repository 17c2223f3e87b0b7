"""ONNX passes that need no data: weights as int8 or as 4-bit blocks, everything in float16.

Refuses 4 bits where the model is not made of matrix products and embeddings, and graphs that half precision breaks."""

import numpy as np
import onnx
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array
from onnx import helper, numpy_helper

from edgekit.quantizers.onnx_graph import all_graphs, attribute, constants, replace_node, value, weights
from edgekit.quiet import last_line, quiet

SMALL = 256
"""Weights of fewer elements stay as they are: their scales would weigh as much."""

BLOCK = 32
AXES = {"Conv": (0,), "ConvTranspose": (1,), "LSTM": (0, 1), "GRU": (0, 1), "RNN": (0, 1), "Gather": (0,)}
"""The axes of a weight that have a scale for each index; matrix products: all but the one summed over."""


def weights_as_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every weight as int8 with a scale per channel, multiplied out by Cast and Mul when the session is made.

    Not DequantizeLinear: ONNX Runtime does not fold that one, works it out anew at every call and can no longer
    lay out the weights for its fast kernels. Cast and Mul are folded at load, so the latency is the float file's.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    known = weights(made)
    for graph in all_graphs(made.graph):
        users = {name: node for node in graph.node for name in node.input}
        new = []
        for name, tensor in constants(graph).items():
            if name in known and name in users and known[name].size >= SMALL:
                new += _int8(graph, numpy_helper.to_array(tensor), name, _axes_of(users[name], name, tensor))
        for node in reversed(new):
            graph.node.insert(0, node)
    return made


def _int8(graph: onnx.GraphProto, weight: Array, name: str, kept: tuple[int, ...]) -> list[onnx.NodeProto]:
    """Replace a constant by its integers and scales, and return the nodes that make it whole again."""
    rest = tuple(axis for axis in range(weight.ndim) if axis not in kept)
    scale = np.abs(weight).max(axis=rest, keepdims=True) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    integers = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
    for tensor in [tensor for tensor in graph.initializer if tensor.name == name]:
        graph.initializer.remove(tensor)
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] == name]:
        graph.node.remove(node)
    graph.initializer.append(numpy_helper.from_array(integers, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    return [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], name=f"{name}_cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name], name=f"{name}_mul"),
    ]


def _axes_of(node: onnx.NodeProto, name: str, tensor: onnx.TensorProto) -> tuple[int, ...]:
    if node.op_type in AXES:
        return AXES[node.op_type]
    rank = len(tensor.dims)
    first = node.input[0] == name
    if node.op_type == "Gemm":
        turned = attribute(node, "transA" if first else "transB", 0)
        return (int(not turned) if not first else int(bool(turned)),)
    summed = rank - 1 if first else rank - 2
    return tuple(axis for axis in range(rank) if axis != summed)


def four_bit(model: onnx.ModelProto) -> onnx.ModelProto:
    """Matrix products and embeddings in symmetric 4-bit blocks of 32, by ONNX Runtime's own operators."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    made = onnx.ModelProto()
    made.CopyFrom(model)
    _matmul_for_gemm(made.graph)
    try:
        with quiet():
            quantizer = MatMulNBitsQuantizer(
                made,
                bits=4,
                block_size=BLOCK,
                is_symmetric=True,
                op_types_to_quantize=("MatMul", "Gather"),
                quant_axes=(("MatMul", 0), ("Gather", 1)),
            )
            quantizer.process()
    except Exception as error:  # the library raises whatever it meets
        raise Unsupported(
            f"ONNX Runtime cannot write 4-bit weights: {last_line(error)}", hint="use --precision int8-weights"
        ) from error
    result: onnx.ModelProto = quantizer.model.model
    return result


def _matmul_for_gemm(graph: onnx.GraphProto) -> None:
    """A plain Gemm as MatMul and Add: only MatMul has a 4-bit kernel. The weight keeps its name."""
    for node in [node for node in graph.node if node.op_type == "Gemm"]:
        plain = attribute(node, "alpha", 1) == attribute(node, "beta", 1) == 1 and not attribute(node, "transA", 0)
        users = [user for user in graph.node if node.input[1] in user.input]
        weight = value(graph, node.input[1])
        if not plain or weight is None or len(users) != 1:
            continue
        if attribute(node, "transB", 0):
            tensor = constants(graph)[node.input[1]]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight.T), tensor.name))
        name, out = node.name or node.output[0], node.output[0]
        product = f"{name}_product" if len(node.input) > 2 else out
        new = [helper.make_node("MatMul", list(node.input[:2]), [product], name=f"{name}_matmul")]
        if len(node.input) > 2:
            new.append(helper.make_node("Add", [product, node.input[2]], [out], name=f"{name}_add"))
        replace_node(graph, node, new)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in float16, inputs and outputs as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for graph in all_graphs(model.graph):
        for name, tensor in constants(graph).items():
            if tensor.data_type == onnx.TensorProto.FLOAT and _largest(tensor) > np.finfo(np.float16).max:
                raise Unsupported(f"{name} is beyond float16's range", hint="use --precision float32 or int8-weights")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with quiet():
            made: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    except Exception as error:  # the library raises whatever it meets
        raise Unsupported(
            f"float16 cannot be had: {last_line(error)}", hint="use --precision float32 or int8-weights"
        ) from error
    return made


def _largest(tensor: onnx.TensorProto) -> float:
    """The largest finite magnitude; the library would cut it off at 65504 without a word."""
    value = np.abs(numpy_helper.to_array(tensor))
    return float(np.max(value, initial=0.0, where=np.isfinite(value)))

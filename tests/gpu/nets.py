"""Small convolutional networks for a GPU, in float32, float16 and int8, of fixed or free batches, made from a seed.

Refuses nothing; Det is in one of them, which neither CUDA nor OpenVINO has a kernel for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from edgekit_runtime.tensors import Array
from onnx import TensorProto, helper, numpy_helper

from edgekit.quantizers.onnx_weights import half

SIDE = 32


def photos(rows: int, side: int = SIDE, seed: int = 0) -> Array:
    """`rows` inputs."""
    return np.random.default_rng(seed).random((rows, 3, side, side), np.float32)


def cnn(batch: int | str = "batch", side: int = SIDE, width: int = 32, depth: int = 3) -> onnx.ModelProto:
    """x [batch, 3, side, side] -> y [batch, 10]: convolutions, each with its ReLU, then a mean and a linear layer."""
    rng, nodes, weights, last, channels = np.random.default_rng(1), [], [], "x", 3
    for layer in range(depth):
        kernel = rng.normal(0, np.sqrt(2 / (9 * channels)), (width, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last, channels = f"r{layer}", width
    weights.append(numpy_helper.from_array(rng.normal(0, 1, (width, 10)).astype(np.float32), "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return _model(nodes, weights, batch, side, [batch, 10])


def with_det(batch: int | str = "batch") -> onnx.ModelProto:
    """Conv, Relu, twice a determinant, Add and Sigmoid."""
    kernel = np.random.default_rng(2).normal(size=(8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Det", ["r"], ["one"]),
        helper.make_node("Det", ["c"], ["other"]),
        helper.make_node("Add", ["one", "other"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["y"]),
    ]
    return _model(nodes, [numpy_helper.from_array(kernel, "w")], batch, 8, [batch, 8])


def write(folder: Path, precision: str = "float32", model: onnx.ModelProto | None = None) -> Path:
    """The network as a file of that precision."""
    model = model or cnn()
    path = folder / f"{precision}.onnx"
    if precision == "int8":
        return _int8(model, path)
    onnx.save(half(model) if precision == "float16" else model, path)
    return path


def _int8(model: onnx.ModelProto, path: Path) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    shape = [axis.dim_value or 1 for axis in model.graph.input[0].type.tensor_type.shape.dim]

    class Photos(CalibrationDataReader):  # type: ignore[misc]
        """A few inputs, one by one."""

        def __init__(self) -> None:
            self._left: Iterator[Array] = iter([photos(shape[0], shape[2], seed) for seed in range(8)])

        def get_next(self) -> dict[str, Array] | None:
            """The next."""
            return next(({"x": one} for one in self._left), None)

    plain = path.with_suffix(".float32.onnx")
    onnx.save(model, plain)
    quantize_static(str(plain), str(path), Photos(), weight_type=QuantType.QInt8, activation_type=QuantType.QInt8)
    plain.unlink()
    return path


def _model(
    nodes: list[onnx.NodeProto], weights: list[TensorProto], batch: int | str, side: int, answer: list[int | str]
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, answer)
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

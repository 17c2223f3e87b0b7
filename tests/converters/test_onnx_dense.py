"""Products with a constant matrix become dense layers, and answer the same."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.converters.onnx_dense import dense

CHANCE = np.random.default_rng(0)


def product(shape: list[int | str], *, bias: str | None = "after", matrix: bool = True) -> onnx.ModelProto:
    weight = CHANCE.normal(size=(6, 4)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.arange(4, dtype=np.float32), "b")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if not matrix:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [6, 4]))
        constants = constants[1:]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y" if bias is None else "p"])]
    if bias is not None:
        nodes.append(helper.make_node("Add", ["p", "b"] if bias == "after" else ["b", "p"], ["y"]))
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize("shape", [[3, 6], [2, 3, 6], [1, 2, 3, 6]])
@pytest.mark.parametrize("bias", [None, "after", "before"])
def test_a_product_with_a_matrix_is_one_gemm_and_answers_the_same(shape: list[int], bias: str | None) -> None:
    model = product(list(shape), bias=bias)
    x = CHANCE.normal(size=shape).astype(np.float32)
    made = dense(model)
    ops = [node.op_type for node in made.graph.node]
    assert ops == (["Gemm"] if len(shape) == 2 else ["Reshape", "Gemm", "Reshape"])
    np.testing.assert_allclose(answer(made, x), answer(model, x), rtol=1e-5, atol=1e-6)


def test_free_sizes_and_computed_matrices_stay_as_they_are() -> None:
    assert [node.op_type for node in dense(product(["n", 2, 6])).graph.node] == ["MatMul", "Add"]
    assert [node.op_type for node in dense(product([3, 6], matrix=False)).graph.node] == ["MatMul", "Add"]


def test_a_product_that_is_an_output_keeps_its_bias_apart() -> None:
    model = product([3, 6])
    model.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, None))
    assert [node.op_type for node in dense(model).graph.node] == ["Gemm", "Add"]

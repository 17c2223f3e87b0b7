"""LSTM and GRU written out step by step answer as ONNX Runtime's own do; what cannot be written out is refused."""

from itertools import product

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from edgekit_runtime.errors import Unsupported
from onnx import TensorProto, helper, numpy_helper

from edgekit.converters.onnx_unroll import MOST, unroll

STEPS, BATCH, WIDTH, HIDDEN = 5, 2, 3, 4
GATES = {"LSTM": 4, "GRU": 3}


def recurrent(
    op: str, direction: str = "forward", opset: int = 18, steps: int = STEPS, **more: object
) -> onnx.ModelProto:
    """A model of one recurrent node with all its outputs; `states`, `bias` and `lengths` give it those inputs."""
    chance = np.random.default_rng(0)
    ways, gates = (2 if direction == "bidirectional" else 1), GATES[op]
    arrays = {
        "w": chance.standard_normal((ways, gates * HIDDEN, WIDTH)),
        "r": chance.standard_normal((ways, gates * HIDDEN, HIDDEN)),
        "b": chance.standard_normal((ways, 2 * gates * HIDDEN)),
    }
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    states = ["h", "c"][: 2 if op == "LSTM" else 1] if more.pop("states", True) else []
    lengths = more.pop("lengths", None)
    if lengths is not None:
        constants.append(numpy_helper.from_array(np.array(lengths, np.int32), "lengths"))
    inputs = ["x", "w", "r", "b" if more.pop("bias", True) else "", "lengths" if lengths is not None else "", *states]
    outputs = ["y", "y_h", "y_c"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, inputs, outputs, op, hidden_size=HIDDEN, direction=direction, **more)
    graph = helper.make_graph(
        [node],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, BATCH, WIDTH])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, [ways, BATCH, HIDDEN]) for name in states],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * (4 - (name != "y"))) for name in outputs],
        constants,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    """What the model makes of the same random inputs."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(1)
    feeds = {put.name: chance.standard_normal(put.shape).astype(np.float32) for put in session.get_inputs()}
    return list(session.run(None, feeds))


def assert_same(model: onnx.ModelProto) -> None:
    """The written-out model is valid, has no recurrent node and answers the same."""
    made = unroll(model)
    onnx.checker.check_model(made)
    assert not {node.op_type for node in made.graph.node} & GATES.keys()
    for want, got in zip(answers(model), answers(made), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize(
    ("op", "direction", "states"),
    list(product(GATES, ("forward", "reverse", "bidirectional"), (True, False))),
)
def test_every_direction_answers_the_same(op: str, direction: str, states: bool) -> None:
    assert_same(recurrent(op, direction, states=states))


@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@pytest.mark.parametrize("op", GATES)
def test_every_opset_answers_the_same(op: str, opset: int) -> None:
    assert_same(recurrent(op, "bidirectional", opset))


@pytest.mark.parametrize("reset", [0, 1])
def test_a_gru_that_resets_before_or_after_its_product_answers_the_same(reset: int) -> None:
    assert_same(recurrent("GRU", "bidirectional", linear_before_reset=reset))


@pytest.mark.parametrize("op", GATES)
def test_no_bias_is_a_bias_of_zero(op: str) -> None:
    assert_same(recurrent(op, bias=False))


def test_lengths_that_are_all_the_full_length_and_activations_that_are_the_usual_ones_are_nothing_special() -> None:
    assert_same(recurrent("LSTM", lengths=[STEPS, STEPS], activations=["Sigmoid", "Tanh", "Tanh"]))


def test_a_model_without_recurrence_is_left_as_it_is() -> None:
    model = recurrent("GRU")
    model.graph.node[0].op_type = "Else"
    assert unroll(model) is model


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"clip": 1.0}, "it sets clip"),
        ({"activations": ["Relu", "Tanh", "Tanh"]}, "activations"),
        ({"lengths": [STEPS, 2]}, "lengths of their own"),
        ({"steps": None}, "number of steps is not fixed"),
        ({"steps": MOST + 1}, f"more than {MOST}"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(more: dict[str, object], why: str) -> None:
    with pytest.raises(Unsupported, match=why) as caught:
        unroll(recurrent("LSTM", **more))  # type: ignore[arg-type]
    assert "LSTM node 'LSTM'" in caught.value.what
    assert "--format onnx" in caught.value.hint


def test_weights_that_are_computed_are_refused() -> None:
    model = recurrent("GRU")
    model.graph.node.insert(0, helper.make_node("Identity", ["w"], ["v"]))
    model.graph.node[1].input[1] = "v"
    with pytest.raises(Unsupported, match="not constants"):
        unroll(model)

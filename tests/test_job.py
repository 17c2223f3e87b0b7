"""Opening an order: which output is judged, and what the data must fit."""

from edgekit_runtime.tensors import TensorSpec

from edgekit.job import Order, _primary
from edgekit.model import Facts, Model, Origin

SCORES, BEST = TensorSpec("scores", "float32", (None, 3)), TensorSpec("best", "int64", (None,))


def test_the_first_output_of_real_numbers_is_judged_not_a_class_number_before_it() -> None:
    x = TensorSpec("x", "float32", (None, 3))
    model = Model("m", "onnx", {}, (x,), (BEST, SCORES), {}, lambda feeds: {}, Facts({}, 0, 0))
    assert _primary(Order(Origin("m.onnx"), ()), model) == SCORES
    assert _primary(Order(Origin("m.onnx"), (), output="best"), model) == BEST

"""Look into an OpenVINO graph: which weights are stored how, and whether it attends.

Refuses nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.quantizers.coverage import Coverage

INTEGERS = {"i8", "u8", "i4", "u4", "i2", "u2"}
THROUGH = {"Convert", "Reshape", "Transpose", "FakeQuantize", "Multiply", "Subtract", "Squeeze", "Unsqueeze"}
"""What may stand between a stored weight and the operator that uses it."""

WEIGHTED = {
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul", "Gather"),
    *("LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell"),
}


@dataclass(frozen=True)
class Storage:
    """The weights of a model: those in float as name -> (elements, operator), and how many elements are integers."""

    floats: Mapping[str, tuple[int, str]]
    integers: int
    half: bool


def storage(model: Any) -> Storage:
    """How the weights of `model` are stored."""
    floats: dict[str, tuple[int, str]] = {}
    integers = halves = 0
    for op in all_ops(model):
        if op.get_type_name() != "Constant" or len(op.get_output_shape(0)) < 2:
            continue
        kind, used_by = op.get_output_element_type(0).get_type_name(), user(op)
        size = 1
        for n in op.get_output_shape(0):
            size *= int(n)
        if used_by in WEIGHTED and kind in INTEGERS:
            integers += size
        elif used_by in WEIGHTED and kind in ("f32", "f16", "bf16"):
            floats[op.get_friendly_name()] = (size, used_by)
            halves += size if kind != "f32" else 0
    return Storage(floats, integers, 2 * halves > sum(size for size, _ in floats.values()))


def coverage(before: Storage, after: Storage) -> Coverage:
    """Which of the float weights of `before` became integers."""
    total = sum(size for size, _ in before.floats.values())
    left = [held for name, held in after.floats.items() if before.floats.get(name, (0, ""))[0] == held[0]]
    return Coverage(total, total - sum(size for size, _ in left), Counter(op for _, op in left))


def attends(model: Any) -> bool:
    """Whether the graph holds attention: its own operator, or a softmax and a product of two computed tensors."""
    kinds = Counter(op.get_type_name() for op in model.get_ops())
    products = (op for op in model.get_ops() if op.get_type_name() == "MatMul")
    computed = any(all(_is_computed(op.input_value(i).get_node()) for i in (0, 1)) for op in products)
    return bool(kinds["ScaledDotProductAttention"]) or bool(kinds["Softmax"] and computed)


def _is_computed(node: Any) -> bool:
    while node.get_type_name() in THROUGH:
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() != "Constant")


def user(op: Any) -> str:
    """The kind of the first operator that uses this constant, past what only changes its form."""
    while targets := list(op.output(0).get_target_inputs()):
        op = targets[0].get_node()
        if op.get_type_name() not in THROUGH:
            return str(op.get_type_name())
    return ""


def all_ops(model: Any) -> list[Any]:
    """The operators of the model and of the bodies of its loops and branches."""
    found = list(model.get_ops())
    for op in list(found):
        for index in range(op.get_internal_subgraphs_size() if hasattr(op, "get_internal_subgraphs_size") else 0):
            found += all_ops(op.get_function(index))
    return found

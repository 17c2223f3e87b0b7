"""LSTM and GRU nodes of a static ONNX graph written out step by step, for formats that keep no state between calls.

Refuses what it would have to guess: unknown or too many steps, weights that are not constants, rare attributes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array
from onnx import helper, numpy_helper

MOST = 512
"""Beyond this many steps, of all nodes and directions together, the graph is too large to be of use on a device."""

GATES = {"LSTM": 4, "GRU": 3}
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"]}
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
RARE = {"clip", "input_forget", "activation_alpha", "activation_beta"}

Step = Callable[[str, list[str]], list[str]]
"""From the name of one step's share of the input and the names of the states to those of the new states, h first."""


def unroll(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without LSTM and GRU nodes in its main graph. Its input shapes must be fixed.

    Raises:
        Unsupported: a node cannot be written out; says which and why.
    """
    if not any(node.op_type in GATES for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    del made.graph.node[:], made.graph.value_info[:]
    steps = 0
    for index, node in enumerate(model.graph.node):
        if node.op_type in GATES:
            layer = _parsed(node, shapes, constants)
            steps += layer.steps * len(layer.directions)
            if steps > MOST:
                raise _refusal(node, f"with it there are {steps} steps, more than {MOST}")
            pen = _Pen(f"{node.name or node.op_type}_{index}_", opset)
            _write(pen, layer)
            made.graph.node.extend(pen.nodes)
            made.graph.initializer.extend(pen.constants)
        else:
            made.graph.node.append(node)
    return made


@dataclass(frozen=True)
class _Recurrent:
    """One LSTM or GRU node, understood. Weights have their directions first."""

    op: str
    outputs: tuple[str, ...]
    sequence: str
    steps: int
    batch: int
    directions: tuple[bool, ...]
    kernel: Array
    recurrent: Array
    bias: Array
    states: tuple[str, ...]
    reset_last: bool

    @property
    def hidden(self) -> int:
        return int(self.recurrent.shape[2])


@dataclass
class _Pen:
    """Writes nodes and constants under names that no other node has."""

    prefix: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __call__(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [name], name=f"{self.prefix}{op}_{len(self.nodes)}", **attributes)
        )
        return name

    def constant(self, value: Array) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def reshape(self, value: str, *shape: int) -> str:
        return self("Reshape", value, self.constant(np.array(shape, np.int64)))

    def split(self, value: str, axis: int, parts: int, size: int) -> list[str]:
        names = [f"{self.prefix}{len(self.nodes)}_{part}" for part in range(parts)]
        sizes = [size] * parts
        if self.opset < 13:
            self.nodes.append(helper.make_node("Split", [value], names, axis=axis, split=sizes))
        else:
            second = self.constant(np.array(sizes, np.int64))
            self.nodes.append(helper.make_node("Split", [value, second], names, axis=axis))
        return names


def _parsed(node: onnx.NodeProto, shapes: dict[str, list[int]], constants: dict[str, onnx.TensorProto]) -> _Recurrent:
    """The node's meaning, or `Unsupported` with what is in the way."""
    said = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    direction = said.get("direction", b"forward").decode()
    names = [*node.input, *[""] * 8]
    activations = [word.decode().lower() for word in said.get("activations", [])]
    wanted = ACTIVATIONS[node.op_type] * len(DIRECTIONS[direction])
    sequence = shapes.get(names[0], [])
    if rare := sorted(name for name in RARE & said.keys() if said[name]):
        raise _refusal(node, f"it sets {', '.join(rare)}")
    if said.get("layout", 0) or activations not in ([], wanted) or names[7]:
        raise _refusal(node, "it has layout 1, peepholes or activations other than sigmoid and tanh")
    if len(sequence) != 3 or not all(sequence):
        raise _refusal(node, "its number of steps is not fixed")
    arrays = {name: numpy_helper.to_array(constants[name]) for name in names[1:5] if name in constants}
    if names[1] not in arrays or names[2] not in arrays or (names[3] and names[3] not in arrays):
        raise _refusal(node, "its weights are not constants")
    if names[4] and (names[4] not in arrays or np.any(arrays[names[4]] != sequence[0])):
        raise _refusal(node, "its sequences have lengths of their own")
    kernel, recurrent = arrays[names[1]], arrays[names[2]]
    return _Recurrent(
        op=node.op_type,
        outputs=tuple(node.output),
        sequence=names[0],
        steps=sequence[0],
        batch=sequence[1],
        directions=DIRECTIONS[direction],
        kernel=kernel,
        recurrent=recurrent,
        bias=arrays.get(names[3], np.zeros((len(kernel), 2 * kernel.shape[1]), kernel.dtype)),
        states=(names[5], names[6]) if node.op_type == "LSTM" else (names[5],),
        reset_last=bool(said.get("linear_before_reset", 0)),
    )


def _refusal(node: onnx.NodeProto, why: str) -> Unsupported:
    return Unsupported(
        f"{node.op_type} node {node.name!r} cannot be written out step by step: {why}",
        hint="use --format onnx or --format openvino",
    )


def _write(pen: _Pen, layer: _Recurrent) -> None:
    """All steps of all directions, joined into the node's own outputs: Y, Y_h and, of an LSTM, Y_c."""
    hidden, ways = layer.hidden, len(layer.directions)
    starts = [_starts(pen, layer, state) for state in layer.states]
    flat = pen.reshape(layer.sequence, -1, layer.kernel.shape[2])
    every: list[list[str]] = []
    last: list[list[str]] = []
    for way, backward in enumerate(layer.directions):
        step, bias = _step(pen, layer, way)
        share = pen("Gemm", flat, pen.constant(layer.kernel[way]), pen.constant(bias), transB=1)
        shares = pen.split(share, 0, layer.steps, layer.batch)
        states = [start[way] for start in starts]
        answers = []
        for share in reversed(shares) if backward else shares:
            states = step(share, states)
            answers.append(pen.reshape(states[0], 1, 1, layer.batch, hidden))
        every.append(answers[::-1] if backward else answers)
        last.append([pen.reshape(state, 1, layer.batch, hidden) for state in states])
    for place, output in enumerate(layer.outputs):
        if output and place == 0:
            along = [pen("Concat", *answers, axis=0) for answers in every]
            _joined(pen, along, 1, output)
        elif output:
            _joined(pen, [last[way][place - 1] for way in range(ways)], 0, output)


def _joined(pen: _Pen, parts: Sequence[str], axis: int, output: str) -> None:
    pen("Concat", *parts, axis=axis, output=output) if len(parts) > 1 else pen("Identity", *parts, output=output)


def _starts(pen: _Pen, layer: _Recurrent, state: str) -> list[str]:
    """The first value of a state, one name per direction: zeros where the node says nothing."""
    ways = len(layer.directions)
    if not state:
        return [pen.constant(np.zeros((layer.batch, layer.hidden), layer.kernel.dtype))] * ways
    parts = pen.split(state, 0, ways, 1) if ways > 1 else [state]
    return [pen.reshape(part, layer.batch, layer.hidden) for part in parts]


def _step(pen: _Pen, layer: _Recurrent, way: int) -> tuple[Step, Array]:
    """The function that writes one step, and the bias that belongs to the input's share."""
    recurrent = layer.recurrent[way]
    ours, theirs = np.split(layer.bias[way], 2)
    if layer.op == "LSTM":
        return partial(_lstm, pen, pen.constant(recurrent), layer.hidden), ours + theirs
    gates, candidate = np.split(theirs, [2 * layer.hidden])
    if layer.reset_last:
        weights = pen.constant(recurrent), pen.constant(np.concatenate([0 * gates, candidate]))
        return partial(_gru_reset_last, pen, weights, layer.hidden), ours + np.concatenate([gates, 0 * candidate])
    halves = np.split(recurrent, [2 * layer.hidden])
    weights = pen.constant(halves[0]), pen.constant(halves[1])
    return partial(_gru_reset_first, pen, weights, layer.hidden), ours + theirs


def _lstm(pen: _Pen, weights: str, hidden: int, share: str, states: list[str]) -> list[str]:
    h, c = states
    gates = pen("Add", share, pen("Gemm", h, weights, transB=1))
    enter, leave, keep, new = pen.split(gates, 1, 4, hidden)
    kept = pen("Mul", pen("Sigmoid", keep), c)
    c = pen("Add", kept, pen("Mul", pen("Sigmoid", enter), pen("Tanh", new)))
    return [pen("Mul", pen("Sigmoid", leave), pen("Tanh", c)), c]


def _gru_reset_last(pen: _Pen, weights: tuple[str, str], hidden: int, share: str, states: list[str]) -> list[str]:
    (h,) = states
    update_x, reset_x, new_x = pen.split(share, 1, 3, hidden)
    update_h, reset_h, new_h = pen.split(pen("Gemm", h, *weights, transB=1), 1, 3, hidden)
    reset = pen("Sigmoid", pen("Add", reset_x, reset_h))
    new = pen("Tanh", pen("Add", new_x, pen("Mul", reset, new_h)))
    return [_blended(pen, pen("Sigmoid", pen("Add", update_x, update_h)), new, h)]


def _gru_reset_first(pen: _Pen, weights: tuple[str, str], hidden: int, share: str, states: list[str]) -> list[str]:
    (h,) = states
    update_x, reset_x, new_x = pen.split(share, 1, 3, hidden)
    update_h, reset_h = pen.split(pen("Gemm", h, weights[0], transB=1), 1, 2, hidden)
    reset = pen("Sigmoid", pen("Add", reset_x, reset_h))
    new = pen("Tanh", pen("Add", new_x, pen("Gemm", pen("Mul", reset, h), weights[1], transB=1)))
    return [_blended(pen, pen("Sigmoid", pen("Add", update_x, update_h)), new, h)]


def _blended(pen: _Pen, update: str, new: str, old: str) -> str:
    """(1 - update) * new + update * old, in one multiplication."""
    return pen("Add", new, pen("Mul", update, pen("Sub", old, new)))

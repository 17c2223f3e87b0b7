"""Even out the channels between neighbouring layers of a float TFLite file, which answers the same afterwards.

Refuses a file without such neighbours; layers behind RELU6 and other bent activations are left alone, since only a
factor that passes through the activation can be moved from one layer's weights into the next one's."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array

from edgekit.quantizers.tflite_graph import Graph, read_graph, whole
from edgekit.quantizers.tflite_statistics import Statistics

OUTPUT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
INPUT_AXIS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 1}
STRAIGHT = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
PASSING = {"RELU", "PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RESHAPE"}
"""What a factor for each channel passes through unchanged, where the last axis stays as it is."""

SWEEPS = 20
FURTHEST = 2.0**12
"""No channel is scaled further than this, up or down."""


@dataclass(frozen=True)
class Place:
    """One constant: the input `slot` of an operator, and the axis along which the channels lie."""

    op: Any
    slot: int
    axis: int


@dataclass(frozen=True)
class Seam:
    """A tensor between layers: constants before it take a factor's inverse, constants behind it the factor."""

    tensor: str
    before: tuple[Place, ...]
    behind: tuple[Place, ...]
    depthwise: bool


def equalized(graph: Graph) -> Graph:
    """Cross-layer equalization (Nagel et al. 2019): the weights of a channel reach as far before a seam as behind."""

    def factors(file: "_File", seam: Seam) -> Array:
        return np.sqrt(_ratio(file.reach(seam.before[:1]), file.reach(seam.behind)))

    return _rescaled(graph, factors, SWEEPS)


def smoothed(graph: Graph, seen: Statistics) -> Graph:
    """SmoothQuant (Xiao et al. 2023) at 0.5: half of what a channel's activation reaches beyond the weights behind it
    moves into them; all of it before depthwise layers, whose weights have a scale for each channel anyway."""

    def factors(file: "_File", seam: Seam) -> Array:
        if seam.tensor not in seen:
            return np.ones(1, np.float32)
        activation = np.maximum(np.abs(seen[seam.tensor].lows), np.abs(seen[seam.tensor].highs))
        if seam.depthwise:
            return _ratio(activation, np.full_like(activation, activation.max()))
        return np.sqrt(_ratio(activation, file.reach(seam.behind)))

    return _rescaled(graph, factors, 1)


def _rescaled(graph: Graph, factors: Callable[["_File", Seam], Array], sweeps: int) -> Graph:
    file = _File(graph)
    seams = tuple(file.seams())
    if not seams:
        raise Unsupported(
            "no two layers of this model follow each other so that their channels could be evened out",
            hint="leave equalizing and smoothing out",
        )
    for _ in range(sweeps):
        for seam in seams:
            factor = np.clip(factors(file, seam), 1 / FURTHEST, FURTHEST)
            for place in seam.before:
                file.scale(place, 1 / factor)
            for place in seam.behind:
                file.scale(place, factor)
    return read_graph(file.content())


def _ratio(above: Array, below: Array) -> Array:
    """`above / below`, and 1 where either is 0: a channel that is always 0 needs no factor."""
    fit = (above > 0) & (below > 0)
    return np.divide(above, below, out=np.ones_like(above), where=fit)


class _File:
    """A graph whose constants can be changed."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.model = graph, whole(graph)
        self.main = self.model.subgraphs[0]
        self.makers = {index: op for op in self.main.operators for index in op.outputs}
        self.takers: dict[int, list[Any]] = {}
        for op in self.main.operators:
            for index in op.inputs:
                self.takers.setdefault(int(index), []).append(op)

    def seams(self) -> Iterator[Seam]:
        """All seams, in the order of execution."""
        for op in self.main.operators:
            before = self._before(op)
            found: list[Any] = []
            if before and self._behind(int(op.outputs[0]), self._size(before[0]), found):
                behind = tuple(Place(taker, 1, INPUT_AXIS[self.graph.op_name(taker)]) for taker in found)
                name = self.main.tensors[op.outputs[0]].name.decode()
                depthwise = all(self.graph.op_name(taker) == "DEPTHWISE_CONV_2D" for taker in found)
                yield Seam(name, before, behind, depthwise)

    def reach(self, places: tuple[Place, ...]) -> Array:
        """The largest size of each channel's weights over all the places."""
        found = []
        for place in places:
            value = np.abs(self._value(self._tensor(place)))
            found.append(value.max(axis=tuple(axis for axis in range(value.ndim) if axis != place.axis % value.ndim)))
        return np.asarray(np.max(found, axis=0))

    def scale(self, place: Place, factor: Array) -> None:
        """Multiply a constant's channels; a constant that others use too is copied first."""
        self._own(place)
        tensor = self._tensor(place)
        value = self._value(tensor)
        shape = [1] * value.ndim
        shape[place.axis] = -1
        made = np.ascontiguousarray(value * factor.astype(np.float32).reshape(shape if factor.size > 1 else 1))
        self.model.buffers[tensor.buffer].data = made.view(np.uint8).reshape(-1)

    def content(self) -> bytes:
        """The file's bytes."""
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    def _before(self, op: Any) -> tuple[Place, ...]:
        """The constants that make the operator's channels: weights and bias, or the scale and shift of a norm."""
        name = self.graph.op_name(op)
        if name in OUTPUT_AXIS and _straight(op) and self._constant(op, 1):
            bias = (Place(op, 2, 0),) if len(op.inputs) > 2 and op.inputs[2] >= 0 else ()
            fit = not bias or self._constant(op, 2)
            return (Place(op, 1, OUTPUT_AXIS[name]), *bias) if fit else ()
        if name != "ADD" or not _straight(op) or (shift := self._vector(op)) is None:
            return ()
        scaling = self.makers.get(int(op.inputs[1 - shift.slot]))
        if scaling is None or self.graph.op_name(scaling) != "MUL" or not _straight(scaling, relu=False):
            return ()
        scale, alone = self._vector(scaling), len(self.takers[int(scaling.outputs[0])]) == 1
        fit = scale is not None and alone and self._size(scale) == self._size(shift) and not self._is_output(scaling)
        return (scale, shift) if scale is not None and fit else ()

    def _behind(self, index: int, channels: int, found: list[Any]) -> bool:
        """Whether all that reads the tensor is a layer of these channels; the layers go into `found`."""
        if index in self.main.outputs or not self.takers.get(index):
            return False
        for op in self.takers[index]:
            name = self.graph.op_name(op)
            if name in INPUT_AXIS:
                fit = int(op.inputs[0]) == index and self._constant(op, 1) and list(op.inputs).count(index) == 1
                if not fit or self._size(Place(op, 1, INPUT_AXIS[name])) != channels or not _plain_depthwise(op):
                    return False
                found.append(op)
            elif not self._passes(op, name, channels) or not self._behind(int(op.outputs[0]), channels, found):
                return False
        return True

    def _passes(self, op: Any, name: str, channels: int) -> bool:
        last = [list(self.main.tensors[i].shape)[-1:] for i in (op.inputs[0], op.outputs[0])]
        return name in PASSING and last == [[channels], [channels]] and _straight(op)

    def _vector(self, op: Any) -> Place | None:
        """The one constant among two inputs that has a value for each channel of the result."""
        slots = [slot for slot in (0, 1) if self._constant(op, slot)]
        if len(slots) != 1:
            return None
        shape = list(self.main.tensors[op.inputs[slots[0]]].shape)
        channels = list(self.main.tensors[op.outputs[0]].shape)[-1:]
        return Place(op, slots[0], len(shape) - 1) if shape[-1:] == channels and np.prod(shape) == shape[-1] else None

    def _constant(self, op: Any, slot: int) -> bool:
        tensor = self.main.tensors[op.inputs[slot]]
        buffer = self.model.buffers[tensor.buffer]
        return bool(tensor.type == schema.TensorType.FLOAT32 and buffer.data is not None and len(buffer.data))

    def _is_output(self, op: Any) -> bool:
        return int(op.outputs[0]) in self.main.outputs

    def _size(self, place: Place) -> int:
        return int(self._tensor(place).shape[place.axis])

    def _tensor(self, place: Place) -> Any:
        return self.main.tensors[place.op.inputs[place.slot]]

    def _value(self, tensor: Any) -> Array:
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        return data.view(np.float32).reshape(tensor.shape)

    def _own(self, place: Place) -> None:
        index = int(place.op.inputs[place.slot])
        tensor = self.main.tensors[index]
        sharing = sum(one.buffer == tensor.buffer for graph in self.model.subgraphs for one in graph.tensors)
        if len(self.takers[index]) == 1 and sharing == 1:
            return
        copy, buffer = deepcopy(tensor), schema.BufferT()
        buffer.data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        copy.name, copy.buffer = tensor.name + f"_of_{len(self.main.tensors)}".encode(), len(self.model.buffers)
        self.model.buffers.append(buffer)
        self.main.tensors.append(copy)
        place.op.inputs = np.array(place.op.inputs)
        place.op.inputs[place.slot] = len(self.main.tensors) - 1
        self.takers[index].remove(place.op)
        self.takers[len(self.main.tensors) - 1] = [place.op]


def _straight(op: Any, relu: bool = True) -> bool:
    """Whether a positive factor passes through what follows the operator's sum."""
    function = getattr(op.builtinOptions, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
    return function in (STRAIGHT if relu else STRAIGHT[:1])


def _plain_depthwise(op: Any) -> bool:
    """Whether each channel stays one channel."""
    return getattr(op.builtinOptions, "depthMultiplier", 1) in (0, 1)

"""The TFLite source: float files and already quantized ones, run by the runtime's own engine.

Refuses a damaged file and operators that the plain runtime lacks. Integers with a scale are real numbers to the
user, whatever the file holds; integers without one stay what they are."""

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from edgekit_runtime.engines import open_model, read_specs
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.ports import Port, connect
from edgekit_runtime.tensors import TensorSpec

from edgekit.model import Facts, Model, Origin
from edgekit.sources.files import digest
from edgekit.sources.shapes import settle

IDENTIFIER = b"TFL3"
STATE = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"})
"""Operators by which a file keeps something from one call to the next."""
AGAIN = "export or copy it again"

Ports = tuple[tuple[Port, ...], tuple[Port, ...]]


def fingerprint(origin: Origin) -> str:
    """The digest of the file and of the shapes the user gave."""
    return digest([origin.path], "tflite", *map(str, origin.shapes))


def read(origin: Origin) -> Model:
    """Read the file's facts and make the runtime's engine the reference.

    Raises:
        EdgeKitError: it is damaged, does not run, or a shape does not fit.
    """
    path = origin.path
    facts = _facts(path)
    inputs, outputs = ports(path)
    settled, axes = settle([port.spec for port in inputs], origin.shapes)
    run = connect(open_model("tflite", path), inputs, outputs)
    return Model(path.stem, "tflite", {"tflite": path}, settled, tuple(port.spec for port in outputs), axes, run, facts)


def ports(path: Path) -> Ports:
    """The file's tensors: as its signature names them, or by their own names where it has none.

    Raises:
        EdgeKitError: it is damaged or does not run.
    """
    model = _open(path)
    inputs, outputs = read_specs("tflite", path)
    names: dict[str, str] = {}
    if model.SignatureDefsLength():
        signature, tensors = model.SignatureDefs(0), model.Subgraphs(0)
        maps = [signature.Inputs(i) for i in range(signature.InputsLength())]
        maps += [signature.Outputs(i) for i in range(signature.OutputsLength())]
        names = {tensors.Tensors(m.TensorIndex()).Name().decode(): m.Name().decode() for m in maps}
    return _ports(inputs, names), _ports(outputs, names)


def keeps_state(ops: Mapping[str, int]) -> bool:
    """Whether a file with these operators remembers earlier calls."""
    return not STATE.isdisjoint(ops)


def _ports(insides: Sequence[TensorSpec], names: Mapping[str, str]) -> tuple[Port, ...]:
    return tuple(
        Port(
            TensorSpec(names.get(spec.name, spec.name), spec.dtype if spec.scale is None else "float32", spec.shape),
            spec,
        )
        for spec in insides
    )


def _open(path: Path) -> Any:
    """The file's root table, once every buffer is known to lie within the file."""
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        raise EdgeKitError(f"{path} is not a TFLite file (no {IDENTIFIER.decode()} in its head)", hint=AGAIN)
    try:
        model = schema.Model.GetRootAsModel(content, 0)
        ends = [_end(model.Buffers(i), len(content)) for i in range(model.BuffersLength())]
        whole = model.SubgraphsLength() > 0 and all(end <= len(content) for end in ends)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise EdgeKitError(f"{path} is damaged or cut short", hint=AGAIN) from error
    if not whole:
        raise EdgeKitError(f"{path} is damaged or cut short", hint=AGAIN)
    return model


def _end(buffer: Any, size: int) -> int:
    """Where a buffer's bytes end in the file."""
    if buffer.Size() and buffer.Offset() > 1:  # large files keep their buffers behind the tables
        return int(buffer.Offset() + buffer.Size())
    if buffer.DataIsNone():
        return 0
    offset = buffer._tab.Offset(4)  # the schema has no public word for where a vector lies
    return int(buffer._tab.Vector(offset) + buffer.DataLength())


def _facts(path: Path) -> Facts:
    model = _open(path)
    words = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    try:
        graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
        ops = Counter(_op(model, operator, words) for graph in graphs for operator in _operators(graph))
        constants = [tensor for graph in graphs for tensor in _constants(model, graph)]
        activations = {_type(tensor) for graph in graphs for tensor in _computed(graph)}
        parameters = sum(int(np.prod(tensor.ShapeAsNumpy())) for tensor in constants if tensor.ShapeLength())
        size = sum(model.Buffers(tensor.Buffer()).DataLength() for tensor in constants)
        types = {_type(tensor) for tensor in constants if tensor.ShapeLength()}
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise EdgeKitError(f"{path} is damaged or cut short", hint=AGAIN) from error
    return Facts(dict(sorted(ops.items())), parameters, size, _precision(activations, types))


def _precision(activations: set[str], weights: set[str]) -> str:
    """What the file computes in, in the words of `--precision`."""
    if activations & {"INT8", "UINT8", "INT16"}:
        return "int8"
    if weights & {"INT4", "INT2"}:
        return "int4-weights"
    if weights & {"INT8", "UINT8"}:
        return "int8-weights"
    return "float16" if "FLOAT16" in weights else "float32"


def _op(model: Any, operator: Any, words: Mapping[int, str]) -> str:
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if words.get(number) == "CUSTOM":
        return str((code.CustomCode() or b"CUSTOM").decode())
    return words.get(number, str(number))


def _operators(graph: Any) -> Iterator[Any]:
    return (graph.Operators(i) for i in range(graph.OperatorsLength()))


def _constants(model: Any, graph: Any) -> Iterator[Any]:
    """The graph's numbers that are stored in the file and are no indices."""
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        if not model.Buffers(tensor.Buffer()).DataIsNone() and _type(tensor) not in ("INT32", "INT64", "BOOL"):
            yield tensor


def _computed(graph: Any) -> Iterator[Any]:
    """The scaled tensors that operators write, but for constants that are widened (DEQUANTIZE)."""
    for operator in _operators(graph):
        for i in range(operator.OutputsLength()):
            tensor = graph.Tensors(operator.Outputs(i))
            if tensor.Quantization() is not None and tensor.Quantization().ScaleLength():
                yield tensor


def _type(tensor: Any) -> str:
    return str(TYPES[tensor.Type()])


TYPES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}

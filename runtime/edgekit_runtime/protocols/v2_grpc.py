"""The Open Inference Protocol v2 over gRPC: a ModelInferRequest to tensors, tensors to a ModelInferResponse. Pure.

Refuses messages whose sizes, shapes, types or names contradict each other or the model, and typed contents beside
raw ones. Messages are protobuf's; this module needs none of it to be imported."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.protocols.v2_tensors import (
    DATATYPES,
    NAMES,
    best,
    datatype_of,
    from_bytes,
    strings,
    to_bytes,
    word,
)
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

MAX_RANK = 16
MAX_ELEMENTS = 2**31 - 1
MAX_ID = 1000
MAX_SECONDS = 86_400.0
KEPT_SHAPES = 64
RAW_ONLY = ("FP16", "BF16")
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field that holds a tensor's values, by its type: there is none for FP16 and BF16."""
HELD = {
    "bool_contents": "bool",
    "int_contents": "int32",
    "int64_contents": "int64",
    "uint_contents": "uint32",
    "uint64_contents": "uint64",
    "fp32_contents": "float32",
    "fp64_contents": "float64",
}

Specs = Sequence[TensorSpec]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output asked for: whole, or as its `classes` best."""

    name: str
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent: the tensors, the outputs it wants, the id to give back, the seconds it will wait."""

    feeds: Feeds
    outputs: tuple[Wanted, ...]
    id: str = ""
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """An input: its tensor, the protocol's word for its type, and shapes that were found to fit."""

    spec: TensorSpec
    datatype: str
    fit: set[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Model:
    """A model as this protocol needs to know it for each request; made once. `outputs` are all that it gives."""

    name: str
    version: str
    inputs: Mapping[str, Port]
    outputs: tuple[Wanted, ...]
    datatypes: Mapping[str, tuple[np.dtype[Any], str]]
    labels: tuple[str, ...] = ()


def model(name: str, version: str, specs: tuple[Specs, Specs], labels: tuple[str, ...] = ()) -> Model:
    """What this protocol has to know of a model with these inputs and outputs."""
    inputs = {spec.name: Port(spec, NAMES.get(spec.dtype, spec.dtype), set()) for spec in specs[0]}
    numbers = [spec for spec in specs[1] if spec.dtype in NAMES and spec.dtype not in ("object", "bfloat16")]
    datatypes = {spec.name: (np.dtype(spec.dtype), NAMES[spec.dtype]) for spec in numbers}
    return Model(name, version, inputs, tuple(Wanted(spec.name) for spec in specs[1]), datatypes, labels)


def read_request(message: Any, known: Model) -> Request:
    """The request in `message`, held against the model's inputs and outputs.

    Raises:
        BadRequest: it does not fit the model, or contradicts itself.
    """
    said = message.id
    if len(said) > MAX_ID:
        raise BadRequest(f"id must be a string of at most {MAX_ID} characters")
    timeout = _timeout(message.parameters) if message.parameters else None
    wanted = _wanted(message.outputs, known) if message.outputs else known.outputs
    return Request(_feeds(message, known.inputs), wanted, said, timeout)


def write_response(kind: type[Any], known: Model, request: Request, outputs: Mapping[str, Array]) -> Any:
    """The reply of class `kind` to `request`; tensors are always raw."""
    reply = kind(model_name=known.name, model_version=known.version, id=request.id)
    tensors, raw = reply.outputs, reply.raw_output_contents
    for wanted in request.outputs:
        value = outputs[wanted.name]
        if wanted.classes:
            value = best(value, wanted.classes, known.labels)
        dtype, datatype = known.datatypes.get(wanted.name, (None, ""))
        if value.dtype != dtype:
            datatype = datatype_of(value)
        tensors.add(name=wanted.name, datatype=datatype, shape=value.shape)
        raw.append(to_bytes(value))
    return reply


def parameter(value: Any) -> bool | int | float | str | None:
    """What an InferParameter holds; None where it is empty."""
    chosen = value.WhichOneof("parameter_choice")
    found: bool | int | float | str | None = getattr(value, chosen) if chosen else None
    return found


def _feeds(message: Any, ports: Mapping[str, Port]) -> Feeds:
    tensors, raw = message.inputs, message.raw_input_contents
    if raw and len(raw) != len(tensors):
        raise BadRequest(
            f"{len(raw)} raw_input_contents for {len(tensors)} inputs", hint="send one for each, in the same order"
        )
    feeds: Feeds = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        port = ports.get(name)
        if port is None:
            raise BadRequest(f"no such input: {name[:100]!r}", hint=_send(ports))
        if name in feeds:
            raise BadRequest(f"{name}: the input is given twice")
        if tensor.parameters:
            _refuse_regions(tensor.parameters, name)
        datatype, shape = tensor.datatype, tuple(tensor.shape)
        if datatype != port.datatype:
            raise _other_type(datatype, port)
        if shape not in port.fit:
            _check_shape(shape, port)
        if not raw:
            feeds[name] = _typed(tensor.contents, datatype, shape, name)
        elif tensor.HasField("contents"):
            raise BadRequest(f"{name}: contents beside raw_input_contents", hint="send all inputs one way")
        else:
            feeds[name] = from_bytes(memoryview(raw[index]), datatype, shape, name)
    if len(feeds) != len(ports):
        missing = ", ".join(sorted(ports.keys() - feeds.keys()))
        raise BadRequest(f"missing input {missing}", hint=_send(ports))
    return feeds


def _send(ports: Mapping[str, Port]) -> str:
    return f"send {', '.join(str(port.spec) for port in ports.values())}"


def _other_type(datatype: str, port: Port) -> BadRequest:
    name = port.spec.name
    if datatype not in DATATYPES:
        return BadRequest(f"{name}: no datatype {datatype[:20]!r}", hint=f"use one of {', '.join(DATATYPES)}")
    return BadRequest(f"{name}: expected {port.datatype}, got {datatype}")


def _check_shape(shape: tuple[int, ...], port: Port) -> None:
    spec = port.spec
    if len(shape) > MAX_RANK:
        raise BadRequest(f"{spec.name}: a shape of {len(shape)} sizes", hint=f"the model takes {spec}")
    if any(size < 0 for size in shape):
        raise BadRequest(f"{spec.name}: shape {list(shape)} has a negative size")
    if not spec.accepts(shape):
        raise BadRequest(f"{spec.name}: shape {list(shape)} does not fit", hint=f"the model takes {spec}")
    if math.prod(size for size in shape if size) > MAX_ELEMENTS:
        raise BadRequest(f"{spec.name}: the shape has too many elements")
    if len(port.fit) < KEPT_SHAPES:
        port.fit.add(shape)


def _typed(contents: Any, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The tensor in typed contents; the one field that may hold it must be the only one that holds anything."""
    if datatype in RAW_ONLY:
        raise BadRequest(f"{name}: {datatype} has no typed contents", hint="send raw_input_contents")
    field, want = CONTENTS[datatype], math.prod(shape)
    held = [described.name for described, _ in contents.ListFields()]
    if held not in ([], [field]):
        raise BadRequest(f"{name}: {datatype} values belong in {field} alone, got {', '.join(held)}")
    values = getattr(contents, field)
    if len(values) != want:
        hint = "" if held else "send raw_input_contents, or contents in each input"
        raise BadRequest(f"{name}: {len(values)} values are not of shape {list(shape)}", hint=hint)
    if datatype == "BYTES":
        return strings([word(value) for value in values], shape, name)
    made = np.fromiter(values, HELD[field], want)
    dtype = np.dtype(DATATYPES[datatype])
    if dtype != made.dtype:
        limits = np.iinfo(dtype)
        if want and (made.min() < limits.min or made.max() > limits.max):
            raise BadRequest(f"{name}: a value does not fit {datatype}")
        made = made.astype(dtype)
    return made.reshape(shape)


def _wanted(asked: Any, known: Model) -> tuple[Wanted, ...]:
    names = [output.name for output in known.outputs]
    found: dict[str, Wanted] = {}
    for output in asked:
        name, classes = output.name, 0
        if name not in names:
            raise BadRequest(f"no output {name[:100]!r}", hint=f"the model gives {', '.join(names)}")
        if name in found:
            raise BadRequest(f"{name}: the output is asked for twice")
        if output.parameters:
            _refuse_regions(output.parameters, name)
            classes = _whole(output.parameters, "classification")
        found[name] = Wanted(name, classes)
    return tuple(found.values())


def _timeout(parameters: Any) -> float | None:
    """The seconds of the parameter `timeout`, which counts microseconds; 0 is none."""
    if "sequence_id" in parameters and parameter(parameters["sequence_id"]):
        raise BadRequest("sequences are not supported here", hint="send the state as an input, without sequence_id")
    return min(_whole(parameters, "timeout") / 1e6, MAX_SECONDS) or None


def _whole(parameters: Any, key: str) -> int:
    """A parameter that counts something; 0 where it is not there."""
    value = parameter(parameters[key]) if key in parameters else 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"the parameter {key} must be a number of 0 or more")
    return value


def _refuse_regions(parameters: Any, name: str) -> None:
    if any(key.startswith("shared_memory") for key in parameters):
        raise BadRequest(f"{name}: there is no shared memory here", hint="send the tensor in the message")

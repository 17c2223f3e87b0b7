"""The Open Inference Protocol v2: request bytes to tensors, tensors to reply bytes, JSON and binary. Pure.

Refuses bodies whose sizes, shapes, types or names contradict each other or the model. NaN and Infinity are read
and written as the tokens NaN, Infinity and -Infinity, as Triton does."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols import jsons
from edgekit_runtime.protocols.v2_tensors import (
    DATATYPES,
    NAMES,
    RAW_ONLY,
    best,
    datatype_of,
    from_bytes,
    from_list,
    strings,
    to_bytes,
    to_json,
    word,
)
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

MAX_RANK = 16
MAX_ELEMENTS = 2**31 - 1
MAX_ID = 1000
MAX_MICROSECONDS = 2**53
KEPT = 64
KEPT_BYTES = 4096
"""A client that sends binary tensors says the same JSON each time: so many of so many bytes are kept, read."""

Json = Mapping[str, Any]
Specs = Sequence[TensorSpec]


@dataclass(frozen=True)
class Wanted:
    """An output asked for: as binary or JSON, whole or as its `classes` best."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class Part:
    """An input as it was announced; `size` are its bytes behind the JSON, None where it is in the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None


@dataclass(frozen=True)
class Call:
    """What a request says beside its numbers: its `id`, which goes into the reply as `echo`; `timeout` is in
    seconds."""

    parts: tuple[Part, ...] = ()
    outputs: tuple[Wanted, ...] = ()
    id: str | None = None
    echo: bytes = b""
    timeout: float | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """What this protocol has to know of a served model; made once for each, see `model`."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    labels: tuple[str, ...]
    opening: bytes
    names: Mapping[str, bytes]
    calls: dict[bytes, Call] = field(default_factory=dict)


def model(name: str, version: str, specs: tuple[Specs, Specs], labels: tuple[str, ...] = ()) -> Model:
    """The model of that name with `specs` (inputs, outputs); `labels` are the words of its classes."""
    inputs, outputs = ({spec.name: spec for spec in side} for side in specs)
    opening = f'{{"model_name":{json.dumps(name)},"model_version":{json.dumps(version)},'.encode()
    return Model(inputs, outputs, labels, opening, {key: json.dumps(key).encode() for key in outputs})


def read_request(
    body: bytes, header_length: int | None, known: Model, limits: Limits | None = None
) -> tuple[Feeds, Call]:
    """The request in `body`, whose first `header_length` bytes are JSON: None for all of them, 0 for one raw tensor.

    Raises:
        BadRequest: it does not read, or does not fit the model.
        Exceeded: its JSON is beyond the limits.
    """
    if header_length == 0:
        return _raw(body, known), Call(outputs=tuple([Wanted(name, binary=True) for name in known.outputs]))
    if header_length is None:
        limits = limits or LIMITS
        return _again(body, known, limits) or _first(body, known, limits)
    if not 0 < header_length <= len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length {header_length} is not within the body of {len(body)} bytes",
            hint="give the number of bytes of the JSON, without the tensors behind it",
        )
    text, rest = body[:header_length], memoryview(body)[header_length:]
    call = known.calls.get(text)
    if call is None:
        return _whole(text, rest, known, limits or LIMITS)
    return _feeds(call, {}, rest), call


LIMITS = Limits()


def _again(text: bytes, known: Model, limits: Limits) -> tuple[Feeds, Call] | None:
    """A request that differs from an earlier one in the numbers of its only input."""
    found = jsons.around(text)
    call = known.calls.get(found[0]) if found else None
    if found is None or call is None or len(text) > limits.values:
        return None
    numbers = jsons.listed(text[found[1] : found[2]])
    part = call.parts[0]
    return None if numbers is None else ({part.name: from_list(numbers, part.datatype, part.shape, part.name)}, call)


def _first(text: bytes, known: Model, limits: Limits) -> tuple[Feeds, Call]:
    """A request in JSON alone. What it says around its numbers is kept, where nothing in it could mislead `_again`."""
    feeds, call = _whole(text, b"", known, limits)
    found = jsons.around(text)
    plain = b"\\" not in text and text.count(b'"data"') == 1
    if found and plain and len(call.parts) == 1 and len(found[0]) <= KEPT_BYTES:
        _keep(known, found[0], call)
    return feeds, call


def _keep(known: Model, text: bytes, call: Call) -> None:
    if len(known.calls) >= KEPT:
        known.calls.clear()
    known.calls[text] = call


def write_response(
    known: Model, call: Call, outputs: Mapping[str, Array], parameters: Json | None = None
) -> tuple[bytes, int | None]:
    """The body of the reply to `call`, and how many of its bytes are JSON (None: all, nothing is binary)."""
    tensors, pieces, binary = [], [], False
    for wanted in call.outputs:
        value = outputs[wanted.name]
        if wanted.classes:
            value = best(value, wanted.classes, known.labels)
        head = _head(known.names[wanted.name], datatype_of(value), value.shape)
        if wanted.binary:
            binary = True
            pieces.append(to_bytes(value))
            tensors.append(b'%b"parameters":{"binary_data_size":%d}}' % (head, len(pieces[-1])))
        else:
            tensors.append(b'%b"data":%b}' % (head, to_json(value)))
    more = call.echo
    if parameters is not None:
        more += b'"parameters":%b,' % jsons.write(parameters)
    text = b'%b%b"outputs":[%b]}' % (known.opening, more, b",".join(tensors))
    return (b"".join([text, *pieces]), len(text)) if binary else (text, None)


@lru_cache(256)
def _head(name: bytes, datatype: str, shape: tuple[int, ...]) -> bytes:
    """What is said of an output before its numbers."""
    sizes = ",".join(map(str, shape)).encode()
    return b'{"name":%b,"datatype":"%b","shape":[%b],' % (name, datatype.encode(), sizes)


def _whole(text: bytes, rest: bytes | memoryview, known: Model, limits: Limits) -> tuple[Feeds, Call]:
    """A request that is seen for the first time."""
    raw = jsons.read(text, limits)
    if not isinstance(raw, dict):
        raise BadRequest("the body is not a JSON object", hint='send {"inputs": [...]}')
    tensors = _tensors(raw, "inputs")
    call = _call(raw, tensors, known)
    feeds = _feeds(call, {tensor["name"]: tensor.get("data") for tensor in tensors}, memoryview(rest))
    if len(text) <= KEPT_BYTES and all(part.size is not None for part in call.parts):
        _keep(known, text, call)
    return feeds, call


def _call(raw: Json, tensors: list[Json], known: Model) -> Call:
    said = raw.get("id")
    if said is not None and (not isinstance(said, str) or len(said) > MAX_ID):
        raise BadRequest(f"id must be a string of at most {MAX_ID} characters")
    parameters = _parameters(raw)
    if any(parameters.get(key) for key in ("sequence_id", "sequence_start", "sequence_end")):
        raise BadRequest("sequences are not supported here", hint="send the state as an input, without sequence_id")
    parts = tuple([_part(tensor, known.inputs) for tensor in tensors])
    if len(parts) < len(known.inputs):
        missing = ", ".join(sorted(known.inputs.keys() - {part.name for part in parts}))
        raise BadRequest(f"missing input {missing}", hint=f"send {_specs(known.inputs)}")
    echo = b"" if said is None else b'"id":%b,' % json.dumps(said).encode()
    return Call(parts, _wanted(raw, parameters, known), said, echo, _timeout(parameters.get("timeout")))


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    if not _count(value) or value > MAX_MICROSECONDS:
        raise BadRequest(f"timeout must be a number of microseconds, got {str(value)[:40]!r}")
    return value / 1e6 if value else None


def _tensors(raw: Json, side: str) -> list[Json]:
    tensors = raw.get(side)
    if not isinstance(tensors, list) or not all(
        isinstance(tensor, dict) and isinstance(tensor.get("name"), str) for tensor in tensors
    ):
        raise BadRequest(f"{side} must be a list of objects, each with a name")
    names = [tensor["name"] for tensor in tensors]
    if len(set(names)) != len(names):
        raise BadRequest(f"{side} has the same name twice")
    return tensors


def _parameters(raw: Json) -> Json:
    found = raw.get("parameters")
    if found is not None and not isinstance(found, dict):
        raise BadRequest("parameters must be an object")
    return found or {}


def _part(tensor: Json, specs: Mapping[str, TensorSpec]) -> Part:
    name = tensor["name"]
    spec = specs.get(name)
    if spec is None:
        raise BadRequest(f"no input {name[:100]!r}", hint=f"send {_specs(specs)}")
    datatype, shape = _datatype(tensor, spec), _shape(tensor, spec)
    parameters = _parameters(tensor)
    if "shared_memory_region" in parameters:
        raise BadRequest(f"{name}: shared memory is off here", hint="send the data")
    size = parameters.get("binary_data_size")
    if (size is None) == ("data" not in tensor):
        raise BadRequest(f"{name}: needs either data or binary_data_size")
    if size is not None and not _count(size):
        raise BadRequest(f"{name}: binary_data_size must be a number of bytes, got {str(size)[:40]!r}")
    return Part(name, datatype, shape, size)


def _feeds(call: Call, data: Json, rest: memoryview) -> Feeds:
    feeds: Feeds = {}
    at = 0
    for part in call.parts:
        if part.size is None:
            feeds[part.name] = from_list(data[part.name], part.datatype, part.shape, part.name)
            continue
        if part.size > len(rest) - at:
            raise BadRequest(
                f"{part.name}: binary_data_size {part.size} with {len(rest) - at} bytes left after the JSON",
                hint="send Inference-Header-Content-Length and all the bytes",
            )
        feeds[part.name] = from_bytes(rest[at : at + part.size], part.datatype, part.shape, part.name)
        at += part.size
    if at < len(rest):
        raise BadRequest(f"{len(rest) - at} bytes are left over after the last tensor")
    return feeds


def _datatype(tensor: Json, spec: TensorSpec) -> str:
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadRequest(f"{spec.name}: no datatype {str(datatype)[:20]!r}", hint=f"use one of {', '.join(DATATYPES)}")
    if DATATYPES[datatype] != spec.dtype:
        raise BadRequest(f"{spec.name}: expected {NAMES.get(spec.dtype, spec.dtype)}, got {datatype}")
    return datatype


def _shape(tensor: Json, spec: TensorSpec) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(map(_count, shape)):
        raise BadRequest(f"{spec.name}: shape must be a list of sizes", hint=f"the model takes {spec}")
    if math.prod(n for n in shape if n) > MAX_ELEMENTS:
        raise BadRequest(f"{spec.name}: the shape has too many elements")
    if not spec.accepts(shape):
        raise BadRequest(f"{spec.name}: shape {shape} does not fit", hint=f"the model takes {spec}")
    return tuple(shape)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _specs(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(map(str, specs.values()))


def _raw(body: bytes, known: Model) -> Feeds:
    """The one input of a body that is nothing but its bytes; its one free size follows from their number."""
    spec = next(iter(known.inputs.values()))
    free = spec.shape.count(None)
    if len(known.inputs) != 1 or spec.dtype not in NAMES or (free > 1 and spec.dtype != "object"):
        raise BadRequest("a raw body does not tell the inputs of this model", hint="send JSON with binary tensors")
    if spec.dtype == "object":
        return {spec.name: strings([word(body)], tuple(1 if n is None else n for n in spec.shape), spec.name)}
    row = math.prod(n for n in spec.shape if n is not None) * np.dtype(spec.dtype).itemsize
    shape = tuple(len(body) // max(row, 1) if n is None else n for n in spec.shape)
    return {spec.name: from_bytes(memoryview(body), NAMES[spec.dtype], shape, spec.name)}


def _wanted(raw: Json, parameters: Json, known: Model) -> tuple[Wanted, ...]:
    binary = _flag(parameters, "binary_data_output", False)
    if raw.get("outputs") in (None, []):
        asked = [Wanted(name, binary) for name in known.outputs]
    else:
        asked = [_output(output, binary, known) for output in _tensors(raw, "outputs")]
    for wanted in asked:
        if not wanted.binary and NAMES.get(known.outputs[wanted.name].dtype) in RAW_ONLY:
            raise BadRequest(f"{wanted.name}: its type has no JSON", hint='ask for it with "binary_data": true')
    return tuple(asked)


def _output(output: Json, binary: bool, known: Model) -> Wanted:
    name, parameters = output["name"], _parameters(output)
    if name not in known.outputs:
        raise BadRequest(f"no output {name[:100]!r}", hint=f"the model gives {', '.join(known.outputs)}")
    if "shared_memory_region" in parameters:
        raise BadRequest(f"{name}: shared memory is off here", hint="take the data from the reply")
    classes = parameters.get("classification", 0)
    if not _count(classes):
        raise BadRequest(f"{name}: classification must be a number of classes, got {str(classes)[:40]!r}")
    return Wanted(name, _flag(parameters, "binary_data", binary), classes)


def _flag(parameters: Json, key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{key} must be true or false")
    return value

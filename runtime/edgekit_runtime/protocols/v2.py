"""The Open Inference Protocol v2: request bytes to tensors, tensors to reply bytes, JSON and binary. Pure.

Refuses bodies whose sizes, shapes, types or names contradict each other or the model. NaN and Infinity are read
and written as the tokens NaN, Infinity and -Infinity, as Triton does."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.protocols.v2_tensors import (
    DATATYPES,
    NAMES,
    datatype_of,
    from_bytes,
    from_list,
    strings,
    to_bytes,
    to_list,
)
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

MAX_RANK = 16
MAX_ELEMENTS = 2**31 - 1
MAX_ID = 1000
MAX_COMMAS = 16_000_000
MAX_LISTS = 2_000_000
"""Decoded JSON is many times larger than its text: these two bound the objects before any is made."""

Json = Mapping[str, Any]
Specs = Sequence[TensorSpec]


@dataclass(frozen=True)
class Wanted:
    """An output asked for: as binary or JSON, whole or as its `classes` best."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class Request:
    """What a client sent: the tensors, the outputs it wants, and the id to give back."""

    feeds: Feeds
    outputs: tuple[Wanted, ...]
    id: str | None = None


@dataclass(frozen=True)
class Reply:
    """What goes into a reply beside the tensors: who answers, the words of its classes, the reply's parameters."""

    model: str
    version: str
    labels: tuple[str, ...] = ()
    parameters: Json | None = None


def read_request(body: bytes, header_length: int | None, inputs: Specs, outputs: Specs) -> Request:
    """The request in `body`, whose first `header_length` bytes are JSON: None for all of them, 0 for one raw tensor.

    Raises:
        BadRequest: it does not read, or does not fit the model.
    """
    if header_length == 0:
        return Request(_raw(body, inputs), tuple(Wanted(spec.name, binary=True) for spec in outputs))
    if header_length is not None and not 0 < header_length <= len(body):
        raise BadRequest(f"Inference-Header-Content-Length {header_length} is not within the body of {len(body)} bytes")
    length = len(body) if header_length is None else header_length
    raw = _json(body[:length])
    known = raw.get("id")
    if known is not None and (not isinstance(known, str) or len(known) > MAX_ID):
        raise BadRequest(f"id must be a string of at most {MAX_ID} characters")
    if _parameters(raw).get("sequence_id"):
        raise BadRequest("sequences are not supported here", hint="send the state as an input, without sequence_id")
    feeds = _feeds(_tensors(raw, "inputs"), memoryview(body)[length:], {spec.name: spec for spec in inputs})
    return Request(feeds, _wanted(raw, [spec.name for spec in outputs]), known)


def write_response(reply: Reply, request: Request, outputs: Mapping[str, Array]) -> tuple[bytes, int | None]:
    """The body of the reply to `request`, and how many of its bytes are JSON (None: all, nothing is binary)."""
    tensors, pieces = [], []
    for wanted in request.outputs:
        value = outputs[wanted.name]
        if wanted.classes:
            value = _best(value, wanted.classes, reply.labels)
        tensor: dict[str, Any] = {"name": wanted.name, "datatype": datatype_of(value), "shape": list(value.shape)}
        if wanted.binary:
            pieces.append(to_bytes(value))
            tensor["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            tensor["data"] = to_list(value)
        tensors.append(tensor)
    head: dict[str, Any] = {"model_name": reply.model, "model_version": reply.version, "outputs": tensors}
    head |= {} if request.id is None else {"id": request.id}
    head |= {} if reply.parameters is None else {"parameters": reply.parameters}
    text = json.dumps(head, separators=(",", ":")).encode()
    return (b"".join([text, *pieces]), len(text)) if any(w.binary for w in request.outputs) else (text, None)


def metadata(name: str, versions: Sequence[str], platform: str, specs: tuple[Specs, Specs]) -> Json:
    """What GET /v2/models/NAME answers; -1 is a free size."""
    sides = [
        [{"name": s.name, "datatype": NAMES[s.dtype], "shape": [-1 if n is None else n for n in s.shape]} for s in side]
        for side in specs
    ]
    return {"name": name, "versions": list(versions), "platform": platform, "inputs": sides[0], "outputs": sides[1]}


def _json(text: bytes) -> Json:
    if text.count(b",") > MAX_COMMAS or text.count(b"[") + text.count(b"{") > MAX_LISTS:
        raise BadRequest("too many values for JSON", hint="send binary tensors")
    try:
        raw = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise BadRequest(
            "the body is not UTF-8", hint="with binary data, send Inference-Header-Content-Length"
        ) from error
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:100]}") from error
    if not isinstance(raw, dict):
        raise BadRequest("the body is not a JSON object", hint='send {"inputs": [...]}')
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise BadRequest("a JSON object has the same key twice")
    return made


def _tensors(raw: Json, side: str) -> list[Json]:
    tensors = raw.get(side)
    if not isinstance(tensors, list) or not all(
        isinstance(t, dict) and isinstance(t.get("name"), str) for t in tensors
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


def _feeds(tensors: list[Json], rest: memoryview, specs: Mapping[str, TensorSpec]) -> Feeds:
    feeds: Feeds = {}
    for tensor in tensors:
        name = tensor["name"]
        if name not in specs:
            raise BadRequest(f"no input {name[:100]!r}", hint=f"send {', '.join(map(str, specs.values()))}")
        datatype, shape = _datatype(tensor, specs[name]), _shape(tensor, specs[name])
        parameters = _parameters(tensor)
        if "shared_memory_region" in parameters:
            raise BadRequest(f"{name}: shared memory is not supported here", hint="send the data")
        size = parameters.get("binary_data_size")
        if (size is None) == ("data" not in tensor):
            raise BadRequest(f"{name}: needs either data or binary_data_size")
        if size is None:
            feeds[name] = from_list(tensor["data"], datatype, shape, name)
            continue
        if not _count(size) or size > len(rest):
            raise BadRequest(
                f"{name}: binary_data_size {size!r} with {len(rest)} bytes left after the JSON",
                hint="send Inference-Header-Content-Length and all the bytes",
            )
        feeds[name], rest = from_bytes(rest[:size], datatype, shape, name), rest[size:]
    if len(rest):
        raise BadRequest(f"{len(rest)} bytes are left over after the last tensor")
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
        raise BadRequest(f"{spec.name}: shape must be a list of sizes")
    if math.prod(n for n in shape if n) > MAX_ELEMENTS:
        raise BadRequest(f"{spec.name}: the shape has too many elements")
    if not spec.accepts(shape):
        raise BadRequest(f"{spec.name}: shape {shape} does not fit", hint=f"the model takes {spec}")
    return tuple(shape)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _raw(body: bytes, inputs: Specs) -> Feeds:
    """The one input of a body that is nothing but its bytes; its one free size follows from their number."""
    spec = inputs[0]
    if len(inputs) != 1 or spec.dtype not in NAMES or spec.shape.count(None) > 1:
        raise BadRequest("a raw body does not tell the inputs of this model", hint="send JSON with binary tensors")
    if spec.dtype == "object":
        return {spec.name: strings([body.decode("utf-8", "replace")], (1,), spec.name)}
    row = math.prod(n for n in spec.shape if n is not None) * np.dtype(spec.dtype).itemsize
    shape = tuple(len(body) // max(row, 1) if n is None else n for n in spec.shape)
    return {spec.name: from_bytes(memoryview(body), NAMES[spec.dtype], shape, spec.name)}


def _wanted(raw: Json, names: list[str]) -> tuple[Wanted, ...]:
    binary = _flag(_parameters(raw), "binary_data_output", False)
    if not raw.get("outputs"):
        return tuple(Wanted(name, binary) for name in names)
    asked = []
    for output in _tensors(raw, "outputs"):
        name, parameters = output["name"], _parameters(output)
        if name not in names:
            raise BadRequest(f"no output {name[:100]!r}", hint=f"the model gives {', '.join(names)}")
        classes = parameters.get("classification", 0)
        if not _count(classes) or "shared_memory_region" in parameters:
            raise BadRequest(f"{name}: parameters that are not supported here")
        asked.append(Wanted(name, _flag(parameters, "binary_data", binary), classes))
    return tuple(asked)


def _flag(parameters: Json, key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{key} must be true or false")
    return value


def _best(value: Array, classes: int, labels: Sequence[str]) -> Array:
    """Triton's classification: the best of each row as "score:index:label"."""
    if value.dtype.kind not in "fiu" or value.ndim == 0 or value.size == 0:
        raise BadRequest("classification needs an output of numbers")
    rows = value.reshape(value.shape[0], -1) if value.ndim > 1 else value[None]
    named = len(labels) == rows.shape[1]
    words = [
        [f"{row[i]:f}:{i}" + (f":{labels[i]}" if named else "") for i in np.argsort(-row, kind="stable")[:classes]]
        for row in rows.astype(np.float64)
    ]
    return np.array(words if value.ndim > 1 else words[0], dtype=object)

"""One tensor of the Open Inference Protocol v2, as JSON values or little-endian bytes, to an array and back. Pure.

Refuses data whose type, size or nesting is not what was announced; never recurses, never unpickles."""

import math
import struct
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.protocols.jsons import Numbers, write, write_array
from edgekit_runtime.tensors import Array, dtype_name

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
NAMES = {dtype: datatype for datatype, dtype in DATATYPES.items()}
RAW_ONLY = ("BF16",)
"""numpy has no such type of its own: only a model that brings it has it, and it has no JSON."""
JSON_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}, "O": {str}}
LITTLE = sys.byteorder == "little"

Shape = tuple[int, ...]
Word = str | bytes
"""An element of a BYTES tensor: text where it is UTF-8, else the bytes as they came."""


def datatype_of(value: Array) -> str:
    """The protocol's name for the type of an engine's output."""
    return "BYTES" if value.dtype.kind in "OUS" else NAMES[dtype_name(value.dtype)]


def from_bytes(data: memoryview, datatype: str, shape: Shape, name: str) -> Array:
    """The tensor in `data`, without a copy where the bytes lie right for it."""
    if datatype == "BYTES":
        return strings(_split(data, name), shape, name)
    dtype = np.dtype(DATATYPES[datatype])
    want = math.prod(shape) * dtype.itemsize
    if len(data) != want:
        raise BadRequest(f"{name}: {datatype}{list(shape)} is {want} bytes, got {len(data)}")
    value = np.frombuffer(data, dtype if LITTLE else dtype.newbyteorder("<")).reshape(shape)
    if datatype == "BOOL" and np.any(value.view(np.uint8) > 1):
        raise BadRequest(f"{name}: BOOL bytes must be 0 or 1")
    return value if LITTLE and value.flags.aligned else value.astype(dtype)


def to_bytes(value: Array) -> bytes:
    """Little-endian, row-major bytes."""
    if value.dtype.kind in "OUS":
        encoded = [item if isinstance(item, bytes) else str(item).encode() for item in value.ravel().tolist()]
        return b"".join([struct.pack("<I", len(item)) + item for item in encoded])
    if LITTLE and value.dtype.isnative:
        return value.tobytes()
    return value.astype(value.dtype.newbyteorder("<")).tobytes()


def from_list(data: object, datatype: str, shape: Shape, name: str) -> Array:
    """The tensor in a decoded JSON list, flat or nested as `shape`."""
    if datatype in RAW_ONLY:
        raise BadRequest(f"{name}: {datatype} has no JSON", hint="send binary data")
    dtype = np.dtype(DATATYPES[datatype])
    if isinstance(data, Numbers):
        return _from_numbers(data, dtype, shape, name)
    flat = _flat(data, shape, name)
    if not set(map(type, flat)) <= JSON_TYPES[dtype.kind]:
        raise BadRequest(f"{name}: data holds values that are not {datatype}")
    if datatype == "BYTES":
        return strings(flat, shape, name)
    if len(flat) != math.prod(shape):
        raise BadRequest(f"{name}: {len(flat)} values are not of shape {list(shape)}")
    if dtype.kind in "iu" and flat and (min(flat) < np.iinfo(dtype).min or max(flat) > np.iinfo(dtype).max):
        raise BadRequest(f"{name}: a value does not fit {datatype}")
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, np.float64 if dtype.kind == "f" else dtype).astype(dtype, copy=False).reshape(shape)
    except OverflowError as error:
        raise BadRequest(f"{name}: a value does not fit {datatype}") from error


def to_json(value: Array) -> bytes:
    """A flat, row-major JSON list; BYTES that are no text get replacement characters."""
    if value.dtype.kind in "OUS":
        return write([_text(item) for item in value.ravel().tolist()])
    return write_array(value)


def strings(found: Sequence[Word], shape: Shape, name: str) -> Array:
    """Strings as an array of objects, the way engines take them."""
    if len(found) != math.prod(shape):
        raise BadRequest(f"{name}: {len(found)} strings are not of shape {list(shape)}")
    value = np.empty(len(found), dtype=object)
    value[:] = found
    return value.reshape(shape)


def word(data: bytes) -> Word:
    """An element of a BYTES tensor."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def best(value: Array, classes: int, labels: Sequence[str]) -> Array:
    """Triton's classification: the best of each row as "score:index:label", at most as many as there are."""
    if value.dtype.kind not in "fiu" or value.size == 0:
        raise BadRequest("classification needs an output of numbers")
    rows = value.reshape(value.shape[0], -1) if value.ndim > 1 else value.reshape(1, -1)
    named = len(labels) == rows.shape[1]
    sign = "f" if value.dtype.kind == "f" else "d"
    words = [
        [f"{row[i]:{sign}}:{i}" + (f":{labels[i]}" if named else "") for i in _order(row)[:classes].tolist()]
        for row in rows
    ]
    return np.array(words if value.ndim > 1 else words[0], dtype=object)


def _order(row: Array) -> Array:
    """The places of a row from its largest value to its smallest, equal ones as they lie, NaN last."""
    if row.dtype.kind == "f":
        return np.argsort(-row, kind="stable")
    return len(row) - 1 - np.argsort(row[::-1], kind="stable")[::-1]


def _from_numbers(data: Numbers, dtype: np.dtype[Any], shape: Shape, name: str) -> Array:
    flat, want = data.flat, math.prod(shape)
    if data.shape != shape and len(data.shape) > 1:
        raise BadRequest(f"{name}: data is nested, but not as {list(shape)}")
    if len(flat) != want:
        raise BadRequest(f"{name}: {len(flat)} values are not of shape {list(shape)}")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return flat.astype(np.float64, copy=False).astype(dtype, copy=False).reshape(shape)
    if dtype.kind not in "iu" or flat.dtype.kind == "f":
        raise BadRequest(f"{name}: data holds values that are not {NAMES[dtype.name]}")
    if flat.dtype != dtype and (flat.min() < np.iinfo(dtype).min or flat.max() > np.iinfo(dtype).max):
        raise BadRequest(f"{name}: a value does not fit {NAMES[dtype.name]}")
    return flat.astype(dtype, copy=False).reshape(shape)


def _flat(data: object, shape: Shape, name: str) -> list[Any]:
    if not isinstance(data, list):
        raise BadRequest(f"{name}: data must be a list")
    if not data or not isinstance(data[0], list):
        return data
    level = [data]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in level):
            raise BadRequest(f"{name}: data is nested, but not as {list(shape)}")
        level = list(chain.from_iterable(level))
    return level


def _split(data: memoryview, name: str) -> list[Word]:
    found: list[Word] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        if len(data) - at < 4 or size > len(data) - at - 4:
            raise BadRequest(f"{name}: a BYTES element is longer than the data")
        found.append(word(bytes(data[at + 4 : at + 4 + size])))
        at += 4 + size
    return found


def _text(item: object) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)

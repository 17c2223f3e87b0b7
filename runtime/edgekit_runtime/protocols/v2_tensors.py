"""One tensor of the Open Inference Protocol v2, as JSON values or little-endian bytes, to an array and back. Pure.

Refuses data whose type, size or nesting is not what was announced; never recurses, never unpickles."""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.tensors import Array

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
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
NAMES = {dtype: datatype for datatype, dtype in DATATYPES.items()}
JSON_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}, "O": {str}}

Shape = tuple[int, ...]


def datatype_of(value: Array) -> str:
    """The protocol's name for the type of an engine's output."""
    return "BYTES" if value.dtype.kind in "OUS" else NAMES[value.dtype.name]


def from_bytes(data: memoryview, datatype: str, shape: Shape, name: str) -> Array:
    """The tensor in `data`, without a copy where the bytes lie right for it."""
    if datatype == "BYTES":
        return strings(_split(data, name), shape, name)
    dtype = np.dtype(DATATYPES[datatype])
    want = math.prod(shape) * dtype.itemsize
    if len(data) != want:
        raise BadRequest(f"{name}: {datatype}{list(shape)} is {want} bytes, got {len(data)}")
    value = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    if datatype == "BOOL" and np.any(value.view(np.uint8) > 1):
        raise BadRequest(f"{name}: BOOL bytes must be 0 or 1")
    return value.astype(dtype, copy=not value.flags.aligned)


def to_bytes(value: Array) -> bytes:
    """Little-endian, row-major bytes."""
    if datatype_of(value) == "BYTES":
        encoded = [_text(item).encode() for item in value.ravel().tolist()]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    return np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes()


def from_list(data: object, datatype: str, shape: Shape, name: str) -> Array:
    """The tensor in a decoded JSON list, flat or nested as `shape`."""
    dtype = np.dtype(DATATYPES[datatype])
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


def to_list(value: Array) -> list[Any]:
    """A flat, row-major JSON list."""
    flat: list[Any] = value.ravel().tolist()
    return [_text(item) for item in flat] if datatype_of(value) == "BYTES" else flat


def strings(found: Sequence[str], shape: Shape, name: str) -> Array:
    """Strings as an array of objects, the way engines take them."""
    if len(found) != math.prod(shape):
        raise BadRequest(f"{name}: {len(found)} strings are not of shape {list(shape)}")
    value = np.empty(len(found), dtype=object)
    value[:] = found
    return value.reshape(shape)


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


def _split(data: memoryview, name: str) -> list[str]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        if len(data) - at < 4 or size > len(data) - at - 4:
            raise BadRequest(f"{name}: a BYTES element is longer than the data")
        try:
            found.append(str(data[at + 4 : at + 4 + size], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRequest(f"{name}: a BYTES element is not UTF-8 text") from error
        at += 4 + size
    return found


def _text(item: object) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)

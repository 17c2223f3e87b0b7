"""TensorFlow's TensorProto to an array and back. Pure; messages are protobuf's, but none of it is needed for importing.

Refuses tensors of another type or shape than the model's, contents of another length than their shape says, and few
values that stand for very many."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest, Exceeded
from edgekit_runtime.protocols.tfserving_status import DTYPES
from edgekit_runtime.protocols.tfserving_values import text_of
from edgekit_runtime.tensors import Array, TensorSpec

MOST_FILLED = 64 * 2**20
"""Bytes that one value may be repeated to fill."""
FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_INT32": "int_val",
    "DT_UINT8": "int_val",
    "DT_INT16": "int_val",
    "DT_INT8": "int_val",
    "DT_STRING": "string_val",
    "DT_INT64": "int64_val",
    "DT_BOOL": "bool_val",
    "DT_UINT16": "int_val",
    "DT_HALF": "half_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
}
"""Where a TensorProto holds the values of a type."""

HELD = {"int_val": np.int32, "half_val": np.int32}
"""The fields whose values are of another type than the tensor's."""

Message = Any


def array(tensor: Message, spec: TensorSpec) -> Array:
    """The array in a TensorProto: its raw content or its typed values, the last of which fills what is missing."""
    wanted = DTYPES[spec.dtype]
    sent = tensor.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number.get(tensor.dtype)
    if sent is None or sent.name != wanted:
        raise BadRequest(f"{spec.name}: expected {wanted}, got {tensor.dtype if sent is None else sent.name}")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or not spec.accepts(shape) or min(shape, default=0) < 0:
        raise BadRequest(f"{spec.name}: shape {shape[:32]} does not fit", hint=f"the model takes {spec}")
    if tensor.tensor_content:
        return _from_content(tensor.tensor_content, spec, shape)
    return _from_values(getattr(tensor, FIELDS[wanted]), spec, shape)


def fill_tensor(tensor: Message, value: Array) -> None:
    """Write an array into a TensorProto."""
    text = value.dtype.kind in "OUS"
    name = "DT_STRING" if text else DTYPES[value.dtype.name]
    tensor.dtype = tensor.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name[name].number
    for size in value.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_shape.SetInParent()
    if text:
        items = value.ravel().tolist()
        tensor.string_val.extend(item if isinstance(item, bytes) else str(item).encode() for item in items)
    else:
        tensor.tensor_content = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()


def _from_content(content: bytes, spec: TensorSpec, shape: Sequence[int]) -> Array:
    if spec.dtype == "object":
        raise BadRequest(f"{spec.name}: strings in tensor_content", hint="send them in string_val")
    dtype = np.dtype(spec.dtype)
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise BadRequest(f"{spec.name}: {len(content)} bytes of tensor_content are not of shape {list(shape)}")
    value = np.frombuffer(content, dtype.newbyteorder("<"))
    if dtype.kind == "b" and np.any(value.view(np.uint8) > 1):
        raise BadRequest(f"{spec.name}: a boolean is neither 0 nor 1")
    return value.reshape(shape).astype(dtype, copy=False)


def _from_values(sent: Sequence[Any], spec: TensorSpec, shape: Sequence[int]) -> Array:
    """As TensorFlow reads them: the last value fills the rest; none at all stand for zeros, which it leaves out."""
    count, dtype = math.prod(shape), np.dtype(spec.dtype)
    if len(sent) > count:
        raise BadRequest(f"{spec.name}: {len(sent)} values are not of shape {list(shape)}")
    if len(sent) < count and count * dtype.itemsize > MOST_FILLED:
        raise Exceeded(f"{spec.name}: {len(sent)} values for {count} elements", hint="send them all")
    if dtype.kind == "O":
        found: Array = np.empty(len(sent), object)
        found[:] = [text_of(item, spec.name) for item in sent]
    else:
        found = _typed(sent, spec)
    if len(found) < count:
        last = found[-1:] if len(found) else np.zeros(1, dtype) if dtype.kind != "O" else np.array([""], object)
        found = np.concatenate([found, np.repeat(last, count - len(found))])
    return found.reshape(shape)


def _typed(sent: Sequence[Any], spec: TensorSpec) -> Array:
    """The values of a field in the type of `spec`: small types are held in larger ones, halves as their bits."""
    half = spec.dtype == "float16"
    wanted = np.dtype("uint16" if half else spec.dtype)
    held: Array = np.array(sent, HELD.get(FIELDS[DTYPES[spec.dtype]], wanted))
    if held.dtype == wanted or not held.size:
        return held.astype(spec.dtype, copy=False)
    if held.min() < np.iinfo(wanted).min or held.max() > np.iinfo(wanted).max:
        raise BadRequest(f"{spec.name}: a value does not fit {spec.dtype}")
    small: Array = held.astype(wanted)
    return small.view(np.float16) if half else small

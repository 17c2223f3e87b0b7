"""JSON values of TensorFlow Serving's protocol as tensors: nested lists, {"b64": ...}, encoded samples. Pure.

Refuses ragged lists, values of another type than the model's, numbers that its type cannot hold, and samples (photos,
sounds, texts) that would become very much."""

from array import array as doubles
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeGuard

import numpy as np

from edgekit_runtime.errors import BadRequest, Exceeded
from edgekit_runtime.protocols import jsons
from edgekit_runtime.tensors import Array, Feeds, TensorSpec, check_feeds

MOST_RANK = 32
MOST_DECODED = 256 * 2**20
"""Bytes that the encoded samples of one request may become: a file of a few hundred bytes can hold a large one."""
WORDS = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers", "O": "strings"}
TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}, "O": {str}}


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a bundle's preprocessing reads: a `kind` of sample ("image", "audio", "text") for the input `input`.

    `encode` makes the tensors of one sample: that input's, and those that go with it.
    """

    input: str
    kind: str
    encode: Callable[[bytes], Feeds]


def array(value: object, spec: TensorSpec) -> Array:
    """The tensor in a JSON value: a scalar, or lists nested as deep as it has axes."""
    made = _of_numbers([value], spec).reshape(value.shape) if isinstance(value, jsons.Numbers) else _nested(value, spec)
    spec.check(made)
    return made


def samples(value: object, encoded: Encoded) -> list[bytes] | None:
    """The encoded samples in a value that is one or a list of them; None where it holds none."""
    found = value if isinstance(value, list) else [value]
    if not found or not _is_sample(found[0], encoded):
        return None
    if not all(_is_sample(one, encoded) for one in found):
        raise BadRequest("some samples are encoded and some are not", hint="send all of them alike")
    return [decoded(one) if is_b64(one) else str(one).encode("utf-8", "replace") for one in found]


def with_samples(ready: Feeds, found: Sequence[bytes], encoded: Encoded, specs: Sequence[TensorSpec]) -> Feeds:
    """All the inputs: those that are there, and those that preprocessing makes of the samples, as one batch."""
    made: list[Feeds] = []
    for sample in found:
        made.append(encoded.encode(sample))
        if sum(value.nbytes for value in made[0].values()) * len(made) > MOST_DECODED:
            raise Exceeded(f"{encoded.input}: too many samples at once", hint="send fewer in one request")
    whole = {spec.name: _batch([one[spec.name] for one in made], spec) for spec in specs if spec.name in made[0]}
    feeds = ready | whole
    check_feeds(specs, feeds)
    return feeds


def _is_sample(value: object, encoded: Encoded) -> bool:
    return is_b64(value) or (encoded.kind == "text" and isinstance(value, str))


def _batch(made: Sequence[Array], spec: TensorSpec) -> Array:
    if len({one.shape for one in made}) > 1:
        raise BadRequest(f"{spec.name}: the samples are of different sizes", hint="send one in each request")
    if made[0].ndim == len(spec.shape) - 1:
        return np.stack(made)
    if len(made) > 1 and made[0].shape[:1] != (1,):
        raise BadRequest(f"{spec.name} takes one sample at once", hint="send one in each request")
    return made[0] if len(made) == 1 else np.concatenate(made)


def decoded(value: Mapping[str, Any]) -> bytes:
    """The bytes in {"b64": "..."}."""
    import binascii

    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise BadRequest(
            "b64 does not hold base64 text", hint='send {"b64": "..."} in the standard alphabet'
        ) from error


def is_b64(value: object) -> TypeGuard[dict[str, str]]:
    """Whether a JSON value is {"b64": "..."} and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def text_of(data: bytes, name: str) -> str:
    """Bytes as the text that an engine takes for a string."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{name}: the bytes are not UTF-8 text", hint="send text") from error


def numbers(flat: Sequence[Any], spec: TensorSpec) -> Array:
    """Python numbers in the type of `spec`; one that it cannot hold is refused."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu" and flat and (min(flat) < np.iinfo(dtype).min or max(flat) > np.iinfo(dtype).max):
        raise BadRequest(f"{spec.name}: a value does not fit {spec.dtype}")
    try:  # numpy takes three times as long as an array does to read a list of floats
        wide = np.frombuffer(doubles("d", flat)) if dtype.kind == "f" else np.array(flat, dtype)
    except OverflowError as error:
        raise BadRequest(f"{spec.name}: a value does not fit {spec.dtype}") from error
    return narrowed(wide, spec)


def narrowed(wide: Array, spec: TensorSpec) -> Array:
    """Floats in the model's narrower type; a finite one that would become infinite is refused."""
    try:
        with np.errstate(over="raise"):
            return wide.astype(spec.dtype, copy=False)
    except FloatingPointError as error:
        raise BadRequest(f"{spec.name}: a value does not fit {spec.dtype}") from error


def _nested(value: object, spec: TensorSpec) -> Array:
    flat, shape = _flat(value, spec.name)
    kinds = set(map(type, flat))
    if jsons.Numbers in kinds:
        if len({item.shape if isinstance(item, jsons.Numbers) else None for item in flat}) == 1:
            return _of_numbers(flat, spec).reshape(*shape, *flat[0].shape)
        return _nested(jsons.plain(value), spec)
    kind = np.dtype(spec.dtype).kind
    if kind == "O" and dict in kinds:
        flat = [text_of(decoded(item), spec.name) if is_b64(item) else item for item in flat]
        kinds = set(map(type, flat))
    if not kinds <= TYPES.get(kind, set()):
        raise _unlike(spec)
    if kind == "O":
        made = np.empty(len(flat), object)
        made[:] = flat
        return made.reshape(shape)
    return numbers(flat, spec).reshape(shape)


def _of_numbers(parts: Sequence[jsons.Numbers], spec: TensorSpec) -> Array:
    """Lists that came as arrays, one after the other, in the type of `spec`."""
    kind = np.dtype(spec.dtype).kind
    if kind not in "fiu" or (kind != "f" and any(part.flat.dtype.kind == "f" for part in parts)):
        raise _unlike(spec)
    if len({part.flat.dtype for part in parts}) > 1:  # numpy would make floats of int64 with uint64
        return numbers(list(chain.from_iterable(part.flat.tolist() for part in parts)), spec)
    wide = parts[0].flat if len(parts) == 1 else np.concatenate([part.flat for part in parts])
    if kind != "f" and wide.size and (wide.min() < np.iinfo(spec.dtype).min or wide.max() > np.iinfo(spec.dtype).max):
        raise BadRequest(f"{spec.name}: a value does not fit {spec.dtype}")
    return narrowed(wide, spec)


def _unlike(spec: TensorSpec) -> BadRequest:
    wanted = WORDS.get(np.dtype(spec.dtype).kind, spec.dtype)
    return BadRequest(f"{spec.name}: expected {wanted}", hint=f"the model takes {spec}")


def _flat(value: object, name: str) -> tuple[list[Any], tuple[int, ...]]:
    """The leaves of nested lists, and their shape; level by level, without recursion."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        size = len(level[0])
        if not all(isinstance(item, list) and len(item) == size for item in level) or len(shape) == MOST_RANK:
            raise BadRequest(f"{name}: the lists are not all of one size at each level", hint="send a whole tensor")
        shape.append(size)
        level = list(chain.from_iterable(level))
    return level, tuple(shape)

"""What a request to TorchServe's predictions holds: a raw, JSON or form body to tensors and encoded samples. Pure.

Refuses bodies that fit no input of the model, in words that say what it takes. What is encoded (a photo, a sound, a
text) is only found here; the bundle's preprocessing reads it."""

import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest, Exceeded
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols import jsons
from edgekit_runtime.protocols.multipart import MAX_PARTS, Part, read_parts
from edgekit_runtime.protocols.tfserving_values import array, decoded, is_b64
from edgekit_runtime.tensors import Feeds, TensorSpec

WHOLE = ("data", "body")
"""The names that clients give to the one thing they send."""
MOST_DECODED = 256 * 2**20
"""Bytes that the encoded inputs of one request may become."""
MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
RIFFS = (b"WEBP", b"WAVE")
FIELDS = re.compile(rb"[A-Za-z_][\w.%+-]{0,199}=[!-~]*\Z")
"""A form in the style of a query, and nothing else that a client might send."""
Encode = Callable[[bytes], Feeds]


@dataclass(frozen=True, slots=True)
class Takes:
    """What a model takes: its inputs; and where it has preprocessing, the `kind` of thing that this reads ("image",
    "audio", "text"), the input that this is for, and the function that does it."""

    inputs: Sequence[TensorSpec]
    kind: str = ""
    encoded: str = ""
    encode: Encode | None = None

    def __str__(self) -> str:
        return f"the model takes {', '.join(map(str, self.inputs))}"

    def names(self) -> list[str]:
        """The names of the inputs."""
        return [spec.name for spec in self.inputs]

    def alone(self, spec: TensorSpec) -> "Takes":
        """One of the inputs, with the preprocessing if it is for this one."""
        return replace(self, inputs=[spec]) if spec.name == self.encoded else Takes([spec])


@dataclass(slots=True)
class Sent:
    """What a request holds: tensors by input, encoded samples still to be read; and whether the reply is to be
    wrapped in {"predictions": ...}, as the request was in {"instances": ...}."""

    ready: Feeds = field(default_factory=dict)
    encoded: list[bytes] = field(default_factory=list)
    wrapped: bool = False

    def add(self, other: "Sent") -> None:
        """Take what another part of the request holds."""
        self.ready |= other.ready
        self.encoded += other.encoded

    def feeds(self, takes: Takes) -> Feeds | Callable[[], Feeds]:
        """The tensors; a function that makes them where that is work."""
        encode = takes.encode
        if not self.encoded or encode is None:
            return self.ready
        return lambda: {**self.ready, **_stacked(self.encoded, encode, takes.inputs)}


def read(body: bytes, content_type: bytes, takes: Takes, limits: Limits) -> Sent:
    """What `body` holds, by its Content-Type or, where that says nothing, by its first bytes.

    Raises:
        BadRequest: it does not read, or does not fit the model.
        Exceeded: it holds more than a limit allows.
    """
    media = content_type.split(b";", 1)[0].strip().lower()
    if media == b"multipart/form-data":
        return _form(read_parts(body, content_type), takes, limits)
    if media == b"application/x-www-form-urlencoded":  # curl says so of whatever --data-binary sends
        parts = _urlencoded(body)
        return _form(parts, takes, limits) if parts else _body(body, b"", takes, limits)
    return _body(body, media, takes, limits)


def looks_encoded(data: bytes) -> bool:
    """Whether the first bytes are those of a picture or a sound."""
    if data[:4] == b"RIFF":
        return data[8:12] in RIFFS
    if data[:2] == b"BM":
        return len(data) > 14 and struct.unpack_from("<I4x", data, 2)[0] == len(data)
    return data.startswith(MAGICS)


def _body(body: bytes, media: bytes, takes: Takes, limits: Limits) -> Sent:
    """One thing, not a form."""
    if media == b"application/json" or media.endswith(b"+json"):
        return _value(jsons.read(body, limits), takes)
    if media.startswith((b"image/", b"audio/")) and takes.encode is None:
        raise BadRequest(f"this model does not take {media.decode('latin-1')[:50]}", hint=f"send tensors: {takes}")
    said = media.partition(b"/")[0].decode("latin-1") in (takes.kind, "image", "audio")
    if takes.encode is not None and (said or looks_encoded(body)):
        return Sent(encoded=[body])
    raw = _raw(body, takes)
    if raw is not None and media == b"application/octet-stream":
        return raw
    if body.lstrip()[:1] in (b"[", b"{"):
        try:
            value = jsons.read(body, limits)
        except BadRequest:  # a text or a tensor may begin like that
            if raw is None and takes.kind != "text":
                raise
        else:
            return _value(value, takes)
    if raw is not None and takes.kind != "text":
        return raw
    if takes.encode is not None:
        return Sent(encoded=[body])
    raise BadRequest(f"the body of {len(body)} bytes fits no input", hint=f"send JSON; {takes}")


def _form(parts: Sequence[Part], takes: Takes, limits: Limits) -> Sent:
    by_name = {spec.name: spec for spec in takes.inputs}
    if len(parts) == 1 and parts[0].name in WHOLE and parts[0].name not in by_name:
        return _body(parts[0].data, parts[0].content_type, takes, limits)
    found: dict[str, Sent] = {}
    for part in parts:
        name = takes.encoded if part.name in WHOLE and part.name not in by_name else part.name
        if name not in by_name or name in found:
            raise BadRequest(f"no use for the part {part.name[:50]!r}", hint=str(takes))
        found[name] = _body(part.data, part.content_type, takes.alone(by_name[name]), limits)
    return _joined(found.values())


def _urlencoded(body: bytes) -> list[Part]:
    """The fields of a form in the older style; none where the body is no such form."""
    from urllib.parse import parse_qsl

    if not FIELDS.match(body):
        return []
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=MAX_PARTS, errors="strict")
    except ValueError as error:
        raise BadRequest("the form does not read", hint="send the bytes with a Content-Type of their own") from error
    if len({name for name, _ in pairs}) != len(pairs):
        raise BadRequest("the form has a name twice", hint="send several samples as JSON")
    return [Part(name, value.encode()) for name, value in pairs]


def _raw(body: bytes, takes: Takes) -> Sent | None:
    """A body that is nothing but the little-endian bytes of the one input, or its text; None where it cannot be."""
    if len(takes.inputs) != 1:
        return None
    spec = takes.inputs[0]
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "O":
        text = None if b"\0" in body or takes.kind else _text(body)
        return None if text is None else Sent({spec.name: array([text] if len(spec.shape) == 1 else [[text]], spec)})
    row = math.prod(n for n in spec.shape if n is not None) * dtype.itemsize
    if row == 0 or not body or len(body) % row or spec.shape.count(None) > 1:
        return None
    if None not in spec.shape and len(body) != row:
        return None
    if dtype.kind == "b" and max(body) > 1:
        raise BadRequest(f"{spec.name}: booleans are bytes of 0 or 1")
    shape = [len(body) // row if n is None else n for n in spec.shape]
    value = np.frombuffer(body, dtype.newbyteorder("<")).reshape(shape)
    return Sent({spec.name: value.astype(dtype, copy=False)})


def _text(body: bytes) -> str | None:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _value(value: Any, takes: Takes) -> Sent:
    """What a JSON value holds."""
    names = takes.names()
    for _ in range(3):  # {"body": {"data": ...}} and the like
        key = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None
        if key == "instances" and key not in names:
            return _instances(value[key], takes)
        if key not in WHOLE or key in names:
            break
        value = value[key]
    if isinstance(value, dict) and not is_b64(value):
        if value.keys() != set(names):
            raise BadRequest("the body does not name the inputs", hint=f"{takes}; or send instances, data or a list")
        return _joined(_alone(value[spec.name], takes.alone(spec), batched=False) for spec in takes.inputs)
    return _alone(value, takes, batched=False)


def _instances(rows: Any, takes: Takes) -> Sent:
    """A list of samples, each without the axis of the batch."""
    names = set(takes.names())
    if isinstance(rows, list) and any(isinstance(row, dict) for row in rows):
        rows = [_opened(row) if isinstance(row, dict) and not row.keys() & names else row for row in rows]
        rows = jsons.plain(rows)
    if not isinstance(rows, list | jsons.Numbers):
        raise BadRequest("instances must be a list", hint='send {"instances": [...]}')
    if isinstance(rows, list) and rows and isinstance(rows[0], dict) and not is_b64(rows[0]):
        if not all(isinstance(row, dict) and row.keys() == names for row in rows):
            raise BadRequest("the instances do not all name the inputs", hint=str(takes))
        columns = {name: [row[name] for row in rows] for name in names}
        sent = _joined(_alone(columns[spec.name], takes.alone(spec), batched=True) for spec in takes.inputs)
    else:
        sent = _alone(rows, takes, batched=True)
    sent.wrapped = True
    return sent


def _opened(row: dict[str, Any]) -> Any:
    return next(iter(row.values())) if len(row) == 1 and next(iter(row)) in WHOLE else row


def _alone(value: Any, takes: Takes, batched: bool) -> Sent:
    """One value: encoded samples, or the only input. `batched`: its first axis is the batch for sure."""
    samples = value if isinstance(value, list) and value and (batched or _is_encoded(value[0], takes)) else [value]
    if _is_encoded(samples[0], takes):
        if not all(_is_encoded(one, takes) for one in samples):
            raise BadRequest("some samples are encoded and some are not", hint="send all of them alike")
        return Sent(encoded=[_bytes(one, takes) for one in samples])
    if len(takes.inputs) != 1:
        raise BadRequest(f"the model has {len(takes.inputs)} inputs: name each", hint=str(takes))
    spec = takes.inputs[0]
    return Sent({spec.name: array(value if batched else _with_batch(value, spec), spec)})


def _is_encoded(value: Any, takes: Takes) -> bool:
    return takes.encode is not None and (isinstance(value, str) or is_b64(value))


def _bytes(value: Any, takes: Takes) -> bytes:
    """An encoded sample's bytes: a text as it is, anything else in base64."""
    if isinstance(value, str):
        return value.encode() if takes.kind == "text" else decoded({"b64": value})
    return decoded(value)


def _with_batch(value: Any, spec: TensorSpec) -> Any:
    """The value with the axis of the batch, where it lacks no more than that."""
    depth, inner = 0, value
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0] if inner else None
    depth += len(inner.shape) if isinstance(inner, jsons.Numbers) else 0
    if depth != len(spec.shape) - 1 or spec.shape[0] not in (None, 1):
        return value
    return jsons.Numbers(value.flat, (1, *value.shape)) if isinstance(value, jsons.Numbers) else [value]


def _joined(pieces: Iterable[Sent]) -> Sent:
    whole = Sent()
    for piece in pieces:
        whole.add(piece)
    return whole


def _stacked(samples: Sequence[bytes], encode: Encode, specs: Sequence[TensorSpec]) -> Feeds:
    """The encoded samples, read and put into one batch."""
    ranks = {spec.name: len(spec.shape) for spec in specs}
    made: list[Feeds] = []
    for sample in samples:
        made.append(encode(sample))
        if len(made) * sum(value.nbytes for value in made[0].values()) > MOST_DECODED:
            raise Exceeded("too many samples at once", hint="send fewer in one request", limit="values")
    if len(made) == 1:
        return made[0]
    try:
        return {
            name: np.concatenate([one[name] if one[name].ndim == ranks.get(name) else one[name][None] for one in made])
            for name in made[0]
        }
    except ValueError as error:  # sounds of different lengths
        raise BadRequest("the samples are not all of one size", hint="send them one by one") from error

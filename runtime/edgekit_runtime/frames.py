"""Messages between a build and a worker: a JSON head, then the raw bytes of its arrays, framed by their lengths.

Refuses what is larger than its bound, arrays of anything but plain numbers, and bytes that are no message."""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.tensors import Array, Feeds

MAGIC = b"EKW1"
LENGTHS = struct.Struct(">4sIQ")
"""The magic, the bytes of the head, the bytes of the body."""
MAX_HEAD, MAX_BODY = 2**22, 2**30
NUMBERS = re.compile(r"[<|][fiub][1248]")
"""The dtypes that travel, as numpy writes them: floats, integers and truth values, little endian."""
MAX_AXES = 32


@dataclass(frozen=True)
class Message:
    """What was said: `head` is a JSON object, `arrays` what goes with it."""

    head: Mapping[str, Any]
    arrays: Feeds = field(default_factory=dict)


def pack(message: Message) -> bytes:
    """The message as it travels.

    Raises:
        BadRequest: it is too large, or an array holds something else than numbers.
    """
    dtypes = {name: _dtype(name, value) for name, value in message.arrays.items()}
    listed = [{"name": name, "dtype": dtypes[name], "shape": list(v.shape)} for name, v in message.arrays.items()]
    head = json.dumps({**message.head, "arrays": listed}).encode()
    size = sum(value.nbytes for value in message.arrays.values())
    _bounded(len(head), size)
    body = [np.asarray(value, dtypes[name]).tobytes() for name, value in message.arrays.items()]
    return b"".join([LENGTHS.pack(MAGIC, len(head), size), head, *body])


def read(stream: BinaryIO) -> Message | None:
    """The next message; None where the stream ends before one begins.

    Raises:
        BadRequest: what comes is no message, too large, or ends in the middle.
    """
    start = stream.read(LENGTHS.size)
    if not start:
        return None
    if len(start) < LENGTHS.size or not start.startswith(MAGIC):
        raise BadRequest(f"no message: {_shown(start)}")
    _, head_size, body_size = LENGTHS.unpack(start)
    _bounded(head_size, body_size)
    text, body = stream.read(head_size), stream.read(body_size)
    if len(text) < head_size or len(body) < body_size:
        raise BadRequest("a message ended in the middle")
    try:
        head = json.loads(text)
        return Message(head, _arrays(head.pop("arrays"), body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"a message that does not read: {type(error).__name__}: {error}") from error


def _arrays(listed: list[dict[str, Any]], body: bytes) -> Feeds:
    """The arrays that the head lists, each a copy of its own; they fill the body."""
    found: Feeds = {}
    at = 0
    for entry in listed:
        shape, dtype = entry["shape"], entry["dtype"]
        if not NUMBERS.fullmatch(dtype) or len(shape) > MAX_AXES or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"{entry['name']!r} is no array of numbers")
        count = math.prod(shape)
        found[str(entry["name"])] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
        at += count * np.dtype(dtype).itemsize
    if at != len(body):
        raise ValueError(f"{len(body)} bytes came where the arrays take {at}")
    return found


def _dtype(name: str, value: Array) -> str:
    found: str = value.dtype.newbyteorder("<").str
    if not NUMBERS.fullmatch(found):
        raise BadRequest(f"{name}: {value.dtype.name} cannot be sent to a worker", hint="send numbers")
    return found


def _bounded(head: int, body: int) -> None:
    if head > MAX_HEAD or body > MAX_BODY:
        raise BadRequest(
            f"a message of {(head + body) / 1e6:,.0f} MB; at most {MAX_BODY / 1e6:,.0f} MB travel at once",
            hint="send fewer samples at once",
        )


def _shown(start: bytes) -> str:
    return repr(start.decode("ascii", "replace"))

"""Long runs of nothing but numbers in a JSON text, found and read straight into arrays. Pure.

Refuses nothing: a run that is anything but one regular list is left to the reader of the whole text."""

import json
import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit_runtime.limits import Limits
from edgekit_runtime.tensors import Array

CHUNK = 2**18
"""Bytes worked on between two points where other threads get their turn: a few milliseconds."""
RUN = 2**11
"""Bytes without a quote that may be worth reading apart."""
QUOTES = 10_000
"""How many quotes are looked at to find such runs: a text with more is mostly words."""

NUMBERS = b"0123456789+-.eE \t\r\nNaInfity"
FLAT = bytes.maketrans(b"[]", b"  ")

TYPES = {"q": np.int64, "Q": np.uint64, "d": np.float64}
"""By the codes of `array`; numpy's own "q" is another type than its int64 to some engines."""

Loads = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A JSON list of nothing but numbers, nested as `shape`: `flat` holds float64 where one of them is written
    as a float, else int64 or uint64. It may not be writable."""

    flat: Array
    shape: tuple[int, ...]

    def tolist(self) -> Any:
        """The list as plain JSON values."""
        return self.flat.reshape(self.shape).tolist()


def exact(found: list[Any], floats: bool) -> Array | None:
    """Numbers as float64 where there are `floats` among them, else as int64 or uint64; None where they do not fit."""
    codes = "d" if floats else "qQd"
    for code in codes:
        try:
            made = array(code, found)
        except (TypeError, OverflowError):  # a float among integers, or no number, or too large
            continue
        if code == "d" and not floats and not any(type(value) is float for value in found):
            return None
        return np.frombuffer(made, TYPES[code])
    return None


def runs(text: bytes) -> Iterator[tuple[int, int]]:
    """Where long lists without a string in them may lie."""
    at, inside = 0, False
    for _ in range(QUOTES):
        quote = text.find(b'"', at)
        stop = len(text) if quote < 0 else quote
        if inside:
            before = text[at:stop]
            inside = (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
        else:
            start = text.find(b"[", at, stop) if stop - at > RUN else -1
            brace = text.find(b"}", start, stop) if start >= 0 else -1
            end = text.rfind(b"]", start, stop if brace < 0 else brace) + 1 if start >= 0 else 0
            if end:
                yield start, end
            inside = True
        if quote < 0:
            return
        at = quote + 1


def run(text: bytes, where: tuple[int, int], loads: Loads, limits: Limits) -> Numbers | None:
    """The numbers there, from a `[` to a `]`; None where it is anything but one regular list within the limits."""
    start, end = where
    bones = b"".join(text[at : min(at + CHUNK, end)].translate(None, NUMBERS) for at in range(start, end, CHUNK))
    shape = _shape(bones, limits.depth) if len(bones) <= 2 * limits.values else None
    if shape is None:
        return None
    parts, at = [], start
    while at < end:
        comma = text.find(b",", min(at + CHUNK, end), end)
        stop = end if comma < 0 else comma
        part = _piece(text[at:stop].translate(FLAT), loads)
        if part is None:
            return None
        parts.append(part)
        at = stop + 1
    flat = _joined(parts)
    return Numbers(flat, shape) if flat is not None and len(flat) == math.prod(shape) else None


def _shape(bones: bytes, limit: int) -> tuple[int, ...] | None:
    """The sizes of a regular nested list from its brackets and commas alone: they are what the sizes demand."""
    depth = len(bones) - len(bones.lstrip(b"["))
    unit, sizes = b"", []
    for level in range(min(depth, limit + 1)):
        end = bones.find(b"]" * (level + 1))
        size, left = divmod(end + level - (depth - 1 - level), len(unit) + 1)
        if end < 0 or left or size < 1:
            return None
        unit = b"[" + b",".join([unit] * size) + b"]" if level else b"[" + b"," * (size - 1) + b"]"
        sizes.append(size)
    return tuple(reversed(sizes)) if depth and unit == bones else None


def _piece(text: bytes, loads: Loads) -> Array | None:
    """Numbers between commas as an array."""
    text = b"[" + text + b"]"
    try:
        values = loads(text)
    except ValueError:
        try:
            values = json.loads(text)  # NaN, and numbers beyond float64
        except ValueError:
            return None
    return exact(values, any(sign in text for sign in (b".", b"e", b"E", b"N", b"I"))) if values else None


def _joined(parts: list[Array]) -> Array | None:
    kinds = {part.dtype.kind for part in parts}
    if kinds == {"i", "u"}:
        if any(part.dtype.kind == "i" and part.min() < 0 for part in parts):
            return None
        parts = [part.astype(np.uint64) for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

"""Strict, fast, bounded JSON for all protocols: `read` bytes to values, `write` values to bytes. Pure.

Refuses what is not JSON in UTF-8, keys given twice, lone surrogates, and more depth or values than the limits.
NaN, Infinity and -Infinity are read and written as these tokens."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest, Exceeded
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols.runs import CHUNK, Loads, Numbers, exact, run, runs
from edgekit_runtime.tensors import Array

BIG = 2**20
LONG = 64
"""A list this long is worth an array."""
KEYS = re.compile(rb'"[ \t\r\n]*+:')
LONE = re.compile(rb"\\u[dD][89a-fA-F]")
PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
BONES = b'[]{},:"'
NOT_BONES = bytes(set(range(256)) - set(BONES))
STEPS: Array = np.zeros(256, np.int8)
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1
MARK = "-0.0e-91736455"
"""A number that stands for a run of numbers that was taken out; a text that holds it itself is read whole."""

__all__ = ["Numbers", "around", "listed", "plain", "read", "write", "write_array"]


def read(text: bytes, limits: Limits) -> Any:
    """The value in `text`. A list of many numbers comes as `Numbers`, see `plain`.

    Raises:
        BadRequest: it is not JSON, or says a key twice.
        Exceeded: it is deeper than `limits.depth`, or holds more than `limits.values` values.
    """
    fast, _ = _orjson()
    if len(text) > BIG:
        text, found = _lifted(text, fast or json.loads, limits)
        _measure(text, found, limits)
        if found:
            return _slow(text, found)
    elif len(text) > limits.values or (not fast and text.count(b"[") + text.count(b"{") > limits.depth):
        _measure(text, {}, limits)
    if fast is not None:
        try:
            value = fast(text)  # ends by itself at a depth that is no danger
        except ValueError:  # not JSON, or NaN, or a number beyond float64: the standard library tells which
            _measure(text, {}, limits)
            return _slow(text)
        if _once_each(value, text, limits):
            return value
    return _slow(text)


def around(text: bytes) -> tuple[bytes, int, int] | None:
    """What a text says around its first long list called "data", and where that is; None where there is none.

    Two texts with the same around it differ in nothing but that list, if one of them is JSON and `listed` reads both.
    """
    start = text.find(b"[", text.find(b'"data"') + 1)
    end = text.find(b"]", start) + 1
    if start < 0 or end - start < 2 * LONG or len(text) > BIG:
        return None
    return text[:start] + b"\0" + text[end:], start, end


def listed(text: bytes) -> Numbers | None:
    """The numbers of a flat JSON list; None where it is anything else, or orjson is not installed."""
    fast, _ = _orjson()
    if fast is None or b"t" in text or b"f" in text:  # true and false would pass for numbers
        return None
    try:
        found = fast(text)
    except ValueError:
        return None
    flat = exact(found, b"." in text or b"e" in text or b"E" in text)
    return None if flat is None else Numbers(flat, (len(flat),))


def plain(value: Any) -> Any:
    """`value` with every `Numbers` in it as a list, for who wants no arrays."""
    if isinstance(value, Numbers):
        return value.tolist()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def write(value: Any) -> bytes:
    """`value` as JSON text; numpy arrays in it become lists."""
    _, dumps = _orjson()
    if dumps is not None and _finite(value):
        try:
            return dumps(value)
        except TypeError:  # large integers, lone surrogates, arrays that do not lie in order
            pass
    return json.dumps(value, separators=(",", ":"), default=_listed).encode()


def write_array(value: Array) -> bytes:
    """A flat JSON list of numbers or booleans, in row-major order."""
    flat, step = value.reshape(-1), CHUNK // 8
    if len(flat) > step:
        pieces = [write_array(flat[at : at + step])[1:-1] for at in range(0, len(flat), step)]
        return b"[" + b",".join(pieces) + b"]"
    _, dumps = _orjson()
    if dumps is not None and len(flat) and (flat.dtype.kind != "f" or np.isfinite(flat).all()):
        try:
            return dumps(np.ascontiguousarray(flat))
        except TypeError:  # a type that orjson does not know
            pass
    return json.dumps(flat.tolist(), separators=(",", ":")).encode()


_FOUND: list[tuple[Loads | None, Callable[[Any], bytes] | None]] = []


def _orjson() -> tuple[Loads | None, Callable[[Any], bytes] | None]:
    """orjson's reader and writer where it is installed: both are several times faster than the standard library's."""
    if not _FOUND:
        try:
            orjson = import_module("orjson")
        except ImportError:
            _FOUND.append((None, None))
        else:
            _FOUND.append((orjson.loads, partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)))
    return _FOUND[0]


def _measure(text: bytes, found: dict[str, Numbers], limits: Limits) -> None:
    """Hold the depth and the number of values against the limits, piece by piece, without recursion.

    By the memory that it takes, a list or object counts as eight numbers, a string as three, a key as fifteen.
    """
    depth = max((len(numbers.shape) for numbers in found.values()), default=0)
    values, inside, at = 1 + sum(len(numbers.flat) for numbers in found.values()), 0, 0
    while at < len(text):
        piece = text[at : at + CHUNK]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # an escape is not cut in two
            piece = text[at : at + CHUNK + 1]
        at += len(piece)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, NOT_BONES).split(b'"')
        bones = b"".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1
        steps = STEPS[np.frombuffer(bones, np.uint8)]
        levels = depth + np.cumsum(steps, dtype=np.int64)
        if levels.max(initial=0) > limits.depth:
            raise Exceeded(f"the JSON is nested deeper than {limits.depth}", hint="send flat data", limit="depth")
        depth = int(levels[-1]) if bones else depth
        values += int(np.count_nonzero(steps >= 0)) + 7 * int(np.count_nonzero(steps > 0)) + len(parts) - 1
        values += 11 * bones.count(b":")
        if values > limits.values:
            raise Exceeded(f"the JSON has more than {limits.values} values", "send binary tensors", limit="values")


def _once_each(value: Any, text: bytes, limits: Limits) -> bool:
    """Whether no object in `value` had a key twice: the keys that are left are as many as the text has.

    On the way, lists of many numbers become `Numbers`. Signs within strings only make the text's count larger.
    """
    keys, depth, level, booleans = 0, 0, [value], None
    while level:
        depth += 1
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                keys += len(item)
                for key, inner in item.items():
                    if type(inner) is list and inner and (len(inner) >= LONG or type(inner[0]) is list):
                        booleans = _booleans(text) if booleans is None else booleans
                        made = None if booleans else _numbers(inner, limits.depth - depth)
                        if made is not None:
                            item[key] = made
                            continue
                    if type(inner) is dict or type(inner) is list:
                        below.append(inner)
            elif type(item) is list:
                below += [inner for inner in item if type(inner) is dict or type(inner) is list]
        level = below
        if depth > limits.depth:
            raise Exceeded(f"the JSON is nested deeper than {limits.depth}", hint="send flat data", limit="depth")
    return _colons(text, keys) == keys or len(KEYS.findall(text)) == keys


def _colons(text: bytes, most: int) -> int:
    """How many colons are in the text, counted to one above `most`."""
    count, at = 0, text.find(b":")
    while at >= 0 and count <= most:
        count += 1
        at = text.find(b":", at + 1)
    return count


def _booleans(text: bytes) -> bool:
    """Whether true or false may be within a long list: it would have no quotes in it."""
    if b"r" not in text and b"l" not in text:
        return False
    return any(len(part) >= 2 * LONG - 1 and (b"r" in part or b"l" in part) for part in text.split(b'"'))


def _numbers(found: list[Any], depth: int) -> Numbers | None:
    """A regular list of many numbers, nested up to `depth`, as an array; else None. It must hold no booleans."""
    shape = [len(found)]
    while type(found[0]) is list:
        size = len(found[0])
        if not size or len(shape) >= depth or not all(type(row) is list and len(row) == size for row in found):
            return None
        found = list(chain.from_iterable(found))
        shape.append(size)
    if len(found) < LONG or type(found[0]) not in (int, float):
        return None
    flat = exact(found, type(found[0]) is float)
    return None if flat is None else Numbers(flat, tuple(shape))


def _lifted(text: bytes, loads: Loads, limits: Limits) -> tuple[bytes, dict[str, Numbers]]:
    """`text` without its long runs of numbers, and what stands for them there; nothing where that is in doubt."""
    rest: list[bytes] = []
    found: dict[str, Numbers] = {}
    at = 0
    for start, end in runs(text):
        numbers = run(text, (start, end), loads, limits)
        if numbers is not None:
            word = f"{MARK}{len(found)}"
            rest += [text[at:start], b" " + word.encode() + b" "]
            found[word], at = numbers, end
    rest.append(text[at:])
    if any(MARK.encode() in piece for piece in rest[::2]):
        return text, {}
    return b"".join(rest), found


def _slow(text: bytes, found: dict[str, Numbers] | None = None) -> Any:
    """By the standard library, which sees every key; the numbers named in `found` stand for its values."""
    try:
        words = text.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "with binary data, send Inference-Header-Content-Length"
        raise BadRequest("the body is not UTF-8", hint=hint) from error
    if b"\\u" in text and LONE.search(PAIR.sub(b"", text.replace(b"\\\\", b""))):
        raise BadRequest("the JSON has half a character: a lone surrogate", hint="send whole characters")
    hook = None if not found else lambda word: found.get(word) or float(word)
    try:
        return json.loads(words, object_pairs_hook=_object, parse_float=hook)
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        where = "" if found else f" at character {error.pos}"
        raise BadRequest(f"the body is not JSON: {error.msg}{where}") from error
    except ValueError as error:
        raise BadRequest("the body is not JSON: an integer with too many digits") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise BadRequest("a JSON object has the same key twice")
    return made


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list | tuple) else True


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")

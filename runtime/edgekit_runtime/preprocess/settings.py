"""The settings of a table, read one by one: each reader takes a key and what was written, and gives a value.

Refuses what is unknown, of the wrong type or out of range, and says what to write instead."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array

Reader = Callable[[str, Any], Any]
REALS = ("float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64")


def read_table(raw: Mapping[str, Any], readers: Mapping[str, Reader]) -> dict[str, Any]:
    """What was set, by name; what is None is left out.

    Raises:
        EdgeKitError: a setting is unknown, or its reader refuses it.
    """
    known = ["kind", *readers]
    for key in raw:
        if key not in known:
            raise EdgeKitError(f"preprocessing has no setting {key!r}", hint=guess(str(key), known))
    return {key: readers[key](key, value) for key, value in raw.items() if key in readers and value is not None}


def one_of(known: Iterable[str]) -> Reader:
    """A reader of one of these words."""
    words = list(known)

    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise EdgeKitError(f"preprocessing {key} = {value!r} is not known", hint=guess(str(value), words))
        return value

    return read


def text(key: str, value: Any) -> str:
    """Some text."""
    if not isinstance(value, str) or not value:
        raise EdgeKitError(f"preprocessing {key} = {value!r} is not a text", hint=f'write for example {key} = "x"')
    return value


def flag(key: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise EdgeKitError(f"preprocessing {key} = {value!r} is neither true nor false", hint=f"write {key} = true")
    return value


def whole(least: int, most: int) -> Reader:
    """A reader of a whole number from `least` to `most`."""

    def read(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise EdgeKitError(
                f"preprocessing {key} = {value!r} is not a whole number from {least} to {most}",
                hint=f"write for example {key} = {max(least, 1)}",
            )
        return value

    return read


def number(key: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EdgeKitError(f"preprocessing {key} = {value!r} is not a number", hint=f"write for example {key} = 1.0")
    return float(value)


def positive(key: str, value: Any) -> float:
    """A finite number above 0."""
    if number(key, value) <= 0:
        raise EdgeKitError(f"preprocessing {key} = {value!r} is not above 0", hint=f"write for example {key} = 1.0")
    return float(value)


def numbers(key: str, value: Any) -> tuple[float, ...]:
    """A number or several."""
    return tuple(number(key, item) for item in (value if isinstance(value, list | tuple) else [value]))


def check_normal(scale: float, mean: tuple[float, ...], std: tuple[float, ...], count: int, of: str) -> None:
    """Raise unless there is one mean and one std, or one for each of `count` channels or bands, and nothing is 0."""
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, count):
            raise EdgeKitError(
                f"preprocessing {key} has {len(values)} numbers for {count} {of}",
                hint=f"give 1 or {count}" if count > 1 else "give 1",
            )
    if scale == 0 or 0 in std:
        raise EdgeKitError("preprocessing scale and std cannot be 0", hint="leave them out for 1.0")


def in_dtype(values: Array, dtype: str) -> Array:
    """Real `values` in `dtype`; integers are rounded to nearest even and saturated."""
    if np.issubdtype(np.dtype(dtype), np.integer):
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return np.ascontiguousarray(values, dtype=dtype)


def guess(word: str, known: list[str]) -> str:
    """A hint: the one that was meant, or all there are."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5) or [k for k in known if k.lower() == word.lower()]
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"

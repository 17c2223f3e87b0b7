"""The tensor rules: what a model takes and gives, by name, type and shape.

Refuses a value that does not fit its spec, saying what was wanted and what came."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_runtime.errors import BadRequest

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Runner = Callable[[Feeds], Feeds]
"""An opened model: named arrays in, named arrays out. A fake is a lambda."""

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: `dtype` is numpy's name, a `None` in `shape` is any size.

    `scale` and `zero_point` are set where the numbers are integers that stand for real ones:
    real = (integer - zero_point) * scale.
    """

    name: str
    dtype: str
    shape: Shape
    scale: float | None = None
    zero_point: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join('?' if n is None else str(n) for n in self.shape)}]"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits."""
        if len(shape) != len(self.shape):
            return False
        for want, got in zip(self.shape, shape, strict=True):  # noqa: SIM110  a generator costs every request 1 us
            if want is not None and want != got:
                return False
        return True

    def check(self, value: Array) -> None:
        """Raise `BadRequest` unless `value` has this spec's dtype and shape."""
        if dtype_name(value.dtype) != self.dtype:
            raise BadRequest(f"{self.name}: expected {self.dtype}, got {value.dtype.name}")
        if not self.accepts(value.shape):
            raise BadRequest(f"{self.name}: expected shape {_words(self.shape)}, got {_words(value.shape)}")


def dtype_name(dtype: np.dtype[Any]) -> str:
    """`dtype.name`, which numpy works out anew, in Python, each time that it is asked."""
    name = _NAMES.get(dtype)
    if name is None:
        name = dtype.name
        if len(_NAMES) < 100:
            _NAMES[dtype] = name
    return name


_NAMES: dict[np.dtype[Any], str] = {}


def check_feeds(specs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> None:
    """Raise `BadRequest` unless `feeds` holds exactly the tensors of `specs`, each fitting."""
    for spec in specs:
        value = feeds.get(spec.name)
        if value is None:
            break
        spec.check(value)
    else:
        if len(feeds) == len(specs):
            return
    wanted = {spec.name for spec in specs}
    if missing := sorted(wanted - feeds.keys()):
        raise BadRequest(f"missing input {', '.join(missing)}", hint=f"send {', '.join(map(str, specs))}")
    if extra := sorted(feeds.keys() - wanted):
        raise BadRequest(f"no such input: {', '.join(extra)}", hint=f"send {', '.join(map(str, specs))}")


def quantized(values: Array, spec: TensorSpec) -> Array:
    """Real `values` as the integers of `spec`: rounded to nearest even, saturated."""
    scale, zero_point = _scale(spec)
    if np.isnan(values).any():
        raise BadRequest(f"{spec.name}: NaN in values that the artifact holds as {spec.dtype}")
    limits = np.iinfo(spec.dtype)
    steps = np.rint(values / np.float32(scale)) + zero_point
    whole: Array = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
    return whole


def dequantized(values: Array, spec: TensorSpec) -> Array:
    """The real float32 values that the integers of `spec` stand for."""
    scale, zero_point = _scale(spec)
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _scale(spec: TensorSpec) -> tuple[float, int]:
    assert spec.scale is not None, f"{spec.name} has no scale"
    return spec.scale, spec.zero_point or 0


def _words(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"

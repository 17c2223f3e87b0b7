"""Looks at one sample's answer: which class, how sure and how torn; or the values, where they are no scores.

Refuses nothing: an answer that holds a NaN is of class -1."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekit_runtime.answer import probabilities
from edgekit_runtime.drift.looking import Look, anything, table
from edgekit_runtime.tensors import Array, TensorSpec, dequantized

MOST_VALUES = 8
NONE = -1


@dataclass(frozen=True)
class Verdict:
    """`see` gives the class of one sample's scores and some numbers; `names` are theirs, that of the class first."""

    names: tuple[str, ...]
    see: Callable[[Array], tuple[int, list[float]]]


def scores(spec: TensorSpec, count: int, values: bool) -> Verdict:
    """At `count` scores, logits or probabilities alike: what is no distribution goes through softmax first.

    Confidence is by how much the best class leads the second, entropy is in parts of its largest possible value.
    With `values` the first numbers are told too: without labels nobody knows whether they are scores.
    """
    shown = min(count, MOST_VALUES) if values else 0

    def see(row: Array) -> tuple[int, list[float]]:
        flat = _real(row, spec)
        told = flat[:shown].tolist()
        if not math.isfinite(flat.sum()):
            return NONE, [math.nan, math.nan, *told]
        shares = probabilities(flat)
        best = int(shares.argmax())
        top = float(shares[best])
        entropy = -float(shares.dot(np.log(np.maximum(shares, 1e-30)))) / largest
        shares[best] = -1.0
        return best, [top - float(shares.max()), entropy, *told]

    largest = math.log(count)
    return Verdict(("class", "confidence", "entropy", *(f"output_{number}" for number in range(shown))), see)


def number_of_class() -> Verdict:
    """At an integer that is a class already."""
    return Verdict(("class",), lambda row: (int(row.reshape(-1)[0]) if row.size else NONE, []))


def values(spec: TensorSpec, count: int | None) -> Look:
    """At numbers that are no scores: each where they are few, else their mean and spread."""
    if count is not None and count <= MOST_VALUES:
        each = table(count)
        names = tuple(name.replace("value", "output") for name in each.names[1:])
        return Look(names, lambda row: each.see(_real(row, spec))[1:])
    many = anything()
    names = tuple(f"output_{name}" for name in many.names)
    return Look(names, lambda row: many.see(_real(row, spec)))


def _real(row: Array, spec: TensorSpec) -> Array:
    flat = row.reshape(-1)
    if spec.scale is not None:
        return dequantized(flat, spec).astype(np.float64)
    return flat.astype(np.float64)

"""The range that holds a given part of all values that a histogram counted, cut at both ends alike. Pure.

Refuses nothing: a histogram without counts has no range but 0 to 0."""

import numpy as np
from edgekit_runtime.tensors import Array

SLACK = 1e-12
"""In parts of all counts: what rounding adds to a share that falls on the edge of a bin."""


def held_range(counts: Array, edges: Array, percentile: float) -> tuple[float, float]:
    """(low, high) in the unit of `edges`: what is left when (100 - `percentile`) / 2 percent of the values, or as many
    whole bins as have no more than that, are cut off at each end.

    counts: [bins], how many values each bin holds; edges: [bins + 1], ascending.
    """
    total = float(counts.sum())
    if total <= 0:
        return 0.0, 0.0
    cut = ((100.0 - percentile) / 200.0 + SLACK) * total
    first = min(int(np.searchsorted(np.cumsum(counts), cut, side="right")), len(counts) - 1)
    last = len(counts) - 1 - int(np.searchsorted(np.cumsum(counts[::-1]), cut, side="right"))
    if last < first:
        return float(edges[0]), float(edges[-1])
    return float(edges[first]), float(edges[last + 1])

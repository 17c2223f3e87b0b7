"""From output tensors to words: the labels with the highest scores.

Refuses to name a class where no output has one value per label, or where a value is not a number."""

from collections.abc import Mapping, Sequence

import numpy as np

from edgekit_runtime.tensors import Array


def top(outputs: Mapping[str, Array], labels: Sequence[str], k: int) -> list[tuple[str, float]]:
    """The `k` best (label, score) of the first sample; none where no output is scores of `labels`."""
    scores = next((row for value in outputs.values() if (row := _row(value, len(labels))) is not None), None)
    if scores is None or not labels or not np.all(np.isfinite(scores)):
        return []
    shares = probabilities(scores)
    best = np.argsort(-shares, kind="stable")[:k]
    return [(labels[index], float(shares[index])) for index in best]


def probabilities(scores: Array) -> Array:
    """`scores` as they are if they already are a distribution (integers round: within 5 %), else their softmax."""
    values = scores.astype(np.float64)
    if values.min() >= -1e-6 and values.max() <= 1 + 1e-6 and abs(values.sum() - 1) <= 0.05:
        return values
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def _row(value: Array, count: int) -> Array | None:
    """The first sample of an output with `count` values per sample."""
    if value.dtype.kind not in "fiu" or value.size == 0 or value.ndim == 0:
        return None
    row = value.reshape(value.shape[0], -1)[0] if value.ndim > 1 else value
    return row if row.size == count else None

"""What each answer scores by a metric: the one rule that the build and the device measure quality with. Pure.

Refuses nothing; a NaN is never right, and its distance is NaN."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_runtime.tensors import Array

SHARES = ("top1", "top5", "agreement")
"""Each answer is right (1) or not (0): more is better."""
METRICS = (*SHARES, "mae", "cosine")


def marks(metric: str, outputs: Sequence[Array], right: Sequence[Any] | Array) -> Array:
    """A score for each output, without a batch axis: 0 or 1 for shares, a real number else; less is better for mae.

    `right` is what each is held against: the class for top1 and top5, the reference's best class for agreement (see
    `best_classes`), the true numbers for mae, the reference's answer for cosine. The shapes must fit.
    """
    if metric == "cosine":
        pairs = zip(outputs, right, strict=True)
        return np.array([cosine(np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)) for a, b in pairs])
    if metric == "mae":
        return np.array([np.abs(squeezed(a) - squeezed(b)).mean() for a, b in zip(outputs, right, strict=True)])
    wanted = np.asarray(right)
    if metric == "top5":
        best = np.argsort(-np.stack(outputs), axis=1, kind="stable")[:, :5]
        return np.asarray((best == wanted[:, None]).any(1), np.float64)
    best = best_classes(outputs)
    return np.asarray((best == wanted) & (best >= 0), np.float64)


def best_classes(outputs: Sequence[Array]) -> Array:
    """The best class of each output [n]; -1 where a NaN says nothing."""
    scores = np.stack(outputs)
    best = scores.argmax(1)
    return np.where(np.isnan(scores).any(1), -1, best) if scores.dtype.kind == "f" else best


def worse(metric: str, reference: Array, found: Array) -> Array:
    """How much worse each sample was answered [n]."""
    return found - reference if metric == "mae" else reference - found


def amount(metric: str, value: float) -> str:
    """A drop in words: +0.12pt, or in the metric's own units."""
    return f"{value * 100:+.2f}pt" if metric in SHARES else f"{value:+.4g}"


def cosine(a: Array, b: Array) -> float:
    """The cosine of two vectors; 1 for two of zeros."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    if size == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(a @ b / size)


def squeezed(value: Any) -> Array:
    """Real numbers without axes of one."""
    return np.squeeze(np.asarray(value, np.float64))

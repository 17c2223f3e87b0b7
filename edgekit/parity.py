"""How far two runs of the same feeds are apart, output by output. Pure.

Refuses nothing: another shape, or NaN, is infinitely far."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from edgekit_runtime.marks import cosine
from edgekit_runtime.tensors import Array, Feeds


@dataclass(frozen=True)
class Parity:
    """How far one output is from the reference's: differences absolute, `scale` the reference's largest magnitude.

    `agreement` is the share of samples with the same best class, None where there are no classes.
    """

    output: str
    worst: float
    mean: float
    cosine: float
    agreement: float | None
    scale: float
    samples: int

    def within(self, tolerance: float) -> bool:
        """Whether the worst difference is at most `tolerance` parts of the reference's magnitude. False for NaN."""
        return self.worst <= tolerance * max(self.scale, 1e-6)


def parity(reference: Iterable[Feeds], candidate: Iterable[Feeds]) -> tuple[Parity, ...]:
    """Compare two runs of the same feeds, output by output."""
    pairs: dict[str, list[tuple[Array, Array]]] = {}
    for wanted, got in zip(reference, candidate, strict=True):
        for name, value in wanted.items():
            pairs.setdefault(name, []).append((value, got[name]))
    return tuple(_parity(name, arrays) for name, arrays in pairs.items())


def _parity(name: str, pairs: list[tuple[Array, Array]]) -> Parity:
    if any(a.shape != b.shape for a, b in pairs):
        return Parity(name, np.inf, np.inf, 0.0, None, 0.0, len(pairs))
    worst, total, count, scale = 0.0, 0.0, 0, 0.0
    cosines, same, rows = [], 0, 0
    for a, b in pairs:
        left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if not left.size:
            continue
        far = np.abs(left - right)
        worst = float(np.maximum(worst, far.max()))
        total, count, scale = total + float(far.sum()), count + far.size, max(scale, float(np.abs(left).max()))
        cosines.append(cosine(left.ravel(), right.ravel()))
        if left.ndim >= 2 and left.shape[-1] > 1:
            same += int((left.argmax(-1) == right.argmax(-1)).sum())
            rows += left[..., 0].size
    mean = total / count if count else 0.0
    return Parity(
        name, worst, mean, float(np.mean(cosines)) if cosines else 1.0, same / rows if rows else None, scale, len(pairs)
    )

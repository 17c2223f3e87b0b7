"""How strange one sample is beside those of the build: for choosing which are worth a look, not for an alarm.

Refuses nothing; of a baseline without numbers every sample is as strange as the other."""

import math
from bisect import bisect_left
from collections.abc import Callable

from edgekit_runtime.drift.baseline import Baseline, Numeric
from edgekit_runtime.drift.reading import Reading


def oddness(baseline: Baseline) -> Callable[[Reading], float]:
    """A function from a sample to its strangeness, 0 or more.

    It is the mean over features of -ln(t): t is the share of the build's samples that lie at least as far out on the
    sample's side of the distribution. This is Fisher's combination of tail probabilities without its independence,
    so the numbers rank samples and mean nothing else.
    """
    features = [(one.name, one.edges, _weights(one.counts)) for one in baseline.features if isinstance(one, Numeric)]

    def of(reading: Reading) -> float:
        found = [
            weights[bisect_left(edges, value) if value == value else -1]
            for name, edges, weights in features
            if (value := reading.numbers.get(name)) is not None
        ]
        return sum(found) / len(found) if found else 0.0

    return of


def _weights(counts: tuple[int, ...]) -> list[float]:
    """For each bin -ln of the smaller tail that begins with it; half a sample is beyond all that was seen."""
    total = sum(counts)
    below, made = 0, []
    for count in counts:
        tail = min(below + count, total - below)
        made.append(-math.log(max(tail, 0.5) / max(total, 1)))
        below += count
    return made

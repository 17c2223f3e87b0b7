"""Make a baseline of many readings, in memory that does not grow with their number.

Refuses nothing; a baseline of no reading has no features.

Numbers are kept as a uniform sample of at most 8,192 readings, the same ones for every feature: algorithm R of J. S.
Vitter, "Random sampling with a reservoir", ACM TOMS 11 (1985). A uniform sample of independent readings is itself one
of independent readings, so all that `bounds` promises holds with the sample's size; a sketch of quantiles (KLL,
t-digest) would add an error of its own. Classes are counted one and all.
"""

import random
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgekit_runtime.drift.baseline import MAX_CLASSES, MAX_FEATURES, Baseline, Categories, Feature, Numeric
from edgekit_runtime.drift.reading import Reading

KEPT = 8192
BINS = 20
MOST_SEEN = 65536
"""Different classes that are counted; later ones count as others."""
OTHERS = -2


class Recorder:
    """Takes readings one by one; the same readings in the same order make the same baseline."""

    def __init__(self) -> None:
        self._n = 0
        self._random = random.Random(0)
        self._numbers: dict[str, array[float]] = {}
        self._classes: dict[str, tuple[Counter[int], Counter[int]]] = {}

    def add(self, reading: Reading) -> None:
        """Count one more sample."""
        if not self._n:
            self._numbers = {name: array("d") for name in list(reading.numbers)[:MAX_FEATURES]}
            self._classes = {name: (Counter(), Counter()) for name in reading.classes}
        place = self._n if self._n < KEPT else self._random.randrange(self._n + 1)
        self._n += 1
        for name, kept in self._numbers.items():
            if place == len(kept):
                kept.append(reading.numbers.get(name, float("nan")))
            elif place < KEPT:
                kept[place] = reading.numbers.get(name, float("nan"))
        for name, halves in self._classes.items():
            counts, number = halves[self._n % 2], reading.classes.get(name, OTHERS)
            counts[number if number in counts or len(counts) < MOST_SEEN else OTHERS] += 1

    def baseline(self) -> Baseline:
        """What was counted so far."""
        if not self._n:
            return Baseline(0, ())
        features: list[Feature] = [_numeric(name, kept) for name, kept in self._numbers.items()]
        features += [_categories(name, *halves) for name, halves in self._classes.items()]
        return Baseline(self._n, tuple(features[:MAX_FEATURES]))


def _numeric(name: str, kept: Sequence[float]) -> Numeric:
    """Bins of equal counts, and one beyond each end.

    Edges lie a hair's breadth beyond the quantiles, so that another processor's rounding does not carry a number
    that all samples share across them.
    """
    values = np.sort(np.asarray(kept))
    good = values[np.isfinite(values)]
    if not good.size:
        return Numeric(name, (0.0,), (0, len(values)))
    least = float(good[0])
    places = np.rint(np.linspace(0, 1, BINS + 1) * (good.size - 1)).astype(int)
    edges = [least - _hair(least), *(float(value) + _hair(float(value)) for value in np.unique(good[places]))]
    rising = [edges[0]]
    for edge in edges[1:]:
        if edge > rising[-1] and edge < float("inf"):
            rising.append(edge)
    at = np.searchsorted(np.asarray(rising), values, side="left")  # a NaN sorts last, and counts as beyond
    return Numeric(name, tuple(rising), tuple(np.bincount(at, minlength=len(rising) + 1).tolist()))


def _hair(value: float) -> float:
    return 1e-5 * abs(value) + 1e-9


def _categories(name: str, even: Counter[int], odd: Counter[int]) -> Categories:
    """Few classes are all told apart. Of many, every second sample picks the most frequent and the others are counted:
    the same samples cannot do both, for a class that is picked because it was frequent is less so later."""
    both = even + odd
    highest = max(both)
    if 0 <= highest < MAX_CLASSES:
        classes = tuple(range(highest + 1))
        return Categories(name, classes, (*(both[one] for one in classes), both[-1] + both[OTHERS]))
    picked = [one for one, _ in even.most_common(MAX_CLASSES + 1) if one != OTHERS][:MAX_CLASSES]
    counted = odd if odd else even
    counts = [counted[one] for one in picked]
    return Categories(name, tuple(picked), (*counts, counted.total() - sum(counts)), chosen=True)

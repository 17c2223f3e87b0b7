"""All features of a model as one table of counts, and how far such tables are from the baseline's.

Refuses nothing. Tables of counts add up: panes to windows, devices to a fleet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit_runtime.drift.baseline import Baseline, Categories, Feature, Numeric
from edgekit_runtime.drift.bounds import baseline_distance, field_distance, stability
from edgekit_runtime.drift.classes import Classes, Odds
from edgekit_runtime.tensors import Array

PSI_LIMIT, CLASS_PSI_LIMIT = 0.2, 0.1
"""What is less is no alarm, however certain it is; a class out of ten that goes missing is about 0.2, out of twenty
0.1."""


@dataclass(frozen=True)
class Found:
    """Windows beside the baseline, [w, f]: `nearness` is above 1 where a feature is beyond its limit and the shift is
    not trifling. `limits` are those of the numbers, `odds` those of the classes, which follow the numbers."""

    samples: Array
    ks: Array
    psi: Array
    nearness: Array
    limits: Array
    odds: Sequence[Odds]

    def limit(self, window: int, row: int) -> float:
        """The distance beyond which a feature is beyond chance; 1, the largest, where none is."""
        split = self.limits.shape[1]
        return float(self.limits[window, row]) if row < split else self.odds[row - split].limit(window)


class Sketches:
    """The baseline as a table: numbers first, then classes; short rows are filled up with zeros."""

    def __init__(self, baseline: Baseline) -> None:
        numeric = [one for one in baseline.features if isinstance(one, Numeric)]
        categories = [one for one in baseline.features if isinstance(one, Categories)]
        self.features: tuple[Feature, ...] = (*numeric, *categories)
        widths = [len(one.counts) for one in self.features]
        shape = (len(widths), max(widths, default=0))
        self._counts = np.zeros(shape)
        for row, one in zip(self._counts, self.features, strict=True):
            row[: len(one.counts)] = one.counts
        self._real = np.arange(shape[1]) < np.array(widths, int)[:, None]
        split = self._split = len(numeric)
        totals = self._counts.sum(axis=1)
        self.shares = self._counts / np.maximum(totals, 1)[:, None]
        self._sums = self.shares[:split].cumsum(axis=1)
        self._distance = baseline_distance(totals[:split], max(1, shape[0]))
        self._classes = [Classes(one, shape[0]) for one in categories]
        self._psi_limits = np.where(np.arange(shape[0]) < split, PSI_LIMIT, CLASS_PSI_LIMIT)

    def compare(self, counts: Array, alpha: float) -> Found:
        """The windows `counts` [w, f, b] against the baseline, at level `alpha` for each feature of each window."""
        split = self._split
        samples = counts.sum(axis=2)
        sums = counts[:, :split].cumsum(axis=2) / np.maximum(samples[:, :split, None], 1)
        ks, certain = np.zeros(samples.shape), np.zeros(samples.shape)
        ks[:, :split] = np.abs(sums - self._sums).max(axis=2, initial=0)
        limits = np.minimum(1, field_distance(samples[:, :split], alpha) + self._distance)
        certain[:, :split] = ks[:, :split] / limits
        odds = [one.compare(counts[:, row, : one.width], alpha) for row, one in enumerate(self._classes, split)]
        for row, told in enumerate(odds, split):
            ks[:, row], certain[:, row] = told.distance(), told.certain
        psi = stability(self._counts, counts, self._real)
        nearness = np.where(samples > 0, np.minimum(certain, psi / self._psi_limits), 0.0)
        return Found(samples, ks, psi, nearness, limits, odds)

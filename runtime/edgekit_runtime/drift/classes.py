"""Whether classes come as often as they did: each one by itself, and all those together that have become rarer.

Refuses nothing. See `bounds` for why this holds."""

import math
from dataclasses import dataclass

import numpy as np

from edgekit_runtime.drift.baseline import Categories
from edgekit_runtime.drift.bounds import BASELINE_RISK, class_evidence, divergence, share_interval, share_limit
from edgekit_runtime.tensors import Array

ALONE = 0.8
"""The part of every risk that goes to classes by themselves; the rest goes to sets of them."""


@dataclass(frozen=True)
class Odds:
    """The class, or the classes together, that tell most in each of w windows: their share `now`, and `before`.

    `chance` is the probability nearest to `now` that fits the baseline. `certain` is above 1 where chance does not
    explain the share of n samples, at an evidence of `enough`. All are [w].
    """

    certain: Array
    now: Array
    before: Array
    chance: Array
    enough: Array
    n: Array

    def distance(self) -> Array:
        """How far the shares have moved."""
        return np.asarray(np.abs(self.now - self.before))

    def limit(self, window: int) -> float:
        """How far it would have to move; 1 where no share is far enough."""
        now, before, chance = (float(one[window]) for one in (self.now, self.before, self.chance))
        share = share_limit(chance, now < before, float(self.enough[window]) / max(float(self.n[window]), 1.0))
        return 1.0 if share is None else abs(share - before)


class Classes:
    """The baseline of one feature."""

    def __init__(self, baseline: Categories, features: int) -> None:
        counts = np.array(baseline.counts, np.float64)
        self.width, samples = len(counts), counts.sum()
        self._shares = counts / samples
        self._low, self._high = share_interval(self._shares, samples, features / ALONE)
        self._sets = self.width * math.log(2)
        self._slack = (self._sets + math.log(64 * features / (1 - ALONE) / BASELINE_RISK)) / samples

    def compare(self, counts: Array, alpha: float) -> Odds:
        """What tells most in the windows `counts` [w, k], at level `alpha`."""
        n = counts.sum(axis=1)
        shares = counts / np.maximum(n, 1)[:, None]
        one, several = self._single(shares, n, alpha * ALONE), self._rarer(shares, n, alpha * (1 - ALONE))
        single = one[0] >= several[0]
        certain, now, before, chance, enough = (np.where(single, *pair) for pair in zip(one, several, strict=True))
        return Odds(certain, now, before, chance, enough, n)

    def _single(self, shares: Array, n: Array, alpha: float) -> tuple[Array, ...]:
        """The first five fields of `Odds`."""
        evidence = class_evidence(shares, self._low, self._high, n[:, None])
        at = evidence.argmax(axis=1)
        enough = math.log(2 * self.width / alpha)
        now, before = _at(shares, at), self._shares[at]
        chance = np.where(now < before, self._low[at], self._high[at])
        return np.sqrt(_at(evidence, at) / enough), now, before, chance, np.full(len(n), enough)

    def _rarer(self, shares: Array, n: Array, alpha: float) -> tuple[Array, ...]:
        """The best of the sets that hold the classes which have become rarest: there are 2^k sets to choose from."""
        order = np.argsort((shares + 1e-12) / (self._shares + 1e-9), axis=1)
        now = np.take_along_axis(shares, order, axis=1).cumsum(axis=1)
        before = self._shares[order].cumsum(axis=1)
        low = self._least(before)
        evidence = np.where(now < low, n[:, None] * divergence(now, low), 0.0)
        evidence[:, -1] = 0.0  # all of them
        at = evidence.argmax(axis=1)
        enough = self._sets + math.log(1 / alpha)
        found = (_at(values, at) for values in (now, before, low))
        return np.sqrt(_at(evidence, at) / enough), *found, np.full(len(n), enough)

    def _least(self, shares: Array) -> Array:
        """No probability below this fits the baseline: the best of three bounds on KL(share, p), all of them valid.

        KL >= (share - p)^2 / 2 share for p < share, the like for the rest of the classes, and Pinsker's.
        """
        slack = self._slack
        plain = shares - np.sqrt(2 * shares * slack)
        rest = shares - np.sqrt(2 * np.maximum(1 - shares, 0) * slack) - 2 * slack
        bounds = np.stack([plain, rest, shares - math.sqrt(slack / 2), np.zeros_like(shares)])
        return np.asarray(bounds.max(axis=0))


def _at(values: Array, at: Array) -> Array:
    return np.asarray(values[np.arange(len(at)), at])

"""Confidence bounds of a mean paired difference without scipy: Tango's score interval for shares, Student's else. Pure.

Refuses nothing; what is not a number has no bounds."""

import math
from statistics import NormalDist

import numpy as np

from edgekit_runtime.tensors import Array

FEW = 20
"""Below so many samples that changed, what was seen tells too little of what was not."""
HALVINGS = 45
"""After so many a bound is known to 1e-13."""


def bounds(worse: Array, level: float, shares: bool, spread: float) -> tuple[float, float]:
    """(lower, upper) bound of the mean of `worse`, each on its own at the one-sided confidence `level`.

    `worse` holds, for each sample, how much worse it was answered: -1, 0 or 1 for shares, real numbers else, of scores
    within a range of width `spread`. With level .975 the two bounds are the usual 95 % interval.
    """
    if not len(worse) or not np.isfinite(worse).all():
        return -math.inf, math.inf
    if shares:
        return tango(int((worse > 0).sum()), int((worse < 0).sum()), len(worse), level)
    return widened(student(worse, level), worse, spread, level)


def widened(found: tuple[float, float], worse: Array, spread: float, level: float) -> tuple[float, float]:
    """Bounds that few changes cannot make too narrow, down to no width: each of these counts as one of the whole range,
    which is Tango's interval where the scores are 0 and 1, and wider than it has to be else."""
    lost, won = int((worse > 0).sum()), int((worse < 0).sum())
    if lost + won >= FEW or not len(worse):
        return found
    least, most = (spread * bound for bound in tango(lost, won, len(worse), level))
    return min(found[0], least), max(found[1], most)


def tango(lost: int, won: int, n: int, level: float) -> tuple[float, float]:
    """Score bounds of a difference of paired shares, (lost - won) / n: McNemar's test turned into an interval.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998) 891-908. At a difference of 0 its statistic is McNemar's.
    """
    z, drop = NormalDist().inv_cdf(level), (lost - won) / n

    def statistic(delta: float) -> float:
        b = -lost - won + (2 * n - lost + won) * delta
        c = -won * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (lost - won - n * delta) / math.sqrt(max(variance, 1e-300)) if drop != delta else 0.0

    def bound(sign: int) -> float:
        inside, outside = drop, sign * (1 - 1e-9)
        if drop * sign == 1 or sign * (statistic(outside) + sign * z) > 0:
            return float(sign)
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if sign * (statistic(middle) + sign * z) > 0 else (inside, middle)
        return (inside + outside) / 2

    return bound(-1), bound(1)


def student(worse: Array, level: float) -> tuple[float, float]:
    """The mean and Student's t on both sides of it."""
    n, mean = len(worse), float(worse.mean())
    if n < 2:
        return -math.inf, math.inf
    half = t_quantile(level, n - 1) * float(worse.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def t_quantile(level: float, freedom: int) -> float:
    """Of Student's distribution, by its expansion in 1 / freedom: M. Abramowitz and I. Stegun, "Handbook of
    Mathematical Functions" (1964), 26.7.5. From 5 degrees of freedom on it is right to a hundredth, from 20 to 1e-5."""
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1))

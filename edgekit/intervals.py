"""Confidence bounds of a mean paired difference: Tango's score interval for shares, the bootstrap (scipy) else. Pure.

Refuses nothing; what is not a number has no bounds."""

import warnings

import numpy as np
from edgekit_runtime.tensors import Array

RESAMPLES = 9_999
LARGE = 5_000


def bounds(worse: Array, level: float, shares: bool) -> tuple[float, float]:
    """(lower, upper) bound of the mean of `worse`, each on its own at the one-sided confidence `level`.

    `worse` holds, for each sample, how much worse the candidate did: -1, 0 or 1 for shares, real numbers else.
    With level .975 the two bounds are the usual 95 % interval.
    """
    n = len(worse)
    if n == 0 or not np.isfinite(worse).all():
        return -np.inf, np.inf
    if shares:
        return tango(int((worse > 0).sum()), int((worse < 0).sum()), n, level)
    return _bootstrapped(np.asarray(worse, np.float64), level)


FEW = 20
"""Below so many samples that changed, a bootstrap of what was seen knows too little of what was not."""


def bounds_of_numbers(worse: Array, spread: float, level: float) -> tuple[float, float]:
    """As `bounds`, for scores that are numbers within a range of width `spread`.

    Where few samples changed at all, a bootstrap is too narrow, down to no width: there each change counts as one
    of the whole range, which is Tango's interval where the scores are 0 and 1, and wider than it has to be else.
    """
    low, high = bounds(worse, level, shares=False)
    lost, won = int((worse > 0).sum()), int((worse < 0).sum())
    if lost + won >= FEW or not len(worse):
        return low, high
    least, most = (spread * bound for bound in tango(lost, won, len(worse), level))
    return min(low, least), max(high, most)


def unseen(n: int, level: float) -> float:
    """The largest share of samples that may change where none of `n` did."""
    return tango(0, 0, n, level)[1]


def tango(lost: int, won: int, n: int, level: float) -> tuple[float, float]:
    """Score bounds of a difference of paired shares, (lost - won) / n: McNemar's test turned into an interval.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998) 891-908. At a difference of 0 its statistic is McNemar's.
    """
    from scipy import optimize, stats  # half a second, which an order that is found again need not wait for

    z, drop = float(stats.norm.ppf(level)), (lost - won) / n

    def statistic(delta: float) -> float:
        b = -lost - won + (2 * n - lost + won) * delta
        c = -won * delta * (1 - delta)
        q = (np.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        return (lost - won - n * delta) / np.sqrt(max(variance, 1e-300)) if drop != delta else 0.0

    def bound(sign: int) -> float:
        if drop * sign == 1 or sign * (statistic(sign * (1 - 1e-9)) + sign * z) > 0:
            return float(sign)
        return float(optimize.brentq(lambda delta: statistic(delta) + sign * z, drop, sign * (1 - 1e-9), xtol=1e-9))

    return bound(-1), bound(1)


def enough(worse: Array, level: float, allowed: float, shares: bool) -> int:
    """About how many samples would bring the upper bound down to `allowed`, if they go on as these do."""
    n, drop = len(worse), float(worse.mean())
    if not drop < allowed:
        return 2 * n
    if not shares:
        high = bounds(worse, level, shares)[1]
        return int(np.ceil(n * ((high - drop) / (allowed - drop)) ** 2)) if np.isfinite(high) else 2 * n
    lost, won = int((worse > 0).sum()), int((worse < 0).sum())

    def over(times: float) -> float:
        return tango(round(lost * times), round(won * times), round(n * times), level)[1] - allowed

    most = 2.0
    while over(most) > 0 and most < 1e6:
        most *= 2
    least = most / 2
    for _ in range(12):
        middle = (least + most) / 2
        least, most = (middle, most) if over(middle) > 0 else (least, middle)
    return int(np.ceil(n * most))


def _bootstrapped(worse: Array, level: float) -> tuple[float, float]:
    """BCa bootstrap (percentile beyond LARGE samples, where both agree and BCa's jackknife is slow), its tails
    widened for small n as Hesterberg ("What Teachers Should Know About the Bootstrap", The American Statistician 69,
    2015) has it: bootstrap intervals of a mean are too narrow by sqrt((n - 1) / n) t / z."""
    from scipy import stats

    n, mean = len(worse), float(worse.mean())
    if n < 2:
        return -np.inf, np.inf
    if np.ptp(worse) == 0.0:
        return mean, mean
    tail = float(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(1 - level, n - 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's word that a distribution is degenerate: the NaN is seen below
        for method in ("BCa", "percentile") if n <= LARGE else ("percentile",):
            found = stats.bootstrap(
                (worse,), np.mean, confidence_level=1 - 2 * tail, n_resamples=RESAMPLES,
                batch=max(1, 1_000_000 // n), method=method, rng=0,
            ).confidence_interval  # fmt: skip
            if np.isfinite([found.low, found.high]).all():
                return float(found.low), float(found.high)
    return -np.inf, np.inf

"""Confidence bounds of a mean paired difference: Tango's score interval for shares, the bootstrap (scipy) else. Pure.

Refuses nothing; what is not a number has no bounds."""

import warnings

import numpy as np
from edgekit_runtime.intervals import tango as tango
from edgekit_runtime.intervals import widened
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


def bounds_of_numbers(worse: Array, spread: float, level: float) -> tuple[float, float]:
    """As `bounds`, for scores that are numbers within a range of width `spread`: where few samples changed at all, a
    bootstrap is too narrow, down to no width."""
    return widened(bounds(worse, level, shares=False), worse, spread, level)


def unseen(n: int, level: float) -> float:
    """The largest share of samples that may change where none of `n` did."""
    return tango(0, 0, n, level)[1]


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
    from scipy import stats  # half a second, which an order that is found again need not wait for

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

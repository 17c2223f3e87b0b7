"""One candidate on trial: looks at growing numbers of samples, stopping when the answer is plain. Pure.

Refuses to spend more error than it was given: all looks together miss in at most `alpha` of cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

LOOKS = (0.125, 0.25, 0.5, 1.0)
"""The parts of the samples after which a trial may end."""
LEAST = 50
"""No look at fewer samples than this, unless there are no more."""
STEEP = 3.0
"""How alpha is spent: alpha * part ** STEEP until that part (Kim and DeMets, Biometrika 74, 1987), so that early
looks cost the last one little: with 4 looks its z is 2.02 where a single test's is 1.96."""
SCREENING = 0.025
"""The level at which screening calls a limit plainly exceeded."""

Standing = Literal["good", "doubtful", "out"]


@dataclass(frozen=True)
class Bound:
    """A drop on the first `n` samples, with bounds each at the one-sided confidence `level`, and what is allowed."""

    n: int
    drop: float
    low: float
    high: float
    level: float
    allowed: float


@dataclass(frozen=True)
class Limit:
    """What is on trial, how it is measured, `measure(n, level)` on the first n samples, and `needed(n, level)`: about
    how many would do, going by the first n."""

    name: str
    measure: Callable[[int, float], Bound]
    needed: Callable[[int, float], int]


@dataclass(frozen=True)
class Trial:
    """How it ended: the limit that decided (the first that was not kept, else the first), its bound at the last
    look, how many samples that look had (a class's bound has fewer), and for "inconclusive" how many would do."""

    outcome: Literal["passed", "missed", "inconclusive"]
    limit: Limit
    bound: Bound
    size: int
    needed: int | None = None


def looks(n: int, alpha: float, parts: Sequence[float] = LOOKS) -> tuple[tuple[int, float], ...]:
    """(samples so far, one-sided level) of each look; the error rates 1 - level sum up to `alpha`."""
    sizes = sorted({round(n * part) for part in parts if n * part >= LEAST or part == 1})
    spent = [alpha * (size / n) ** STEEP for size in sizes]
    return tuple((size, 1 - (now - before)) for size, now, before in zip(sizes, spent, [0.0, *spent], strict=False))


def hold(
    limits: Sequence[Limit], n: int, alpha: float, parts: Sequence[float] = LOOKS, until: Callable[[], bool] = bool
) -> Trial:
    """Try all limits on up to `n` samples: passed only when the upper bound of each is within what it allows.

    All must pass at one look, so the chance to pass with any limit exceeded is at most `alpha`: the looks'
    levels add up to that (Bonferroni), and a candidate over one limit must pass that limit's own test. Ending
    early because a lower bound is over its limit can only lower that chance. `until` true ends the trial.
    """
    for size, level in looks(n, alpha, parts):
        found = [(limit, limit.measure(size, level)) for limit in limits]
        over = [(limit, bound) for limit, bound in found if not bound.high <= bound.allowed]
        if not over:
            return Trial("passed", *found[0], size)
        plain = [(limit, bound) for limit, bound in over if bound.low > bound.allowed or np.isnan(bound.drop)]
        if plain:
            return Trial("missed", *plain[0], size)
        if until():
            break
    limit, bound = over[0]
    missed = [(limit, bound) for limit, bound in over if not bound.drop < bound.allowed]
    if missed:
        return Trial("missed", *missed[0], size)
    return Trial("inconclusive", limit, bound, size, max(limit.needed(size, level) for limit, _ in over))


def screen(
    limits: Sequence[Limit], n: int, parts: Sequence[float] = LOOKS, sure: float = 0.5
) -> tuple[Standing, Trial]:
    """How a candidate stands on `n` samples of the search's own: "out" where some limit is plainly exceeded,
    "doubtful" where one seems to be, or its upper bound at the level `sure` is, "good" else. It decides nothing but
    what is confirmed, and in which order."""
    trial = hold(limits, n, SCREENING, parts)
    if trial.outcome == "inconclusive" and sure > 0.5:
        likely = [limit.measure(trial.size, sure) for limit in limits]
        if any(bound.high > bound.allowed for bound in likely):
            return "doubtful", trial
    plain = trial.bound.low > trial.bound.allowed or np.isnan(trial.bound.drop)
    if trial.outcome == "missed":
        return "out" if plain else "doubtful", trial
    return "good", trial


def share_of_alpha(alpha: float, attempt: int) -> float:
    """What the `attempt`-th confirmation (from 0) of one search may spend: half of what is left, so that all of
    them together stay within `alpha`, however many there are."""
    return alpha / 2.0 ** (attempt + 1)


def as_trusted(alpha: float, shares: bool) -> float:
    """`alpha` for a share; half of it for real numbers, whose bootstrap bounds miss up to twice as often as they
    say where errors have a long tail (benchmarks/error_rate.py)."""
    return alpha if shares else alpha / 2

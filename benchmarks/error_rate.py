"""How often a build passes a model that is over its budget: the whole search, simulated.

Run it with `python -m benchmarks.error_rate`.

Candidates lose and win samples at random with known rates; screening, looks, confirmations and the search are the
product's own. Prints, for each case, the share of builds that passed (n = 2,000 builds): the error rate where every
candidate is over the budget, the power where one is within it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from edgekit_runtime.tensors import Array
from scipy import stats

from edgekit.evidence import LEVEL
from edgekit.intervals import bounds
from edgekit.searching import Steps, search, search_share
from edgekit.trial import LOOKS, Bound, Limit, Standing, Trial, as_trusted, hold, screen

Draw = Callable[[np.random.Generator, int], Array]
"""Paired differences of one candidate on n samples: how much worse it did."""


@dataclass(frozen=True)
class Case:
    """A build to be simulated: evaluation samples, the budget, its candidates."""

    title: str
    n: int
    budget: float
    candidates: tuple[Draw, ...]
    shares: bool = True


@dataclass(frozen=True)
class Tried:
    """A simulated candidate: its differences, how it stood, how its confirmation ended."""

    worse: Array
    standing: Standing
    seen: float
    trial: Trial | None = None


def flips(drop: float, discordant: float) -> Draw:
    """A classifier whose right answers become wrong, and wrong ones right, at rates that differ by `drop`."""
    lost, won = (discordant + drop) / 2, (discordant - drop) / 2

    def draw(random: np.random.Generator, n: int) -> Array:
        value = random.random(n)
        return np.where(value < lost, 1.0, np.where(value < lost + won, -1.0, 0.0))

    return draw


def errors(drop: float, skew: float) -> Draw:
    """A real-valued metric whose increase has mean `drop` and a log-normal tail."""

    def draw(random: np.random.Generator, n: int) -> Array:
        return np.asarray(drop + (random.lognormal(0, skew, n) - np.exp(skew**2 / 2)) * 0.05)

    return draw


def passes(case: Case, seed: int) -> bool:
    """Whether one simulated build makes a bundle."""
    random = np.random.default_rng(seed)
    first = search_share(case.n)
    parts: Sequence[float] = LOOKS if case.shares else (0.5, 1.0)

    def limit(worse: Array) -> Limit:
        def measure(n: int, level: float) -> Bound:
            return Bound(n, float(worse[:n].mean()), *bounds(worse[:n], level, case.shares), level, case.budget)

        return Limit("drop", measure, lambda n, level: 2 * n)

    def attempt(draw: Draw) -> Tried:
        worse = draw(random, case.n)
        if not first:
            return Tried(worse, "good", 0.0)
        standing, trial = screen([limit(worse[:first])], first, parts)
        return Tried(worse, standing, trial.bound.drop)

    def confirm(tried: Tried, alpha: float) -> Tried:
        trial = hold([limit(tried.worse[first:])], case.n - first, as_trusted(alpha, case.shares), parts)
        if trial.outcome == "passed" and not limit(tried.worse).measure(case.n, LEVEL).high <= case.budget:
            trial = replace(trial, outcome="missed")  # on record, over all samples
        return Tried(tried.worse, tried.standing, tried.seen, trial)

    steps = Steps(
        attempt,
        lambda tried: tried.standing,
        lambda tried: tried.seen,
        lambda tried: tried.seen,
        confirm,
        lambda tried: tried.trial is not None and tried.trial.outcome == "passed",
        lambda tried: tried.trial is not None and tried.trial.outcome == "inconclusive" and tried.trial.bound.drop <= 0,
        lambda draw: 0,
        lambda tried: False,
    )
    return search(case.candidates, steps).pick is not None


OVER = (
    Case("8 candidates at the budget, 1 % of answers differ", 10_000, 0.005, (flips(0.005, 0.01),) * 8),
    Case("8 candidates at the budget, 5 % differ", 10_000, 0.005, (flips(0.005, 0.05),) * 8),
    Case("8 candidates at the budget, every difference a loss", 10_000, 0.005, (flips(0.005, 0.005),) * 8),
    Case("8 candidates at the budget, few samples", 2_000, 0.005, (flips(0.005, 0.005),) * 8),
    Case("30 candidates a little over, 3 % differ", 10_000, 0.005, (flips(0.006, 0.03),) * 30),
    Case("8 candidates at a wide budget, 150 samples", 150, 0.05, (flips(0.05, 0.08),) * 8),
    Case("8 candidates, mean absolute error, mild tail", 1_000, 0.02, (errors(0.02, 0.5),) * 8, shares=False),
    Case("8 candidates, mean absolute error, long tail", 2_000, 0.02, (errors(0.02, 1.0),) * 8, shares=False),
)
OVERS = (flips(0.01, 0.02),) * 7
WITHIN = (
    Case("one candidate that loses nothing, 1 % differ", 10_000, 0.005, (flips(0.0, 0.01),)),
    Case("one that loses .1 points, 2 % differ", 10_000, 0.005, (flips(0.001, 0.02),)),
    Case("one that loses .2 points, 2 % differ", 10_000, 0.005, (flips(0.002, 0.02),)),
    Case("one that loses .1 points after 7 over the budget", 10_000, 0.005, (*OVERS, flips(0.001, 0.02))),
    Case("one that loses nothing, 2,000 samples", 2_000, 0.005, (flips(0.0, 0.005),)),
    Case("one that loses nothing, 2,000 samples, 1 point allowed", 2_000, 0.01, (flips(0.0, 0.01),)),
)  # fmt: skip


def rate(case: Case, builds: int, seed: int = 0) -> tuple[float, float]:
    """The share of simulated builds that passed, and its upper 95 % bound."""
    passed = sum(passes(case, seed * builds + number) for number in range(builds))
    return passed / builds, float(stats.binomtest(passed, builds).proportion_ci(0.95).high)


def main(builds: int = 2_000) -> None:
    """Print all cases."""
    for title, cases in (("passed though over budget (at most 5 %)", OVER), ("passed, as it should (power)", WITHIN)):
        sys.stdout.write(f"\n{title}, {builds:,} builds each ({builds // 10:,} where the metric is no share)\n")
        for case in cases:
            found, high = rate(case, builds if case.shares else builds // 10)
            sys.stdout.write(f"  {found * 100:5.1f} %  (up to {high * 100:4.1f} %)  {case.title}, n = {case.n:,}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Confidence bounds and sequential trials: nobody passes who should not, and plain cases end early."""

import numpy as np
import pytest
from edgekit_runtime.tensors import Array
from scipy import optimize, stats

from edgekit.intervals import bounds, enough, tango
from edgekit.trial import Bound, Limit, hold, looks, screen, share_of_alpha


def limit(worse: Array, allowed: float, name: str = "") -> Limit:
    def measured(n: int, level: float) -> Bound:
        return Bound(n, float(worse[:n].mean()), *bounds(worse[:n], level, True), level, allowed)

    return Limit(name, measured, lambda n, level: enough(worse[:n], level, allowed, True))


def test_at_no_difference_tangos_statistic_is_mcnemars() -> None:
    """The level at which a bound reaches 0 is McNemar's one-sided p value."""
    lost, won, n = 30, 15, 500
    level = float(stats.norm.cdf((lost - won) / np.sqrt(lost + won)))
    assert tango(lost, won, n, level)[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("lost", "won", "n"), [(1, 0, 44), (9, 4, 60), (30, 50, 1000), (0, 3, 25)])
def test_a_bound_is_where_the_score_statistic_reaches_its_quantile(lost: int, won: int, n: int) -> None:
    """By another way: the nuisance parameter from maximizing the likelihood numerically."""
    z = float(stats.norm.ppf(0.975))
    for bound, sign in zip(tango(lost, won, n, 0.975), (1, -1), strict=True):

        def unlikely(q: float, delta: float = bound) -> float:
            p = np.array([q + delta, q, 1 - 2 * q - delta])
            return float(-(np.array([lost, won, n - lost - won]) * np.log(np.maximum(p, 1e-300))).sum())

        least, most = max(0.0, -bound) + 1e-12, (1 - bound) / 2 - 1e-12
        q = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
        statistic = (lost - won - n * bound) / np.sqrt(n * (2 * q + bound * (1 - bound)))
        assert statistic == pytest.approx(sign * z, abs=1e-3)


def test_no_difference_seen_still_has_an_upper_bound() -> None:
    assert tango(0, 0, 100, 0.975)[1] == pytest.approx(1.96**2 / (100 + 1.96**2), rel=1e-3)
    assert tango(20, 0, 20, 0.975)[1] == 1.0


def test_real_numbers_are_bounded_by_the_bootstrap_as_by_a_t_interval() -> None:
    worse = np.random.default_rng(0).normal(0.1, 1, 400)
    low, high = bounds(worse, 0.975, shares=False)
    wanted = stats.t.interval(0.95, 399, worse.mean(), worse.std(ddof=1) / 20)
    assert (low, high) == (pytest.approx(wanted[0], abs=0.01), pytest.approx(wanted[1], abs=0.01))


def test_what_is_not_a_number_has_no_bounds() -> None:
    assert bounds(np.array([0.0, np.nan]), 0.975, shares=False) == (-np.inf, np.inf)


@pytest.mark.parametrize("n", [1, 49, 60, 400, 9000])
def test_all_looks_together_spend_no_more_than_alpha(n: int) -> None:
    found = looks(n, 0.025)
    assert sum(1 - level for _, level in found) == pytest.approx(0.025)
    assert found[-1][0] == n


def test_all_confirmations_together_spend_no_more_than_alpha() -> None:
    assert sum(share_of_alpha(0.05, attempt) for attempt in range(50)) <= 0.05


def test_a_plain_pass_and_a_plain_miss_end_early() -> None:
    same, worse = np.zeros(8000), np.where(np.arange(8000) % 5 == 0, 1.0, 0.0)
    good, bad = hold([limit(same, 0.02)], 8000, 0.025), hold([limit(worse, 0.02)], 8000, 0.025)
    assert (good.outcome, bad.outcome) == ("passed", "missed")
    assert good.bound.n < 8000
    assert bad.bound.n < 8000


def test_too_few_samples_are_told_with_how_many_would_do() -> None:
    found = hold([limit(np.zeros(400), 0.002)], 400, 0.025)
    assert found.outcome == "inconclusive"
    assert found.needed is not None
    assert 1000 < found.needed < 4000


def test_one_limit_over_is_enough_to_miss() -> None:
    found = hold([limit(np.zeros(4000), 0.01), limit(np.ones(4000), 0.01, "shirts")], 4000, 0.025)
    assert (found.outcome, found.limit.name) == ("missed", "shirts")


def test_a_class_without_samples_is_not_passed() -> None:
    empty = Limit("none", lambda n, level: Bound(0, 0.0, -np.inf, np.inf, level, 0.01), lambda n, level: n)
    assert hold([limit(np.zeros(4000), 0.01), empty], 4000, 0.025).outcome == "inconclusive"


def test_screening_tells_good_from_doubtful_from_out() -> None:
    slightly = np.where(np.arange(400) % 50 == 0, 1.0, 0.0)
    assert screen([limit(np.zeros(400), 0.01)], 400)[0] == "good"
    assert screen([limit(slightly, 0.015)], 400)[0] == "doubtful"
    assert screen([limit(np.ones(400), 0.01)], 400)[0] == "out"


def test_a_trial_that_runs_out_of_time_ends_undecided() -> None:
    slightly = np.where(np.arange(8000) % 300 == 0, 1.0, 0.0)
    found = hold([limit(slightly, 0.005)], 8000, 0.025, until=lambda: True)
    assert found.outcome == "inconclusive"
    assert found.bound.n < 8000

"""The device's intervals: those of the host's statistics, without scipy."""

import numpy as np
import pytest
from edgekit_runtime.intervals import bounds, student, t_quantile, tango


@pytest.mark.parametrize("freedom", [7, 10, 30, 300])
@pytest.mark.parametrize("level", [0.8, 0.975, 0.99])
def test_students_quantile_is_that_of_scipy(level: float, freedom: int) -> None:
    from scipy import stats

    assert t_quantile(level, freedom) == pytest.approx(stats.t.ppf(level, freedom), abs=1e-3)


@pytest.mark.parametrize(("lost", "won", "n"), [(0, 0, 40), (3, 1, 100), (10, 30, 2000), (5, 0, 5), (0, 7, 7)])
def test_at_tangos_bounds_the_statistic_is_the_level(lost: int, won: int, n: int) -> None:
    from scipy import optimize, stats

    z = stats.norm.ppf(0.975)

    def score(delta: float) -> float:
        """The likelihood of the difference, solved numerically in place of the paper's closed form."""
        low, high = max(0.0, -delta), (1 - delta) / 2

        def likelihood(p01: float) -> float:
            cells = ((lost, p01 + delta), (won, p01), (n - lost - won, 1 - 2 * p01 - delta))
            return float(-sum(count * np.log(max(p, 1e-300)) for count, p in cells if count))

        p01 = optimize.minimize_scalar(likelihood, (low, high), bounds=(low, high), options={"xatol": 1e-12}).x
        return float((lost - won - n * delta) / np.sqrt(n * (2 * p01 + delta * (1 - delta))))

    for bound, sign in zip(tango(lost, won, n, 0.975), (1, -1), strict=True):
        if abs(bound) < 1:
            assert score(bound) == pytest.approx(sign * z, abs=2e-3)


def test_an_interval_of_numbers_has_a_width_where_nothing_changed() -> None:
    low, high = bounds(np.zeros(100), 0.975, False, spread=2.0)
    assert low == -high
    assert high == pytest.approx(2 * tango(0, 0, 100, 0.975)[1])
    few = np.r_[np.zeros(99), 1.0]
    assert bounds(few, 0.975, False, 2.0)[1] > student(few, 0.975)[1]


def test_students_interval_holds_the_mean_as_often_as_it_says() -> None:
    chance = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        low, high = bounds(chance.normal(0.3, 1, 40), 0.975, False, spread=6.0)
        held += low <= 0.3 <= high
    assert 0.935 <= held / 2000 <= 0.965


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_has_no_bounds(bad: float) -> None:
    assert bounds(np.array([0.0, bad]), 0.975, False, 1.0) == (-np.inf, np.inf)
    assert bounds(np.array([]), 0.975, True, 1.0) == (-np.inf, np.inf)
    assert student(np.array([1.0]), 0.975) == (-np.inf, np.inf)

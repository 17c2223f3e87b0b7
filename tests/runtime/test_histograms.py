"""Histograms: where values fall, what their quantiles are, and what counting costs a request."""

import time

import numpy as np
import pytest
from edgekit_runtime.histograms import ROWS, SECONDS, Histogram
from edgekit_runtime.stats import NANOSECONDS, Stats


def test_a_value_on_a_bound_is_within_it() -> None:
    stats = Stats()
    for ns in (100_000, 100_001, 250_000, 10_000_000_000, 10_000_000_001):
        stats.answered(0, 0, ns, 0)
    told = stats.infer.histogram()
    assert (told.counts[0], told.counts[1], told.counts[-2], told.counts[-1]) == (1, 2, 1, 1)
    assert told.count == 5
    assert told.sum == pytest.approx(20.000450002)


def test_each_part_of_a_request_has_its_own() -> None:
    stats = Stats()
    stats.answered(200_000, 0, 300_000, 400_000)
    stats.answered(200_000, 2_000_000, 300_000, 400_000)
    falls = {
        name: [i for i, n in enumerate(getattr(stats, name).within) if n] for name in ("success", "queue", "infer")
    }
    assert {name: [SECONDS[index] for index in found] for name, found in falls.items()} == {
        "success": [0.001, 0.005],
        "queue": [0.0001, 0.0025],
        "infer": [0.0005],
    }
    assert stats.success.histogram().sum == pytest.approx(0.0038)


def test_batches_are_counted_by_their_rows_whatever_clients_choose() -> None:
    stats = Stats()
    for rows in (0, 1, 2, 3, 4, 64, 65, 10**9, *range(1000, 2000)):
        stats.executed(rows, 1)
    told = stats.batch()
    assert told.bounds == ROWS
    assert told.counts == (2, 1, 2, 0, 0, 0, 1, 1002)
    assert told.count == stats.executions
    assert told.sum == stats.inferences


def test_what_was_told_does_not_change_any_more() -> None:
    stats = Stats()
    before = stats.success.histogram(), stats.batch()
    stats.executed(1, 1)
    stats.answered(1, 1, 1, 1)
    assert [one.count for one in before] == [0, 0]


def test_failed_requests_are_counted_by_their_reason_and_in_no_histogram() -> None:
    stats = Stats()
    stats.failed(5, "busy")
    stats.failed(5, "busy")
    stats.failed(5)
    assert stats.reasons == {"busy": 2, "other": 1}
    assert stats.fail.count == 3
    assert stats.success.histogram().count == 0


def test_an_empty_histogram_has_no_quantile() -> None:
    assert Histogram(ROWS, [0] * 8, 0.0).quantile(0.5) is None


@pytest.mark.parametrize(
    ("q", "wanted"), [(0.0, 0.0), (0.25, 1.0), (0.5, 1.5), (0.75, 2.0), (0.9, 3.2), (0.999, 3.992), (1.0, 4.0)]
)
def test_quantiles_lie_evenly_between_bounds(q: float, wanted: float) -> None:
    assert Histogram((1, 2, 4), (2, 4, 2, 0), 0.0).quantile(q) == pytest.approx(wanted)


def test_a_quantile_beyond_all_bounds_is_the_last_bound() -> None:
    assert Histogram((1, 2), (0, 0, 3), 30.0).quantile(0.1) == 2
    assert Histogram((1, 2), (1, 0, 3), 30.0).quantile(0.99) == 2


def test_quantiles_of_real_times_are_within_the_bucket_of_the_true_ones() -> None:
    taken = np.random.default_rng(3).lognormal(-5, 1, 5000)
    stats = Stats()
    for seconds in taken:
        stats.answered(0, 0, int(seconds * 1e9), 0)
    told = stats.success.histogram()
    for q in (0.01, 0.5, 0.9, 0.99):
        found, true = told.quantile(q), float(np.quantile(taken, q))
        assert found is not None
        assert np.searchsorted(SECONDS, found) == np.searchsorted(SECONDS, true)


def test_the_bounds_of_counting_are_those_that_are_told() -> None:
    assert [bound / 1e9 for bound in NANOSECONDS] == list(SECONDS)
    assert sorted(set(NANOSECONDS)) == list(NANOSECONDS)


def test_counting_costs_a_request_a_few_microseconds_at_most() -> None:
    stats, best = Stats(), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            stats.executed(1, 27_000)
            stats.answered(9_000, 0, 27_000, 8_000)
        best = min(best, (time.perf_counter() - start) / 500)
    assert best < 10e-6  # 1.0 us on a quiet server's core, 0.15 of it for the histograms

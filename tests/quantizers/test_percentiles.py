"""The range that holds a part of all values: cut at both ends alike, whole bins, nothing lost of what is all in one."""

import numpy as np
import pytest

from edgekit.quantizers.percentiles import held_range

EDGES = np.arange(-10.0, 11.0)


def test_half_of_what_is_beyond_is_cut_at_each_end() -> None:
    assert held_range(np.ones(20), EDGES, 80.0) == (-8.0, 8.0)
    assert held_range(np.ones(20), EDGES, 100.0) == (-10.0, 10.0)


def test_a_bin_that_holds_more_than_may_go_stays() -> None:
    counts = np.ones(20)
    counts[0] = 5
    assert held_range(counts, EDGES, 80.0) == (-10.0, 8.0)


def test_bins_without_counts_are_no_part_of_the_range() -> None:
    counts = np.zeros(20)
    counts[12] = 7
    assert held_range(counts, EDGES, 99.99) == (2.0, 3.0)
    assert held_range(counts, EDGES, 1.0) == (2.0, 3.0)
    assert held_range(np.zeros(20), EDGES, 99.0) == (0.0, 0.0)


@pytest.mark.parametrize("percentile", [99.0, 90.0, 30.0])
def test_it_is_numpys_percentile_to_within_a_bin(percentile: float) -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    counts, edges = np.histogram(values, 2000, (-6, 6))
    low, high = held_range(counts, edges, percentile)
    assert low == pytest.approx(np.percentile(values, 50 - percentile / 2), abs=0.012)
    assert high == pytest.approx(np.percentile(values, 50 + percentile / 2), abs=0.012)

"""The histogram from which activations get their ranges: of constant size, in any order, and deaf to few outliers."""

import numpy as np
import pytest

from edgekit.quantizers.tflite_ranges import (
    HALF,
    Histogram,
    chosen_range,
    entropy,
    least_error,
    new_histogram,
    percentile,
)
from edgekit.recipes import RANGES, Recipe


def seen(*samples: np.ndarray) -> Histogram:
    made = new_histogram(samples[0])
    for sample in samples[1:]:
        made.add(sample)
    return made


def bell(count: int, size: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((count, 8)) * size).astype(np.float32)


def error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of eight bits between these ends."""
    step = (high - low) / 255
    return float(
        ((np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step - values) ** 2).mean()
    )


def test_the_order_of_the_samples_does_not_matter() -> None:
    samples = [bell(500, size, seed) for seed, size in enumerate((0.01, 3.0, 700.0, 1.0))]
    one, other = seen(*samples), seen(*reversed(samples))
    assert (one.counts == other.counts).all()
    assert one.power == other.power
    assert one.range() == other.range()


def test_a_histogram_is_as_large_after_many_samples_as_after_one() -> None:
    made = seen(*(bell(100, 1.7**n, n) for n in range(40)))
    assert made.counts.shape == (2 * HALF,)
    assert made.counts.sum() == 40 * 800
    assert made.lows.shape == made.highs.shape == (8,)


def test_extremes_are_those_of_all_values_though_only_some_are_counted() -> None:
    values = bell(50_000)
    values[31_337, 5] = 999.0
    made = seen(values)
    assert made.range()[1] == 999.0
    assert made.counts.sum() < values.size / 5
    assert made.highs.argmax() == 5


def test_few_outliers_stretch_smallest_and_largest_alone() -> None:
    values = bell(20_000)
    values[7, 3] = 500.0
    made = seen(values)
    assert made.range()[1] == 500.0
    assert percentile(made, 99.99)[1] < 6
    assert percentile(made, 99.99)[0] == pytest.approx(-4, abs=0.6)
    assert entropy(made)[1] < 100


@pytest.mark.parametrize("part", [99.9, 99.0, 90.0])
def test_percentile_is_the_part_of_all_values_of_all_samples_that_stays(part: float) -> None:
    """One sample in fifty is fifty times as large."""
    samples = [bell(2_000, 50 if seed == 7 else 1, seed) for seed in range(50)]
    low, high = percentile(seen(*samples), part)
    values = np.stack(samples)
    assert 100 * np.mean((values >= low) & (values <= high)) == pytest.approx(part, abs=0.5)
    assert low == pytest.approx(np.percentile(values, 50 - part / 2), abs=0.2)
    assert high == pytest.approx(np.percentile(values, 50 + part / 2), abs=0.2)


def test_zeros_are_values_too() -> None:
    sparse = np.zeros((1_000, 10), np.float32)
    sparse[::100, 3] = 5.0
    assert percentile(seen(sparse, np.zeros_like(sparse)), 99.99)[1] == 5.0
    assert percentile(seen(sparse, np.zeros_like(sparse)), 99.0)[1] < 0.01  # one value in two thousand is not zero


def test_least_error_cuts_off_nothing_that_would_cost_more_than_it_wins() -> None:
    values = bell(20_000)
    values[7, 3] = 500.0  # once in 160,000: to cut it to 10 costs 1.5, to keep it 0.3
    made = seen(values)
    assert error(values, *least_error(made)) < 1.05 * error(values, *made.range())


def test_least_error_comes_within_a_tenth_of_the_best_range_there_is() -> None:
    values = np.maximum(np.random.default_rng(0).standard_t(3, (16_000, 4)), 0).astype(np.float32)
    made = seen(values)
    best = min(error(values, 0.0, made.range()[1] * part) for part in np.linspace(0.02, 1, 99))
    assert error(values, *least_error(made)) < 1.1 * best


@pytest.mark.parametrize("how", RANGES)
def test_a_range_holds_zero_and_stays_within_what_was_seen(how: str) -> None:
    for values in (bell(1000) + 20, bell(1000) - 20, bell(1000), np.zeros((4, 4), np.float32), np.float32(3.0)):
        made = seen(np.asarray(values))
        low, high = chosen_range(Recipe("int8", how), made)
        assert made.range()[0] <= low <= 0 <= high <= made.range()[1]


def test_a_last_axis_of_free_size_has_no_channels() -> None:
    made = seen(np.ones((2, 3), np.float32), np.full((2, 5), -4, np.float32), np.full((2, 3), 9, np.float32))
    assert made.range() == (-4.0, 9.0)
    assert made.counts.sum() == 22

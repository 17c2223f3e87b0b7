"""The range of an activation from a histogram of constant size: smallest and largest, percentile, entropy, least error.

Refuses nothing; a tensor of zeros has the range 0 to 0."""

from dataclasses import dataclass, field

import numpy as np
from edgekit_runtime.tensors import Array

from edgekit.quantizers.percentiles import held_range
from edgekit.recipes import Recipe

HALF = 2048
"""Bins on each side of zero."""

MOST = 2**16
"""Values of one tensor and one sample that go into its histogram; its extremes are those of all values."""

LEVELS = 255
LEAST = 1e-9
"""What counts as the share of values that have no level of their own."""


@dataclass
class Histogram:
    """Counts of what a tensor held, in bins `2 ** power` wide around zero, and its extremes in each channel.

    Bins widen by doubling, which only adds neighbours: the result is the same in any order of samples.
    A channel is an index of the last axis.
    """

    lows: Array
    highs: Array
    counts: Array = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))
    power: int = -120

    def add(self, value: Array) -> None:
        """One more sample of the tensor, finite float32."""
        rows = value.reshape(-1, value.shape[-1]) if value.ndim else value.reshape(1, 1)
        if rows.shape[1] != self.lows.size:  # a free size at the last axis: its places are no channels
            rows = np.stack([value.min(), value.max()]).reshape(2, 1)
            self.lows, self.highs = self.lows.min(keepdims=True), self.highs.max(keepdims=True)
        self.lows, self.highs = np.minimum(self.lows, rows.min(0)), np.maximum(self.highs, rows.max(0))
        some = _some(value)
        largest = float(np.abs(some).max(initial=0.0))
        if largest > 0.0:
            self._widen(max(-120, int(np.ceil(np.log2(largest / (HALF - 1))))))
        places = np.floor(some * np.float32(2.0**-self.power)).astype(np.int64) + HALF
        self.counts += np.bincount(np.clip(places, 0, 2 * HALF - 1), minlength=2 * HALF)

    def range(self) -> tuple[float, float]:
        """The smallest and largest value, with zero between them."""
        return min(0.0, float(self.lows.min())), max(0.0, float(self.highs.max()))

    def centres(self) -> Array:
        """The middle of each bin."""
        return np.asarray((np.arange(-HALF, HALF) + 0.5) * 2.0**self.power)

    def _widen(self, power: int) -> None:
        if power <= self.power:
            return
        many = min(2 ** min(power - self.power, 11), HALF)
        below, above = (half.reshape(-1, many).sum(1) for half in np.split(self.counts, 2))
        self.counts = np.zeros(2 * HALF, np.int64)
        self.counts[HALF - below.size : HALF], self.counts[HALF : HALF + above.size] = below, above
        self.power = power


def new_histogram(value: Array) -> Histogram:
    """A histogram of one sample."""
    channels = value.shape[-1] if value.ndim else 1
    made = Histogram(np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32))
    made.add(value)
    return made


def chosen_range(recipe: Recipe, seen: Histogram) -> tuple[float, float]:
    """The range by the recipe's `ranges`: never wider than what was seen, and with zero in it."""
    if recipe.ranges == "percentile":
        return percentile(seen, recipe.percentile)
    return {"minmax": Histogram.range, "entropy": entropy, "mse": least_error}[recipe.ranges](seen)


def percentile(seen: Histogram, percentile: float) -> tuple[float, float]:
    """What holds that part in percent of the values."""
    low, high = seen.range()
    least, most = held_range(seen.counts, np.arange(-HALF, HALF + 1) * 2.0**seen.power, percentile)
    return max(low, min(0.0, least)), min(high, max(0.0, most))


def entropy(seen: Histogram) -> tuple[float, float]:
    """What lies within the distance from zero at which 255 levels tell least apart from the histogram
    (Kullback-Leibler divergence)."""
    low, high = seen.range()
    if low == high:
        return low, high
    furthest = max(-low, high) * np.linspace(1.0, 0.05, 96)
    ends = [(max(low, -float(far)), min(high, float(far))) for far in furthest]
    return ends[int(np.argmin([_divergence(seen, *pair) for pair in ends]))]


def least_error(seen: Histogram) -> tuple[float, float]:
    """The ends between which rounding and clipping together make the least squared error."""
    low, high = seen.range()
    centres, counts = seen.centres(), seen.counts.astype(np.float64)
    lows, highs = (end * np.linspace(0.05, 1.0, 96) for end in (low, high))
    below = np.array([(counts * np.maximum(end - centres, 0.0) ** 2).sum() for end in lows])
    above = np.array([(counts * np.maximum(centres - end, 0.0) ** 2).sum() for end in highs])
    step = (highs[None, :] - lows[:, None]) / LEVELS
    loss = below[:, None] + above[None, :] + counts.sum() * step**2 / 12
    row, column = np.unravel_index(int(loss.argmin()), loss.shape)
    return float(lows[row]), float(highs[column])


def _divergence(seen: Histogram, low: float, high: float) -> float:
    """How far the histogram is from itself at 255 levels between these ends; what is cut off lands in the end
    levels, and is missing where it was."""
    counts, centres = seen.counts.astype(np.float64), seen.centres()
    levels = np.clip((centres - low) * (LEVELS / (high - low)), 0, LEVELS - 1).astype(np.int64)
    inside = (centres > low) & (centres < high) & (counts > 0)
    filled = np.bincount(levels[inside], minlength=LEVELS)
    held = np.bincount(levels, counts, minlength=LEVELS)
    spread = np.where(inside, (held / np.maximum(filled, 1))[levels], 0.0)
    p, q = counts / counts.sum(), np.maximum(spread / counts.sum(), LEAST)
    return float((p[counts > 0] * np.log(p[counts > 0] / q[counts > 0])).sum())


def _some(value: Array) -> Array:
    """Evenly spaced values, at most about MOST, and the extremes; the step has no factor in common with the number of
    channels."""
    flat = value.ravel()
    step = -(-flat.size // MOST)
    while step > 1 and np.gcd(step, value.shape[-1]) != 1:
        step += 1
    return flat if step == 1 else np.append(flat[::step], [flat.min(), flat.max()])

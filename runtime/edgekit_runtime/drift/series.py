"""Looks at one sound, sensor series or spectrogram: level, spread and range by channel, energy by band of frequency.

Refuses nothing: more than 8 channels are told apart in 8 groups, an empty series gives NaN throughout."""

import math
from collections.abc import Sequence

import numpy as np

from edgekit_runtime.drift.looking import MOST_VALUES, Look, finite
from edgekit_runtime.tensors import Array

MOST_CHANNELS = 8
WINDOW = 4096
"""Values of a channel whose spectrum is taken, from the middle."""
BANDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Where the bands end, as parts of half the sampling rate; the constant part is in none."""


def series(channels: int, axis: int | None, squeezed: int | None = None) -> Look:
    """At a series of so many channels along `axis`, 0 or 1; all values are one channel where it is None.

    `squeezed` is an axis of one value that is taken out before.
    """
    told = min(channels, MOST_CHANNELS)
    each = [f"{what}_{number}" for what in ("mean", "std", "range") for number in range(told)]
    names = ("not_finite", "zeros", *(f"band_{number}" for number in range(len(BANDS))), *each)

    def see(row: Array) -> Sequence[float]:
        values = row if squeezed is None else row.take(0, axis=squeezed)
        values = values.reshape(1, -1) if axis is None else values if axis == 0 else values.T
        if values.size == 0:
            return [math.nan] * len(names)
        length = values.shape[1]
        start = max(0, (length - WINDOW) // 2)
        middle, odd = finite(_grouped(values[:, start : start + WINDOW].astype(np.float32), told))
        whole = middle
        if length > WINDOW:
            whole, odd = finite(_grouped(values[:, :: -(-length // MOST_VALUES)].astype(np.float32), told))
        zeros = 1 - int(np.count_nonzero(whole)) / whole.size
        mean = whole.sum(axis=1) / np.float32(whole.shape[1])
        rest = whole - mean[:, None]
        std = np.sqrt((rest * rest).sum(axis=1) / np.float32(whole.shape[1]))
        span = whole.max(axis=1) - whole.min(axis=1)
        return [odd, zeros, *_bands(middle), *mean.tolist(), *std.tolist(), *span.tolist()]

    return Look(names, see)


def _grouped(values: Array, told: int) -> Array:
    """Neighbouring channels averaged until `told` are left."""
    count = len(values)
    if count == told:
        return values
    starts = [number * count // told for number in range(told)]
    sizes = np.diff([*starts, count]).astype(np.float32)
    return np.asarray(np.add.reduceat(values, starts, axis=0) / sizes[:, None])


def _bands(values: Array) -> Sequence[float]:
    """The share of each band in the energy of all channels."""
    spectrum = np.fft.rfft(values)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
    power[0] = 0
    sums = power.cumsum(dtype=np.float64)
    total = float(sums[-1])
    if not total:
        return [0.0] * len(BANDS)
    ends = [float(sums[int(part * (len(sums) - 1))]) for part in BANDS]
    return [(high - low) / total for low, high in zip([0.0, *ends], ends, strict=False)]

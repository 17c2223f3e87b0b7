"""Sound at another rate: a polyphase filter that cuts off what the lower of both rates cannot hold.

Refuses nothing. The same filter as `scipy.signal.resample_poly`: a windowed sinc, Kaiser, ten zero crossings a side."""

from fractions import Fraction
from functools import lru_cache

import numpy as np

from edgekit_runtime.tensors import Array

CROSSINGS, BETA = 10, 5.0
MOST_PHASES = 4096
"""Beyond it the ratio is rounded: rates without a common divisor would want a filter for every output. It is off by
less than a part in 100,000 then, where a sound card's clock is off by as much."""
BLOCK = 2**22
"""Numbers looked at together."""


def resampled(values: Array, rate: int, wanted: int) -> Array:
    """float32 `values` (time) of `rate` samples a second as `wanted` a second, rounded up to a whole sample."""
    up, down = ratio(rate, wanted)
    if up == down:
        return values
    phases = _phases(up, down)
    width, half = phases.shape[1], CROSSINGS * max(up, down)
    count = -(-len(values) * up // down)
    padded = np.zeros(((count - 1) * down + half) // up + width, np.float32)
    kept = values[: len(padded) - width + 1]
    padded[width - 1 : width - 1 + len(kept)] = kept
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    found = np.empty(count, np.float32)
    step = max(1, BLOCK // width)
    for first in range(min(up, count)):  # outputs `up` apart are made by the same phase of the filter
        newest, phase = divmod(first * down + half, up)
        mine, into = windows[newest::down], found[first::up]
        for start in range(0, len(into), step):
            block = into[start : start + step]
            np.matmul(mine[start : start + len(block)], phases[phase], out=block)
    return found


def ratio(rate: int, wanted: int) -> tuple[int, int]:
    """(up, down) in lowest terms, each at most about `MOST_PHASES`, or the other is 1."""
    exact = Fraction(wanted, rate)
    if max(exact.numerator, exact.denominator) <= MOST_PHASES:
        return exact.numerator, exact.denominator
    larger = max(exact, 1 / exact)
    near = larger.limit_denominator(max(1, int(MOST_PHASES / larger)))
    return (near.numerator, near.denominator) if exact >= 1 else (near.denominator, near.numerator)


@lru_cache(maxsize=8)
def _phases(up: int, down: int) -> Array:
    """(up, width): what each phase multiplies a window of samples by, the oldest sample first."""
    most = max(up, down)
    places = np.arange(-CROSSINGS * most, CROSSINGS * most + 1)
    sinc = np.sinc(places / most) * np.kaiser(len(places), BETA)
    sinc *= up / sinc.sum()
    width = -(-len(sinc) // up)
    whole = np.zeros(width * up)
    whole[: len(sinc)] = sinc
    return np.ascontiguousarray(whole.reshape(width, up).T[:, ::-1], dtype=np.float32)

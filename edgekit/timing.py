"""Latency that can be trusted: warmed up, interleaved in one process, medians; and peak memory of a fresh process.

Refuses to time for another architecture than this machine's."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from edgekit_runtime.tensors import Feeds, Runner


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference over `n` runs: median and 90th percentile, and `ratio`, the median of the
    round-by-round quotient to the first runner timed beside it."""

    median_ms: float
    p90_ms: float
    n: int
    ratio: float


def interleaved(
    runners: Mapping[str, Runner], feeds: Feeds, seconds: float = 2.0, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Latency]:
    """Time runners in turn on the same feeds, for about `seconds` in all; the first is what the ratios are to."""
    for run in runners.values():
        for _ in range(3):
            run(feeds)
    taken: dict[str, list[float]] = {name: [] for name in runners}
    end = clock() + seconds
    while clock() < end or len(next(iter(taken.values()))) < 10:
        for name, run in runners.items():
            start = clock()
            run(feeds)
            taken[name].append((clock() - start) * 1000)
    first = np.array(next(iter(taken.values())))
    return {
        name: Latency(
            float(np.median(times)),
            float(np.quantile(times, 0.9)),
            len(times),
            float(np.median(np.array(times) / first)),
        )
        for name, times in taken.items()
    }

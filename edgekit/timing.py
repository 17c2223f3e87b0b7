"""Latency that can be trusted: warmed up, interleaved in one process, medians with their intervals.

Refuses to call a difference that the noise of the machine can explain: then the interval of the ratio holds 1."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from edgekit_runtime.tensors import Array, Feeds, Runner

SHOWN = 100
"""How many quantiles of the times are kept, to draw."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference over `n` runs: median, 90th percentile, and `shape`, quantiles from the fastest
    to the slowest. `ratio` is the median of the round-by-round quotient to the first runner timed beside it, with
    its 95 % interval `low` to `high`."""

    median_ms: float
    p90_ms: float
    n: int
    ratio: float
    low: float = 1.0
    high: float = 1.0
    shape: tuple[float, ...] = ()


def interleaved(
    runners: Mapping[str, Runner], feeds: Feeds, seconds: float = 2.0, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Latency]:
    """Time runners in turn on the same feeds; the first is what the ratios are to.

    It takes about `seconds` in all, and up to three times that while it cannot tell whether one is faster.
    """
    for run in runners.values():
        for _ in range(3):
            run(feeds)
    taken: dict[str, list[float]] = {name: [] for name in runners}
    start = clock()
    while (rounds := len(next(iter(taken.values())))) < 10 or clock() - start < seconds:
        _round(runners, feeds, taken, clock)
    while clock() - start < 3 * seconds and not _told(taken):
        for _ in range(max(10, rounds // 10)):
            _round(runners, feeds, taken, clock)
    return summary(taken)


def summary(taken: Mapping[str, list[float]]) -> dict[str, Latency]:
    """Latencies of runners that were timed in turn, in ms, round by round; the first is what the ratios are to."""
    first = np.array(next(iter(taken.values())))
    return {name: _latency(np.array(times), first) for name, times in taken.items()}


def _round(
    runners: Mapping[str, Runner], feeds: Feeds, taken: Mapping[str, list[float]], clock: Callable[[], float]
) -> None:
    for name, run in runners.items():
        start = clock()
        run(feeds)
        taken[name].append((clock() - start) * 1000)


def _told(taken: Mapping[str, list[float]]) -> bool:
    """Whether each is plainly faster, plainly slower, or plainly about as fast as the first."""
    _, *others = summary(taken).values()
    return all(not one.low <= near <= one.high for one in others for near in (0.97, 1))


def _latency(times: Array, first: Array) -> Latency:
    quotients = np.sort(times / first)
    n = len(quotients)
    half = 0.98 * np.sqrt(n)  # order statistics: ranks n/2 -+ 1.96 sqrt(n)/2 hold the median in 95 % of cases
    low, high = quotients[max(0, int(n / 2 - half))], quotients[min(n - 1, int(np.ceil(n / 2 + half)))]
    shape = np.quantile(times, np.linspace(0, 1, min(n, SHOWN)))
    return Latency(
        float(np.median(times)), float(np.quantile(times, 0.9)), n, float(np.median(quotients)),
        float(low), float(high), tuple(float(value) for value in shape),
    )  # fmt: skip

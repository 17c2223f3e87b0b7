"""A version in shadow: it answers a copy of some live requests, and is judged by its answers and its time.

Refuses to be judged by few requests, to take more than its share, and to change what is answered.

Of each compared request one sample, drawn at random, is compared: samples of one batch are alike, and would count as
more than they tell. For a classifier both agree when their best class is the same; for other models when each output is
within the tolerance of the new version's own recorded answers, in parts of their range. The interval is Wilson's (see
`feedback`). Times are what the engine took for the same requests. The one in shadow runs at a lower priority, with cold
caches, and waits for Python's lock beside a busy event loop: `BESIDE_MS` is allowed for that.

It runs in the server's own process: one that crashes there takes the server down. The store counts such starts, and
drops it after a few (see `store.shadowing`)."""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.feedback import wilson
from edgekit_runtime.selftest import difference, recordings, spans
from edgekit_runtime.served import Served
from edgekit_runtime.shadow import Turns, same_classes
from edgekit_runtime.store import Terms
from edgekit_runtime.tensors import Feeds

FEW = 50
"""Compared requests, before which no disagreement ends it (or all that are asked for, where these are fewer)."""
MOST_FAILURES = 3
BESIDE_MS = 0.25
TIMES = 1_000
"""The times of so many last requests are kept."""

Judge = Callable[[Feeds, Feeds], list[bool]]


@dataclass(frozen=True)
class Compared:
    """So far: how many requests, how many agreed, the 95 % interval of that share, the median times in ms of both over
    these requests, the requests on which it failed, and in which words it failed last."""

    requests: int = 0
    agreed: int = 0
    low: float = 0.0
    high: float = 1.0
    ms: float = 0.0
    live_ms: float = 0.0
    failed: int = 0
    failure: str = ""

    @property
    def words(self) -> str:
        """For a person."""
        if not self.requests:
            return f"no request was compared{f'; it failed on {self.failed}' if self.failed else ''}"
        share = f"{self.agreed} of {self.requests} agreed ({100 * self.low:.1f} to {100 * self.high:.1f} %)"
        return f"{share}, {self.ms:.3g} ms to {self.live_ms:.3g} ms"


@dataclass(frozen=True)
class Verdict:
    """It is `promoted` or dropped, and why; `bad`: it is not to be tried again."""

    promoted: bool
    why: str
    bad: bool = False


class Beside:
    """`look` belongs to one thread; `compared` is read from any, and replaced whole."""

    def __init__(self, served: Served, terms: Terms, clock: Callable[[], float] = time.perf_counter) -> None:
        self.served, self.terms = served, terms
        self.compared = Compared()
        self._same = judge_of(served)
        self._clock = clock
        self._turns = Turns(terms.share, clock)
        self._times: deque[tuple[float, float]] = deque(maxlen=TIMES)
        self._draw = random.Random()

    def look(self, feeds: Feeds, outputs: Feeds, ns: int) -> None:
        """Answer a request too, if it is this one's turn; `outputs` were answered, in so many nanoseconds of the live
        engine. Never raises for what the version does."""
        if self.compared.failed >= MOST_FAILURES or not self._turns.due():
            return
        begun = self._clock()
        try:
            ours = self.served.run(feeds)
            took = self._clock() - begun
            same = self._same(outputs, ours)
            self._times.append((took * 1e3, ns / 1e6))
            self._count(self._draw.choice(same) if same else False)
        except Exception as error:  # a foreign engine's: whatever it is, it is this version's failure and nobody else's
            self._failed(error)
        finally:
            self._turns.took(self._clock() - begun)

    def _count(self, agreed: bool) -> None:
        was = self.compared
        n, right = was.requests + 1, was.agreed + agreed
        ours, theirs = (median(times) for times in zip(*self._times, strict=True))
        self.compared = Compared(n, right, *wilson(right, n), ours, theirs, was.failed, was.failure)

    def _failed(self, error: Exception) -> None:
        was = self.compared
        words = error.what if isinstance(error, EdgeKitError) else type(error).__name__
        self.compared = Compared(
            was.requests, was.agreed, was.low, was.high, was.ms, was.live_ms, was.failed + 1, words
        )  # fmt: skip


def judge_of(served: Served) -> Judge:
    """For each sample whether what the version answers is what was answered."""
    assert served.bundle is not None
    golden, pairs = recordings(served.bundle)
    ranges, classes = spans(pairs), len(served.labels)

    def same(live: Feeds, ours: Feeds) -> list[bool]:
        found = same_classes(live, ours, classes)
        if found is not None:
            return found
        known = bool(live) and all(name in ours and name in ranges for name in live)
        return [known and all(difference(live, ours, name) / ranges[name] <= golden.tolerance for name in live)]

    return same


def verdict(found: Compared, terms: Terms, seconds_left: float) -> Verdict | None:
    """What becomes of a version of which so much is known; None: go on."""
    if found.failed >= MOST_FAILURES:
        return Verdict(False, f"it failed on {found.failed} requests: {found.failure}; {found.words}", True)
    enough = found.requests >= terms.requests
    if found.requests >= min(FEW, terms.requests) and found.high < terms.agreement:
        return Verdict(False, f"it disagrees: {found.words}; {100 * terms.agreement:.4g} % is asked for", True)
    if enough and found.ms > terms.slower * found.live_ms + BESIDE_MS:
        return Verdict(False, f"it is slower: {found.words}; {terms.slower:g} times is allowed", True)
    if enough and found.low >= terms.agreement:
        return Verdict(True, found.words)
    if seconds_left > 0:
        return None
    less = "that does not tell" if enough else f"of {terms.requests} requests"
    return Verdict(False, f"its {terms.seconds:g} s are over, {less}: {found.words}")

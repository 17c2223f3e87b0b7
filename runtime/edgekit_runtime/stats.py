"""What a model did so far, in plain integers: how often, how long, in batches of which size, why not.

Refuses nothing; written by the event loop and the engine's thread, never both at once, read by whoever tells it."""

import time
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

from edgekit_runtime.histograms import ROWS, SECONDS, Histogram

NANOSECONDS = tuple(round(bound * 1e9) for bound in SECONDS)


@dataclass(slots=True)
class Spent:
    """How often something was done, and the nanoseconds that all of it took."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count it once more."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Timed:
    """As `Spent`; `within` counts them between the bounds of `NANOSECONDS`. The bare list is what a request of a
    quick model can pay for."""

    count: int = 0
    ns: int = 0
    within: list[int] = field(default_factory=lambda: [0] * (len(NANOSECONDS) + 1))

    def histogram(self) -> Histogram:
        """What it is now, in seconds."""
        return Histogram(SECONDS, tuple(self.within), self.ns / 1e9)


@dataclass(slots=True)
class Batch:
    """What the executions of one batch size took."""

    input: Spent = field(default_factory=Spent)
    infer: Spent = field(default_factory=Spent)
    output: Spent = field(default_factory=Spent)


@dataclass(slots=True)
class Stats:
    """`inferences` counts rows, `executions` runs of the engine; `success` and `fail` are whole requests.

    `last_ms` is when the last request ended, in milliseconds since 1970. `rejected` found the queue full,
    `late` met their deadline, `cancelled` were given up by their client; `reasons` are those of all that failed, in
    words of ours. `broken` are runs that the engine did not end well. `rows` counts executions between the
    bounds of `ROWS`.
    """

    last_ms: int = 0
    inferences: int = 0
    executions: int = 0
    rejected: int = 0
    late: int = 0
    cancelled: int = 0
    broken: int = 0
    success: Timed = field(default_factory=Timed)
    fail: Spent = field(default_factory=Spent)
    queue: Timed = field(default_factory=Timed)
    input: Spent = field(default_factory=Spent)
    infer: Timed = field(default_factory=Timed)
    output: Spent = field(default_factory=Spent)
    batches: dict[int, Batch] = field(default_factory=dict)
    rows: list[int] = field(default_factory=lambda: [0] * (len(ROWS) + 1))
    reasons: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def executed(self, rows: int, ns: int) -> None:
        """The engine ran once, on so many rows."""
        self.inferences += rows
        self.executions += 1
        self.rows[bisect_left(ROWS, rows)] += 1
        batch = self.batches.get(rows)
        if batch is None:
            if len(self.batches) >= MOST_SIZES:
                return
            batch = self.batches[rows] = Batch()
        batch.infer.add(ns)
        batch.input.count += 1
        batch.output.count += 1

    def answered(self, input_ns: int, queue_ns: int, infer_ns: int, output_ns: int) -> None:
        """One request was answered."""
        self.last_ms = time.time_ns() // 1_000_000
        ns = input_ns + queue_ns + infer_ns + output_ns
        # written out: a loop over the five costs a quick model's request more than all the counting does
        success, queue, read, infer, written = self.success, self.queue, self.input, self.infer, self.output
        success.count += 1
        success.ns += ns
        success.within[bisect_left(NANOSECONDS, ns)] += 1
        queue.count += 1
        queue.ns += queue_ns
        queue.within[bisect_left(NANOSECONDS, queue_ns) if queue_ns else 0] += 1
        read.count += 1
        read.ns += input_ns
        infer.count += 1
        infer.ns += infer_ns
        infer.within[bisect_left(NANOSECONDS, infer_ns)] += 1
        written.count += 1
        written.ns += output_ns

    def failed(self, ns: int, reason: str = "other") -> None:
        """One request was not; `reason` is the error's, see `errors`."""
        self.last_ms = time.time_ns() // 1_000_000
        self.fail.add(ns)
        self.reasons[reason] += 1

    def batch(self) -> Histogram:
        """The executions by their rows."""
        return Histogram(ROWS, tuple(self.rows), self.inferences)


MOST_SIZES = 256
"""How many batch sizes are told apart: clients choose them."""

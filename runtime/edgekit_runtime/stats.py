"""What a model did so far, in plain integers: how often, how long, in batches of which size.

Refuses nothing; written by the event loop and the engine's thread, never both at once, read by whoever tells it."""

import time
from dataclasses import dataclass, field


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
class Batch:
    """What the executions of one batch size took."""

    input: Spent = field(default_factory=Spent)
    infer: Spent = field(default_factory=Spent)
    output: Spent = field(default_factory=Spent)


@dataclass(slots=True)
class Stats:
    """`inferences` counts rows, `executions` runs of the engine; `success` and `fail` are whole requests.

    `last_ms` is when the last request ended, in milliseconds since 1970. `rejected` found the queue full,
    `late` met their deadline, `cancelled` were given up by their client.
    """

    last_ms: int = 0
    inferences: int = 0
    executions: int = 0
    rejected: int = 0
    late: int = 0
    cancelled: int = 0
    success: Spent = field(default_factory=Spent)
    fail: Spent = field(default_factory=Spent)
    queue: Spent = field(default_factory=Spent)
    input: Spent = field(default_factory=Spent)
    infer: Spent = field(default_factory=Spent)
    output: Spent = field(default_factory=Spent)
    batches: dict[int, Batch] = field(default_factory=dict)

    def executed(self, rows: int, ns: int) -> None:
        """The engine ran once, on so many rows."""
        self.inferences += rows
        self.executions += 1
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
        for spent, ns in (
            (self.success, input_ns + queue_ns + infer_ns + output_ns),
            (self.queue, queue_ns), (self.input, input_ns), (self.infer, infer_ns), (self.output, output_ns),
        ):  # fmt: skip
            spent.count += 1
            spent.ns += ns

    def failed(self, ns: int) -> None:
        """One request was not."""
        self.last_ms = time.time_ns() // 1_000_000
        self.fail.add(ns)


MOST_SIZES = 256
"""How many batch sizes are told apart: clients choose them."""

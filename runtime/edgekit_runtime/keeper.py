"""Hands candidates to the store of samples, in a thread of its own: a disk takes its time, and nobody waits for it.

Refuses more than a few at once: while the disk is busy, others will come."""

import logging
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit_runtime.samples import Candidate, Samples

log = logging.getLogger("edgekit_runtime.monitor")

MOST_WAITING = 4
LAST_SECONDS = 2.0


class Keeper:
    """`offer` belongs to the monitor's thread."""

    def __init__(self, samples: "Samples") -> None:
        self._samples = samples
        self._queue: queue.SimpleQueue[Candidate | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._told = False

    def start(self) -> None:
        """Begin to keep."""
        self._thread.start()

    def offer(self, one: "Candidate") -> None:
        """Keep it, if there is time for it and it is worth it."""
        if self._queue.qsize() < MOST_WAITING:
            self._queue.put(one)

    def close(self) -> None:
        """Keep what was offered, and no more."""
        self._queue.put(None)
        self._thread.join(LAST_SECONDS)

    def _work(self) -> None:
        while (one := self._queue.get()) is not None:
            try:
                self._samples.consider(one)
            except Exception:  # a bug there must not end the keeping; told once
                if not self._told:
                    log.exception("a sample could not be kept")
                self._told = True

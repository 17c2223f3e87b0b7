"""Once a second, from a thread of its own: what is measured goes to the ring.

Refuses to end because of what it is given to read: an error there is logged once, and the next second is tried."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from edgekit_runtime.families import Family
from edgekit_runtime.telemetry.ring import Ring

log = logging.getLogger("edgekit_runtime.telemetry")

EVERY = 1.0
PATIENCE = 2.0
"""Seconds that the end of the server waits for a disk."""


def record(ring: Ring, measure: Callable[[], Sequence[Family]]) -> Callable[[], None]:
    """Begin; the function that ends it writes once more. `measure` is called in the thread."""
    ended = threading.Event()
    thread = threading.Thread(target=_loop, args=(ring, measure, ended), name="telemetry", daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join(PATIENCE)

    return end


def _loop(ring: Ring, measure: Callable[[], Sequence[Family]], ended: threading.Event) -> None:
    told = False
    while True:
        last = ended.is_set()
        try:
            ring.put(measure(), time.time_ns() // 1_000_000)
            told = False
        except Exception:  # a bug in what measures: this thread must live on, the rest can still be measured later
            if not told:
                log.exception("what is measured could not be read")
            told = True
        if last:
            return
        ended.wait(EVERY)

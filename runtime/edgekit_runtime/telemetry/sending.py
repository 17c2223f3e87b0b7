"""Sends what the ring keeps, oldest first, to one destination: at least once, from a thread of its own.

Refuses to give up on a network that is down, to be quicker than it was told, and to keep the server from ending.

What a receiver will never take (HTTP 400, 413, 422) is found by halving the batch, dropped, counted and told once.
Where nothing at all is taken (401, 403, 404, a redirect), nothing is dropped: the ring keeps it, and we ask seldom."""

import logging
import random
import threading
import time
from collections.abc import Callable

from edgekit_runtime.families import Family, Sample
from edgekit_runtime.telemetry.posting import Answer, Destination, Outcome
from edgekit_runtime.telemetry.ring import Ring
from edgekit_runtime.telemetry.series import Slot

log = logging.getLogger("edgekit_runtime.telemetry")

SLOTS = 120
SAMPLES = 20_000
"""In one message: about 400 kB."""
LONGEST = 300.0
"""Seconds between two tries, about, while nobody answers."""
PLAUSIBLE_MS = 1_735_689_600_000
"""2025: a clock before that was not set yet."""


class Sender:
    """To one destination. `step` does the work of one moment and says how many seconds to wait: `start` calls it.

    `per_second` bounds the slots that are back-filled.
    """

    def __init__(
        self, ring: Ring, to: Destination, per_second: float = 200.0, now: Callable[[], float] = time.time
    ) -> None:
        self._ring, self._to, self._per_second, self._now = ring, to, per_second, now
        self._limit = SLOTS
        self._fails = 0
        self._told = ""
        self._oldest_ms: int | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin, in a thread that does not hold up the end of the process."""
        threading.Thread(target=self._loop, name="telemetry-sender", daemon=True).start()

    def stop(self) -> None:
        """End soon, without waiting for it."""
        self._ended.set()
        self._to.close()

    def behind_seconds(self) -> float:
        """The age of the oldest slot that is not there yet, as far as we looked."""
        oldest = self._oldest_ms
        return 0.0 if oldest is None else max(0.0, self._now() - oldest / 1000)

    @property
    def name(self) -> str:
        """Of the destination."""
        return self._to.name

    def step(self) -> float:
        """Send a batch, if there is one; how many seconds to wait."""
        if self._now() * 1000 < PLAUSIBLE_MS:
            return self._ring.interval  # the clock is not set yet: the times would be wrong for good
        slots = self._batch()
        self._oldest_ms = slots[0].when_ms if slots else None
        if not slots:
            return self._ring.interval / 2
        if slots[-1].when_ms < PLAUSIBLE_MS:
            self._give_up("clock", slots)
            return 0.0
        self._ring.trying(self.name, slots[-1].cursor)
        try:
            answer = self._to.deliver(slots)
        except Exception as error:  # a foreign library's exporter may raise anything; the thread must live on
            answer = Answer(Outcome.LATER, f"{type(error).__name__}: {error}")
        return self._after(answer, slots)

    def _batch(self) -> list[Slot]:
        """Slots that fit into a message, all of them of a time that can be true, or none."""
        slots = self._ring.unsent(self.name, self._limit)
        taken: list[Slot] = []
        samples = 0
        for slot in slots:
            samples += len(slot.series)
            other = taken and (slot.when_ms < PLAUSIBLE_MS) != (taken[0].when_ms < PLAUSIBLE_MS)
            if taken and (samples > SAMPLES or other):
                break
            taken.append(slot)
        return taken

    def _after(self, answer: Answer, slots: list[Slot]) -> float:
        """What the answer means for these slots; how many seconds to wait."""
        if answer.outcome is Outcome.TAKEN:
            if self._told:
                log.info("%s takes telemetry", self.name)
            self._ring.sent(self.name, slots[-1].cursor)
            self._fails, self._told, self._limit = 0, "", min(SLOTS, self._limit * 2)
            return len(slots) / self._per_second
        self._tell(answer)
        if answer.outcome is Outcome.REFUSED:
            self._fails = 0
            if len(slots) == 1:
                self._give_up("refused", slots)
            self._limit = max(1, len(slots) // 2)
            return 1 / self._per_second
        self._fails = min(self._fails + 1, 30)
        longest = min(LONGEST, 2.0**self._fails)
        return max(answer.after, random.uniform(0.5, 1.0) * longest)

    def _give_up(self, reason: str, slots: list[Slot]) -> None:
        self._ring.dropped(reason, len(slots))
        self._ring.sent(self.name, slots[-1].cursor)

    def _tell(self, answer: Answer) -> None:
        """Once, until it is well again or something else is wrong."""
        if self._told != answer.outcome.value:
            log.warning("%s does not take telemetry: %s", self.name, answer.words)
        self._told = answer.outcome.value

    def _loop(self) -> None:
        while not self._ended.is_set():
            try:
                wait = self.step()
            except Exception:  # a bug of ours must not end the sending for good, nor fill the log
                log.exception("telemetry was not sent")
                wait = LONGEST
            self._ended.wait(wait)


def behind(senders: list[Sender]) -> Family:
    """How far behind each destination is; quick, for any thread."""
    words = "The age of the oldest slot of telemetry that a destination does not have."
    samples = tuple(Sample(one.behind_seconds(), (("destination", one.name),)) for one in senders)
    return Family("edgekit_telemetry_behind_seconds", "gauge", words, samples)

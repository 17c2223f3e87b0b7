"""Looks at what was answered, in one thread of its own and within a share of the time: drift, samples, a float shadow.

Refuses to look at more than that share allows: what is left out is counted, and no request waits for it."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from edgekit_runtime.beside import Beside
from edgekit_runtime.families import Family, Labels, Sample
from edgekit_runtime.keeper import Keeper
from edgekit_runtime.lane import Lane
from edgekit_runtime.metrics.models import labels
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.tensors import Array, Feeds
from edgekit_runtime.watched import Watched, Wishes, best_classes, candidate, opened, pair

if TYPE_CHECKING:
    from edgekit_runtime.drift import Reading, State
    from edgekit_runtime.shadow import Shadow

log = logging.getLogger("edgekit_runtime.monitor")

T = TypeVar("T")

MOST_WAITING = 8
"""Answers of each lane; while the thread rests one, so that a busy model leaves another its turn."""
MOST_BYTES = 4 * 2**20
"""What waits may hold so much, and more only where it is one answer."""
SAVED_SECONDS = 0.5
"""Processor time that is saved up at most: after a quiet minute most answers of a busy one are looked at."""
SPELL_SHARE, SPELL_SECONDS = 0.025, 0.05
"""What may be spent while it lasts, so that the requests of such a minute hardly notice."""
ROWS = 8
"""Of a large batch so many rows are looked at."""
NICE = 10
LAST_SECONDS = 2.0
TOLD = 3
"""Failures that are told in the log; later ones are counted."""


@dataclass(frozen=True)
class Alarm:
    """Drift of a model began (`raised`) or is over; `features` are the words for what moved."""

    model: str
    version: str
    raised: bool
    features: tuple[str, ...]
    when_ms: int


@dataclass(slots=True)
class _Line:
    """How many answers of a lane came and went: the event loop counts the ones, the thread the others."""

    put: int = 0
    taken: int = 0


@dataclass(slots=True)
class _Item:
    lane: Lane
    line: _Line
    id: str
    source: bytes | None
    feeds: Feeds
    outputs: Feeds
    size: int
    ns: int
    when_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


class _Purse:
    """Processor time: `share` of the time that goes by is put in, and `most` seconds of it are kept."""

    def __init__(self, share: float, most: float) -> None:
        self._share, self._most = share, most
        self._held, self._then = most, time.monotonic()

    def spend(self, seconds: float) -> float:
        """Take so much out; how many seconds to rest until nothing is owed."""
        now = time.monotonic()
        self._held = min(self._most, self._held + self._share * (now - self._then)) - seconds
        self._then = now
        return max(0.0, -self._held / self._share)


class Monitor:
    """`seen` and `keep` belong to the event loop, everything that costs to the thread; `families` and `state` may be
    asked from anywhere: what they read is replaced whole."""

    def __init__(self, wishes: Wishes, alarmed: Callable[[Alarm], None]) -> None:
        self.wishes = wishes
        self.looked = self.skipped = self.failed = 0
        self._alarmed = alarmed
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lines: dict[Lane, _Line] = {}
        self._put = self._taken = 0
        self._resting = False
        self._known: dict[Lane, Watched] = {}
        self._beside: Mapping[Lane, Beside] = {}
        self._keeper = None if wishes.samples is None else Keeper(wishes.samples)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="monitor", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()
        if self._keeper is not None:
            self._keeper.start()

    def close(self) -> None:
        """Look no more; what waits is let go."""
        self._end.set()
        self._queue.put(None)
        self._thread.join(LAST_SECONDS)
        if self._keeper is not None:
            self._keeper.close()

    def keep(self, lanes: Iterable[Lane], beside: Mapping[Lane, Beside] | None = None) -> None:
        """These are served now, some with a version in shadow `beside` them. What others answer is not looked at, and
        what is known of them is let go."""
        self._beside = beside or {}
        wanted = [lane for lane in lanes if lane in self._beside or self.wishes.reach(lane)]
        self._lines = {lane: self._lines.get(lane) or _Line() for lane in wanted}
        self._queue.put(None)

    def seen(self, lane: Lane, asked: Asked, feeds: Feeds, outputs: Feeds, ns: int = 0) -> None:
        """A request was answered, in so many nanoseconds of the engine."""
        wishes = self.wishes
        if wishes.feedback is not None and asked.id is not None:
            best = best_classes(lane.served, feeds, outputs)
            if best:
                wishes.feedback.remember(asked.id, lane.served.name, lane.served.version, *best)
        line = self._lines.get(lane)
        if line is None:
            return
        if line.put - line.taken >= (1 if self._resting else MOST_WAITING):
            self.skipped += 1
            return
        source = None if wishes.samples is None else asked.source
        size = len(source or b"") + sum(map(_weight, feeds.values())) + sum(map(_weight, outputs.values()))
        waiting = self._put - self._taken
        if waiting and waiting + size > MOST_BYTES:
            self.skipped += 1
            return
        line.put += 1
        self._put += size
        self._queue.put(_Item(lane, line, asked.id or "", source, feeds, outputs, size, ns))

    def state(self, lane: Lane) -> "State | None":
        """How far the lane's model has drifted; None where nobody looks, or nothing came yet."""
        known = self._known.get(lane)
        return None if known is None or known.drift is None else known.drift.state()

    def shadow(self, lane: Lane) -> "Shadow | None":
        """The lane's float shadow, where it has one that is asked."""
        known = self._known.get(lane)
        return None if known is None else known.shadow

    def families(self, lanes: Sequence[Lane]) -> list[Family]:
        """All that it knows of these lanes, for Prometheus."""
        from edgekit_runtime.shadow import families as shadow_families

        states = [(lane, found) for lane in lanes if (found := self.state(lane)) is not None]
        each = [(lane, one) for lane, found in states for one in found.features]

        def gauge(name: str, words: str, values: Iterable[tuple[Labels, float]]) -> Family:
            return Family(name, "gauge", words, tuple([Sample(value, labels) for labels, value in values]))

        shadows = {pair(lane): shadow for lane in lanes if (shadow := self.shadow(lane)) is not None}
        made = [
            gauge("edgekit_drift_alarm", "1 while inputs or answers have drifted from the build's.",
                  [(labels(lane), float(found.alarm)) for lane, found in states]),
            gauge("edgekit_drift_samples", "Samples that the last look at drift rests on.",
                  [(labels(lane), found.n) for lane, found in states]),
            gauge("edgekit_drift_psi", "Population stability index against the build's samples.",
                  [((*labels(lane), ("feature", one.name)), one.psi) for lane, one in each]),
            gauge("edgekit_drift_ks", "Kolmogorov-Smirnov distance to the build's samples.",
                  [((*labels(lane), ("feature", one.name)), one.ks) for lane, one in each]),
            Family("edgekit_monitor_looked_total", "counter", "Answers that the monitor looked at.",
                   (Sample(self.looked),)),
            Family("edgekit_monitor_skipped_total", "counter", "Answers that it left out to stay within its share.",
                   (Sample(self.skipped),)),
            Family("edgekit_monitor_failed_total", "counter", "Looks that a fault of the server ended: see its log.",
                   (Sample(self.failed),)),
        ]  # fmt: skip
        return made + (shadow_families(shadows) if shadows else [])

    def _work(self) -> None:
        _step_back()
        purses = [_Purse(self.wishes.share, SAVED_SECONDS), _Purse(SPELL_SHARE, SPELL_SECONDS)]
        while True:
            item = self._queue.get()
            if self._end.is_set():
                return
            if item is None:
                self._try(self._let_go)
                continue
            spent = self._try(self._look, item) or 0.0
            item.line.taken += 1
            self._taken += item.size
            del item
            rest = max(purse.spend(spent) for purse in purses)
            if rest > 0:
                self._resting = True
                self._end.wait(rest)
                self._resting = False

    def _try(self, look: Callable[..., T], *given: Any) -> T | None:
        try:
            return look(*given)
        except Exception:  # a bug in what only looks must end neither the looking nor the other looks
            self.failed += 1
            if self.failed <= TOLD:
                log.exception("an answer could not be looked at")
            return None

    def _look(self, item: _Item) -> float:
        """The processor seconds that drift took; samples and the shadow keep within bounds of their own."""
        if item.lane.closing or item.lane not in self._lines:
            return 0.0
        begun = time.thread_time()
        watched, readings = self._watched(item.lane), []
        if watched.read is not None and (self.wishes.samples is not None or self._wanted(watched)):
            readings = self._try(watched.read, _first(item, item.feeds), _first(item, item.outputs)) or []
        if readings and watched.drift is not None:
            self._try(self._count, watched, readings[:ROWS])
        spent = time.thread_time() - begun
        if self._keeper is not None:
            self._try(self._offer, self._keeper, item, watched, readings)
        if (beside := self._beside.get(item.lane)) is not None:  # in place of the float model: there is one share
            self._try(beside.look, item.feeds, item.outputs, item.ns)
        elif watched.shadow is not None:
            self._try(watched.shadow.look, item.feeds, item.outputs)
        self.looked += 1
        return spent

    def _wanted(self, watched: Watched) -> bool:
        return watched.drift is not None and watched.drift.wants(time.monotonic())

    def _let_go(self) -> None:
        """Forget who is not served any more; whoever was told of its drift is told that it is over."""
        gone = [watched for lane, watched in self._known.items() if lane not in self._lines]
        self._known = {lane: watched for lane, watched in self._known.items() if lane in self._lines}
        for watched in gone:
            if watched.alarm:
                self._alarmed(Alarm(watched.name, watched.version, False, (), time.time_ns() // 1_000_000))

    def _watched(self, lane: Lane) -> Watched:
        known = self._known.get(lane)
        if known is None:
            known = self._known[lane] = opened(lane.served, self.wishes)
        return known

    def _count(self, watched: Watched, readings: "list[Reading]") -> None:
        assert watched.drift is not None
        for reading in readings:
            watched.drift.add(reading, time.monotonic())
        state = watched.drift.state()
        if state.alarm != watched.alarm:
            watched.alarm = state.alarm
            moved = tuple(one.words for one in state.features if one.alarm)
            self._alarmed(Alarm(watched.name, watched.version, state.alarm, moved, time.time_ns() // 1_000_000))

    def _offer(self, keeper: "Keeper", item: _Item, watched: Watched, readings: "list[Reading]") -> None:
        one = candidate(item.lane.served, item.feeds, item.outputs, watched, readings)
        if one is not None:
            keeper.offer(replace(one, id=item.id, when_ms=item.when_ms, source=item.source))


def _first(item: _Item, tensors: Feeds) -> Feeds:
    """The rows that are looked at."""
    return {name: value[:ROWS] for name, value in tensors.items()} if item.lane.served.batchable() else tensors


def _weight(value: Array) -> int:
    """Bytes that a tensor holds; of many strings nobody counts them."""
    if value.dtype.kind != "O":
        return value.nbytes
    if value.size > ROWS:
        return MOST_BYTES
    return sum(len(one) if isinstance(one, str | bytes) else value.itemsize for one in value.flat)


def _step_back() -> None:
    """Let every other thread go first, where the system can."""
    import os

    try:
        nice = os.getpriority(os.PRIO_PROCESS, 0) + NICE
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, nice))
    except (AttributeError, OSError):
        log.debug("the monitor runs at the priority of all others")

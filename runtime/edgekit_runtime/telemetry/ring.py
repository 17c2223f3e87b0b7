"""A ring of telemetry on disk: what was measured lately, bounded in bytes and age, the oldest going first.

Refuses to start where it cannot write; once it runs it never raises for a disk: it drops, counts, and goes on."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.telemetry import events, room, rows, spans, waiting
from edgekit_runtime.telemetry.boots import Boot, this_boot
from edgekit_runtime.telemetry.series import Slot
from edgekit_runtime.telemetry.store import FULL_CODE, NAME, broken, code, open_store, put_aside
from edgekit_runtime.telemetry.unwritten import CURSOR, Unwritten

if TYPE_CHECKING:
    from sqlite3 import Connection

log = logging.getLogger("edgekit_runtime.telemetry")

T = TypeVar("T")
LEAST_BYTES = 2**20
TOGETHER = 6
"""Slots that go to the file at once: what is younger lies on the slate, which a kill leaves as it is."""


class Ring:
    """The ring in this folder.

    `put` is for one thread, once a second or so. `event` and `families` may be called from anywhere and cost little;
    an event is written with the next `put`. All else is for threads that may wait for the disk: not the event loop's.
    Slots go to the file `together` at once; with 0 each `put` does, and there is no slate.

    Raises:
        EdgeKitError: the folder cannot be written, or another process keeps its telemetry there.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        interval: float = 10.0,
        days: float = 35.0,
        boot: Boot | None = None,
        together: int = TOGETHER,
    ) -> None:
        if limit_bytes < LEAST_BYTES or interval <= 0 or days <= 0:
            raise EdgeKitError("telemetry needs 1 MB, an interval and an age", hint="say --telemetry-mb 64")
        self.interval = interval
        self._folder, self._limit = folder, limit_bytes
        self._interval_ms, self._age_ms = max(1, round(interval * 1000)), round(days * 86_400_000)
        self._boot = boot or this_boot()
        self._lock = threading.Lock()
        self._dropped: Counter[str] = Counter()
        self._events: deque[events.Event] = deque(maxlen=256)
        self._cursors: dict[str, tuple[int, int]] = {}
        self._together = together
        self._open: rows.Written | None = None
        self._offset: int | None = None
        self._missed: int | None = None
        self._bytes = 0
        self._next_id = self._next_event = 1
        self._pages = 0
        self._db: Connection | None = None
        self._begin()

    def put(self, families: Sequence[Family], when_ms: int) -> bool:
        """What is measured now; whether a kill would leave it. What was put before in this slot goes."""
        import sqlite3

        with self._lock:
            moment = self._boot.now_ms()
            for again in (True, False):
                if self._db is None:
                    return False
                try:
                    self._put(self._db, families, when_ms, moment)
                except (sqlite3.Error, UnicodeDecodeError) as error:
                    if not (again and self._made_room(self._db, error)):
                        self._failed(error, moment // self._interval_ms)
                        return False
                else:
                    break
            if self._missed is not None:
                log.info("telemetry is written again")
            self._missed = None
            return True

    def event(self, when_ms: int, kind: str, **facts: Any) -> None:
        """Something happened. At most 256 wait to be written."""
        self._events.append(events.event(when_ms, kind, facts))

    def events(self, limit: int) -> list[tuple[int, str, dict[str, Any]]]:
        """The last ones: (when_ms, kind, facts), the latest first."""
        most = min(limit, events.most(self._limit))
        return self._try(lambda db: events.read(db, self._unwritten.waiting.events, most), [])

    def read(self, after: int, limit: int) -> list[Slot]:
        """The slots after a cursor, oldest first, whole; the one that is still being written is not among them."""
        return self._try(lambda db: self._read(db, after, limit)[0], [])

    def unsent(self, destination: str, limit: int) -> list[Slot]:
        """The oldest slots that a destination does not have; it is known from its first call on."""

        def read(db: "Connection") -> list[Slot]:
            cursor, tried = self._cursor(db, destination)
            slots, last = self._read(db, cursor, limit)
            if not slots and last > cursor:  # none of them reads
                self._move_cursor(db, destination, last, max(tried, last))
            return slots

        return self._try(read, [])

    def trying(self, destination: str, cursor: int) -> None:
        """Slots up to this one are about to be sent: their times stay as they are."""
        self._try(lambda db: self._move_cursor(db, destination, 0, cursor), None)

    def sent(self, destination: str, cursor: int) -> None:
        """Slots up to this one are there, or are given up."""
        self._try(lambda db: self._move_cursor(db, destination, cursor, cursor), None)

    def dropped(self, reason: str, slots: int = 1) -> None:
        """Count slots that nobody will see."""
        self._dropped[reason] += slots

    def families(self) -> tuple[Family, ...]:
        """Its own counters."""
        dropped = tuple(Sample(count, (("reason", reason),)) for reason, count in sorted(self._dropped.copy().items()))
        lost = "Slots of telemetry that were not kept, or not taken by a receiver, by reason."
        size = "What telemetry takes on disk."
        return (
            Family("edgekit_telemetry_dropped_total", "counter", lost, dropped),
            Family("edgekit_telemetry_bytes", "gauge", size, (Sample(self._bytes),)),
        )

    def close(self) -> None:
        """Write what waits and close the file; whoever still asks is told that there is nothing."""
        import sqlite3

        with self._lock:
            db, self._db = self._db, None
            if db is not None:
                with suppress(sqlite3.Error):
                    held = self._unwritten.waiting
                    if self._offset is not None:
                        held = held.told(self._told(self._next_id, self._offset))
                    self._unwritten.flush(db, held, self._cursors)
                with suppress(sqlite3.Error):
                    db.close()
                self._unwritten.close()

    def _begin(self) -> None:
        import sqlite3

        self._db, self._pages = open_store(self._folder, self._limit)
        self._unwritten = Unwritten(self._folder, self._limit, self._together > 0)
        try:
            room.shrink(self._db, self._pages)
            self._dropped["broken"] += self._unwritten.take_up(self._db)
            last = "SELECT max(id) FROM slots UNION ALL SELECT max(tried) FROM destinations"
            self._next_id = max(self._next_id, *((row[0] or 0) + 1 for row in self._db.execute(last)))
            self._next_event = (self._db.execute("SELECT max(id) FROM events").fetchone()[0] or 0) + 1
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not broken(error):
                self._db.close()
                self._unwritten.close()
                raise EdgeKitError(f"telemetry cannot be kept in {self._folder}: {error}") from error
            self._renew(self._db, error)

    def _renew(self, db: "Connection", error: Exception) -> None:
        """The file turned out to be broken: begin a new one. Its numbers go on, so that no cursor is ahead of them."""
        import sqlite3

        with suppress(sqlite3.Error):
            db.close()
        self._db, self._open, self._offset = None, None, None
        self._unwritten.forget_slots()
        self._cursors.clear()
        self._dropped["broken"] += 1
        try:
            put_aside(self._folder / NAME, self._limit, str(error))
            self._db, self._pages = open_store(self._folder, self._limit)
        except (EdgeKitError, OSError) as worse:
            log.error("no more telemetry is kept: %s", worse)

    def _put(self, db: "Connection", families: Sequence[Family], when_ms: int, moment: int) -> None:
        index, unwritten = moment // self._interval_ms, self._unwritten
        if self._open is None or self._open.index != index:
            if len(unwritten.waiting.slots) >= self._together:
                unwritten.flush(db, unwritten.waiting, self._cursors)
            self._trim(db, when_ms)
        offset = self._placed(db, when_ms, when_ms - moment)
        place = rows.Place(self._next_id, index, when_ms - offset, self._limit // 16)
        written = rows.write(db, self._open, place, families)
        if self._open is not None and self._open.series != written.series:
            unwritten.flush(db, unwritten.waiting, self._cursors)
        happened = self._told(written.id, offset if self._offset is None else self._offset)
        held = unwritten.waiting.slotted(written.row).told(happened)
        if not unwritten.keep(held, self._cursors):
            unwritten.flush(db, held, self._cursors)
        self._open, self._offset, self._next_id = written, offset, written.id + 1
        self._next_event += len(happened)
        for _ in happened:
            self._events.popleft()

    def _told(self, slot: int, offset: int) -> tuple[waiting.Told, ...]:
        """The events that happened, beside this slot."""
        return events.told(tuple(self._events), self._next_event, slot, offset)

    def _trim(self, db: "Connection", when_ms: int) -> None:
        for reason, slots in room.trim(db, self._pages, when_ms - self._age_ms, self._needed()).items():
            self._dropped[reason] += slots
        self._bytes = room.on_disk(db, self._folder)

    def _placed(self, db: "Connection", when_ms: int, offset: int) -> int:
        """What to add to moments now; where the clock was set, slots that were not sent are moved with it."""
        if self._offset is not None and abs(offset - self._offset) < spans.JUMP_MS:
            return self._offset
        if self._offset is not None:
            log.warning("the clock was set by %+d s: unsent telemetry moves with it", (offset - self._offset) / 1000)
        (frozen,) = db.execute("SELECT ifnull(max(tried), 0) FROM destinations").fetchone()
        spans.move(db, self._boot.name, offset, max(frozen, *(tried for _, tried in self._cursors.values()), 0))
        if self._offset is None:
            spans.begin(db, spans.Span(self._next_id, offset, when_ms), self._boot.name)
        return offset

    def _made_room(self, db: "Connection", error: Exception) -> bool:
        """Whether to try again: the file is at its limit, and its oldest slots made room."""
        import sqlite3

        if code(error) != FULL_CODE or room.free_pages(db) >= room.SPARE:
            return False  # then it is the disk that is full, and what we drop makes no room there
        try:
            lost = room.drop(db, self._needed())
        except sqlite3.Error:
            return False
        self._dropped["full"] += lost or 0
        return lost is not None

    def _failed(self, error: Exception, index: int) -> None:
        """Nothing was written; told once, counted once a slot."""
        if self._missed is None:
            log.error("telemetry cannot be written: %s", error)
        if self._missed != index:
            self._dropped["disk"] += 1
        self._missed = index
        if self._db is not None and broken(error):
            self._renew(self._db, error)

    def _try(self, act: "Callable[[Connection], T]", otherwise: T) -> T:
        """What `act` gives; where the disk does not play along, what to take instead."""
        import sqlite3

        with self._lock:
            if self._db is None:
                return otherwise
            try:
                return act(self._db)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if broken(error):
                    self._renew(self._db, error)
                return otherwise

    def _read(self, db: "Connection", after: int, limit: int) -> tuple[list[Slot], int]:
        before = self._next_id if self._open is None else self._open.id
        slots, bad, last = rows.read(db, rows.Part(after, before, limit), self._unwritten.waiting.slots)
        self._dropped["broken"] += bad
        return slots, last

    def _cursor(self, db: "Connection", name: str) -> tuple[int, int]:
        if name not in self._cursors:
            row = db.execute("SELECT cursor, tried FROM destinations WHERE name = ?", (name,)).fetchone()
            self._cursors[name] = row or (0, 0)
        return self._cursors[name]

    def _move_cursor(self, db: "Connection", name: str, cursor: int, tried: int) -> None:
        before = self._cursor(db, name)
        self._cursors[name] = max(before[0], cursor), max(before[1], tried)  # it holds even where the disk is full
        if self._cursors[name] != before and not self._unwritten.keep(self._unwritten.waiting, self._cursors):
            db.execute(CURSOR, (name, *self._cursors[name]))

    def _needed(self) -> rows.Needed:
        """What no drop may take, and what it is to be counted for."""
        unsent_from = min((cursor for cursor, _ in self._cursors.values()), default=self._next_id) + 1
        return rows.Needed(unsent_from, 0 if self._open is None else self._open.series)

"""What waits for the file of telemetry, and how it gets there: on the slate each second, in the file once a minute.

Refuses nothing; where there is no slate, or it does not take what waits, it says so. The ring holds the lock."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.telemetry import events, room, rows, waiting
from edgekit_runtime.telemetry.slate import Slate

if TYPE_CHECKING:
    from sqlite3 import Connection

log = logging.getLogger("edgekit_runtime.telemetry")

CURSOR = (
    "INSERT INTO destinations(name, cursor, tried) VALUES(?1, ?2, ?3) ON CONFLICT(name) DO UPDATE"
    " SET cursor = max(cursor, ?2), tried = max(tried, ?3) WHERE cursor < ?2 OR tried < ?3"
)


class Unwritten:
    """What waits beside the file in this folder, of at most so many bytes; with a slate, where one can be had."""

    def __init__(self, folder: Path, limit_bytes: int, slated: bool) -> None:
        self.waiting = waiting.Waiting()
        self._limit = limit_bytes
        self._slate: Slate | None = None
        try:
            self._slate = Slate(folder) if slated else None
        except OSError as error:
            log.warning("telemetry goes to the disk each second, which wears it: %s", error)

    def take_up(self, db: "Connection") -> int:
        """Put into the file what a kill left on the slate; how much of it was of no use."""
        if self._slate is None:
            db.execute("PRAGMA synchronous = NORMAL").fetchall()  # each second is too often to wait for the disk
            return 0
        if not self._slate.found:
            return 0
        try:
            left, cursors = waiting.unpack(self._slate.found)
        except ValueError as error:
            log.warning("the last minute of telemetry does not read: %s", error)
            return 1
        slots = tuple(rows.fit(db, left.slots))
        if slots or left.events or cursors:
            self.flush(db, replace(left, slots=slots), cursors)
        return len(left.slots) - len(slots)

    def keep(self, held: waiting.Waiting, cursors: Mapping[str, waiting.Cursor]) -> bool:
        """Let this wait; False where a kill would take it: it has to be flushed."""
        if self._slate is None or not self._slate.keep(waiting.pack(held, cursors)):
            return False
        self.waiting = held
        return True

    def flush(self, db: "Connection", held: waiting.Waiting, cursors: Mapping[str, waiting.Cursor]) -> None:
        """Write all of it to the file: then nothing waits."""
        db.execute("BEGIN IMMEDIATE")
        try:
            rows.keep(db, held.slots)
            events.keep(db, held.events, self._limit)
            db.executemany(CURSOR, [(name, *one) for name, one in cursors.items()])
            db.execute("COMMIT")
        except BaseException:
            room.roll_back(db)
            raise
        self.waiting = waiting.Waiting()
        self.keep(self.waiting, cursors)

    def forget_slots(self) -> None:
        """Slots without the file of their chunk are of no use."""
        self.waiting = replace(self.waiting, slots=())

    def close(self) -> None:
        """Let go of the slate."""
        with suppress(ValueError):
            if self._slate is not None:
                self._slate.close()
        self._slate = None

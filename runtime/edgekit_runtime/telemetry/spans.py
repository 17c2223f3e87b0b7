"""When slots were: runs of slots for which the wall clock stood equally far from the machine's own clock.

Refuses to move a time once it may have been sent: the receiver would take the slot for another one.

A device without a clock of its own boots in the past and learns the time later, so a slot keeps its time since boot
(`moment`) and a span says what to add. When the clock jumps, one row moves a week of slots."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite3 import Connection

SCHEMA = "CREATE TABLE spans(first INTEGER PRIMARY KEY, boot TEXT NOT NULL, offset INTEGER NOT NULL, start INTEGER)"
JUMP_MS = 1000
"""A clock that is off by less was not set: we looked at it a little late."""


@dataclass(frozen=True, slots=True)
class Span:
    """From slot `first` on: what to add to a moment, and when the process began."""

    first: int
    offset: int
    start_ms: int


def begin(db: "Connection", span: Span, boot: str) -> None:
    """A process begins to write at this slot."""
    row = (span.first, boot, span.offset, span.start_ms)
    db.execute("INSERT OR REPLACE INTO spans(first, boot, offset, start) VALUES(?, ?, ?, ?)", row)


def move(db: "Connection", boot: str, offset: int, frozen: int) -> None:
    """The clock was set: move the slots of this boot, those up to `frozen` excepted."""
    whole = "SELECT boot, offset, start FROM spans WHERE first <= ? ORDER BY first DESC LIMIT 1"
    across = db.execute(whole, (frozen,)).fetchone()
    if across is not None and across[0] == boot and abs(across[1] - offset) >= JUMP_MS:
        db.execute("INSERT OR IGNORE INTO spans VALUES(?, ?, ?, ?)", (frozen + 1, *across))
    change = "UPDATE spans SET start = start + ?1 - offset, offset = ?1 WHERE boot = ?2 AND first > ?3"
    db.execute(f"{change} AND abs(offset - ?1) >= {JUMP_MS}", (offset, boot, frozen))


def forget(db: "Connection", oldest: int) -> None:
    """Drop the spans that end before the slot `oldest`."""
    db.execute("DELETE FROM spans WHERE first < (SELECT max(first) FROM spans WHERE first <= ?)", (oldest,))


def spans(db: "Connection") -> list[Span]:
    """All of them in order."""
    return [Span(*row) for row in db.execute("SELECT first, offset, start FROM spans ORDER BY first")]


def span_of(known: list[Span], slot: int) -> Span:
    """The one that the slot lies in."""
    at = bisect_right(known, slot, key=lambda span: span.first) - 1
    return known[at] if at >= 0 else Span(0, 0, 0)

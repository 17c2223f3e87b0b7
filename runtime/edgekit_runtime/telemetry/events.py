"""What happened, in the file of telemetry: a model was loaded, swapped or failed, an alarm; the last ones stay.

Refuses nothing; facts that are too long are cut. Transactions and errors are the ring's."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgekit_runtime.telemetry.spans import span_of, spans
from edgekit_runtime.telemetry.waiting import Told

if TYPE_CHECKING:
    from sqlite3 import Connection

KEEP = "INSERT OR IGNORE INTO events(id, slot, moment, kind, facts) VALUES(?, ?, ?, ?, ?)"
FACTS_BYTES = 2048
MOST = 2000
Event = tuple[int, str, str]
"""When, what, and the facts as JSON."""


def event(when_ms: int, kind: str, facts: Mapping[str, Any]) -> Event:
    """It, ready to be written."""
    text = json.dumps(facts, default=str, separators=(",", ":"))
    if len(text) > FACTS_BYTES:
        text = json.dumps({"cut": text[: FACTS_BYTES // 2]}, separators=(",", ":"))
    return when_ms, kind, text


def keep(db: "Connection", told: Sequence[Told], limit_bytes: int) -> None:
    """Put them into the file, those that are not there yet. They may take an eighth of it."""
    if told:
        db.executemany(KEEP, told)
        db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (most(limit_bytes),))


def told(waiting: Iterable[Event], first: int, slot: int, offset: int) -> tuple[Told, ...]:
    """Events beside a slot, numbered from `first` on."""
    return tuple((first + at, slot, when - offset, kind, facts) for at, (when, kind, facts) in enumerate(waiting))


def most(limit_bytes: int) -> int:
    """How many there may be in a file of so many bytes."""
    return min(MOST, limit_bytes // 8 // FACTS_BYTES)


def read(db: "Connection", waiting: Sequence[Told], limit: int) -> list[tuple[int, str, dict[str, Any]]]:
    """The last ones of the file and those that wait for it: (when_ms, kind, facts), the latest first."""
    times = spans(db)
    query = "SELECT id, slot, moment, kind, facts FROM events ORDER BY id DESC LIMIT ?"
    found = []
    for _, slot, moment, kind, facts in [*reversed(waiting), *db.execute(query, (limit,)).fetchall()][:limit]:
        with suppress(ValueError, TypeError, RecursionError):  # one that does not read is left out
            found.append((moment + span_of(times, slot).offset, str(kind), dict(json.loads(facts))))
    return found

"""What happened, in the file of telemetry: a model was loaded, swapped or failed, an alarm; the last ones stay.

Refuses nothing; facts that are too long are cut. Transactions and errors are the ring's."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgekit_runtime.telemetry.spans import span_of, spans

if TYPE_CHECKING:
    from sqlite3 import Connection

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


def write(db: "Connection", waiting: Iterable[Event], offset: int, slot: int, limit_bytes: int) -> int:
    """Write them; how many. They may take an eighth of the file."""
    made = [(slot, when_ms - offset, kind, facts) for when_ms, kind, facts in waiting]
    if made:
        db.executemany("INSERT INTO events(slot, moment, kind, facts) VALUES(?, ?, ?, ?)", made)
        most = min(MOST, limit_bytes // 8 // FACTS_BYTES)
        db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (most,))
    return len(made)


def read(db: "Connection", limit: int) -> list[tuple[int, str, dict[str, Any]]]:
    """The last ones: (when_ms, kind, facts), the latest first."""
    times = spans(db)
    query = "SELECT slot, moment, kind, facts FROM events ORDER BY id DESC LIMIT ?"
    found = []
    for slot, moment, kind, facts in db.execute(query, (limit,)).fetchall():
        with suppress(ValueError, TypeError, RecursionError):  # one that does not read is left out
            found.append((moment + span_of(times, slot).offset, str(kind), dict(json.loads(facts))))
    return found

"""Slots as rows of the file: written, read back whole, and dropped from the oldest on.

Refuses nothing; a slot that does not read is left out and counted. Transactions and errors are the ring's.

Slots come in chunks. A chunk's head holds its numbers whole, the others what differs from the head, so a chunk is
dropped as one: what is left never needs what is gone. A chunk ends when the series change or it is large enough."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from edgekit_runtime.families import Family
from edgekit_runtime.telemetry.packing import pack, unpack
from edgekit_runtime.telemetry.series import Key, Series, Slot, Values, named, read_named, taken_apart
from edgekit_runtime.telemetry.spans import forget, span_of, spans

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

CHUNK = 60
"""Slots from one head to the next."""
LATEST_MS = 2**44
"""The year 2527: in nanoseconds, later times do not fit into OpenTelemetry's messages."""
MOST_NAMED = 2**23
"""Bytes of all names of the series of one slot."""


@dataclass(frozen=True, slots=True)
class Written:
    """The slot that is being written: it is written over until its time is up, then the next one begins.

    `index` is the time that it stands for; `base` are the numbers of its chunk's head, None for the head itself.
    `size` and `count` are of its chunk.
    """

    id: int
    index: int
    head: int
    series: int
    keys: tuple[Key, ...]
    values: Values
    base: Values | None
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slot goes: the number that a new one gets, its time, and how large a chunk may become."""

    next_id: int
    index: int
    moment: int
    chunk_bytes: int


def write(db: "Connection", last: Written | None, place: Place, families: "Sequence[Family]") -> Written:
    """Write the open slot over, or begin the next one."""
    keys, values = taken_apart(families)
    same = last is not None and last.keys == keys
    if last is not None and same and last.index == place.index:
        data = pack(values, last.base)
        db.execute("UPDATE slots SET moment = ?, data = ? WHERE id = ?", (place.moment, data, last.id))
        size = last.size if last.base is not None else len(data)
        return Written(last.id, last.index, last.head, last.series, keys, values, last.base, size, last.count)
    if last is not None and same and last.count < CHUNK and last.size < place.chunk_bytes:
        head, series, count = last.head, last.series, last.count + 1
        base, size = last.values if last.base is None else last.base, last.size
    else:
        series = last.series if last is not None and same else _series_row(db, named(keys, families))
        head, count, base, size = place.next_id, 1, None, 0
    data = pack(values, base)
    row = (place.next_id, head, series, place.moment, data)
    db.execute("INSERT INTO slots(id, head, series, moment, data) VALUES(?, ?, ?, ?, ?)", row)
    return Written(place.next_id, place.index, head, series, keys, values, base, size + len(data), count)


def _series_row(db: "Connection", raw: bytes) -> int:
    import zlib

    digest = blake2b(raw, digest_size=16).digest()
    data = zlib.compress(raw)
    found = db.execute("SELECT id, data FROM series WHERE digest = ?", (digest,)).fetchone()
    if found is None:
        return db.execute("INSERT INTO series(digest, data) VALUES(?, ?)", (digest, data)).lastrowid or 0
    if found[1] != data:  # it was damaged, and all that is written from now on would not read
        db.execute("UPDATE series SET data = ? WHERE id = ?", (data, found[0]))
    return int(found[0])


def read(db: "Connection", after: int, before: int, limit: int) -> tuple[list[Slot], int, int]:
    """Slots between two cursors, both excluded, oldest first; how many did not read; the last one looked at."""
    query = "SELECT id, head, series, moment, data FROM slots WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
    rows = db.execute(query, (after, before, limit)).fetchall()
    bases, times, bad = {}, spans(db), 0
    known: dict[int, tuple[Series, ...] | None] = {}
    slots: list[Slot] = []
    for number, head, series, moment, data in rows:
        try:
            if series not in known:
                known[series] = None  # it stays so where it does not read: it is not tried for each slot again
                known[series] = _series(db, series)
            if (of := known[series]) is None:
                raise ValueError("its series do not read")
            count = len(of)
            if head != number and head not in bases:
                bases[head] = _numbers(db, head, count)
            values = unpack(data, None if head == number else bases[head], count)
            span = span_of(times, number)
            when_ms = moment + span.offset
            if not abs(when_ms) < LATEST_MS:
                raise ValueError("a time beyond all clocks")
        except (ValueError, TypeError, LookupError, RecursionError):
            bad += 1
            continue
        if head == number:
            bases[head] = values
        slots.append(Slot(number, when_ms, span.start_ms, of, values))
    return slots, bad, rows[-1][0] if rows else after


def _series(db: "Connection", number: int) -> tuple[Series, ...]:
    import zlib

    row = db.execute("SELECT data FROM series WHERE id = ?", (number,)).fetchone()
    try:
        return read_named(zlib.decompressobj().decompress(row[0], MOST_NAMED))
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _numbers(db: "Connection", head: int, count: int) -> Values:
    row = db.execute("SELECT data FROM slots WHERE id = ?", (head,)).fetchone()
    return unpack(row[0], None, count)


def drop_oldest(db: "Connection", unsent_from: int) -> int | None:
    """Drop the oldest chunk; how many of its slots had a number from `unsent_from` on.

    None where there is but one: the one that is being written.
    """
    following = _second_head(db)
    if following is None:
        return None
    lost = db.execute("SELECT count(*) FROM slots WHERE id < ? AND id >= ?", (following, unsent_from)).fetchone()[0]
    used = db.execute("SELECT DISTINCT series FROM slots WHERE id < ?", (following,)).fetchall()
    db.execute("DELETE FROM slots WHERE id < ?", (following,))
    for (series,) in used:
        unused = "NOT EXISTS(SELECT 1 FROM slots WHERE slots.head = slots.id AND slots.series = ?1)"
        db.execute(f"DELETE FROM series WHERE id = ?1 AND {unused}", (series,))
    forget(db, following)
    return int(lost)


def older_than(db: "Connection", when_ms: int) -> bool:
    """Whether the whole oldest chunk is from before that time."""
    following = _second_head(db)
    if following is None:
        return False
    (moment,) = db.execute("SELECT moment FROM slots WHERE id = ?", (following,)).fetchone()
    if not isinstance(moment, int):
        return False  # it goes when room is needed
    return moment + span_of(spans(db), following).offset < when_ms


def _second_head(db: "Connection") -> int | None:
    query = "SELECT id FROM slots WHERE id > (SELECT min(id) FROM slots) AND id = head ORDER BY id LIMIT 1"
    row = db.execute(query).fetchone()
    return None if row is None else int(row[0])

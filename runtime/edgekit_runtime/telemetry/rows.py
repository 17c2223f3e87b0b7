"""Slots as rows of the file: written, read back whole, and dropped from the oldest on.

Refuses nothing; a slot that does not read is left out and counted. Transactions and errors are the ring's.

Slots come in chunks. A chunk's head holds its numbers whole, the others what differs from the head, so a chunk is
dropped as one: what is left never needs what is gone. A chunk ends when the series change or it is large enough."""

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from edgekit_runtime.families import Family
from edgekit_runtime.telemetry.packing import pack, unpack
from edgekit_runtime.telemetry.series import Key, Series, Slot, Values, named, read_named, taken_apart
from edgekit_runtime.telemetry.spans import forget, span_of, spans
from edgekit_runtime.telemetry.waiting import Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

CHUNK = 60
"""Slots from one head to the next."""
LATEST_MS = 2**44
"""The year 2527: in nanoseconds, later times do not fit into OpenTelemetry's messages."""
KEEP = (
    "INSERT INTO slots(id, head, series, moment, data) VALUES(?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE"
    " SET moment = excluded.moment, data = excluded.data"
    " WHERE excluded.moment >= moment AND excluded.head = head AND excluded.series = series"
)
MOST_NAMED = 2**23
"""Bytes of all names of the series of one slot."""


@dataclass(frozen=True, slots=True)
class Written:
    """The slot that is being written: it is written over until its time is up, then the next one begins.

    `index` is the time that it stands for; `base` are the numbers of its chunk's head, None for the head itself.
    `size` and `count` are of its chunk, `row` is the slot as it is kept.
    """

    id: int
    index: int
    row: Row
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
    """The open slot written over, or the next one begun; its series are in the file, its row is not."""
    keys, values = taken_apart(families)
    same = last is not None and last.keys == keys
    if last is not None and same and last.index == place.index:
        data = pack(values, last.base)
        size = last.size if last.base is not None else len(data)
        row = (last.id, last.head, last.series, place.moment, data)
        return replace(last, row=row, values=values, size=size)
    if last is not None and same and last.count < CHUNK and last.size < place.chunk_bytes:
        head, series, count = last.head, last.series, last.count + 1
        base, size = last.values if last.base is None else last.base, last.size
    else:
        series = last.series if last is not None and same else _series_row(db, named(keys, families))
        head, count, base, size = place.next_id, 1, None, 0
    data = pack(values, base)
    row = (place.next_id, head, series, place.moment, data)
    return Written(place.next_id, place.index, row, head, series, keys, values, base, size + len(data), count)


def keep(db: "Connection", rows: "Sequence[Row]") -> None:
    """Put rows into the file; what is there already is replaced by what is not older."""
    db.executemany(KEEP, rows)


def fit(db: "Connection", rows: "Sequence[Row]") -> "list[Row]":
    """Those of which the file, or the rows themselves, have the head and the series."""
    heads = {row[0] for row in rows if row[0] == row[1]}
    series, head = "SELECT 1 FROM series WHERE id = ?", "SELECT 1 FROM slots WHERE id = ?1 AND head = ?1"
    return [
        row
        for row in rows
        if db.execute(series, (row[2],)).fetchone() and (row[1] in heads or db.execute(head, (row[1],)).fetchone())
    ]


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


@dataclass(frozen=True, slots=True)
class Part:
    """Which slots to read: between two numbers, both excluded, the oldest first, at most `limit`."""

    after: int
    before: int
    limit: int


def read(db: "Connection", part: Part, waiting: "Sequence[Row]") -> tuple[list[Slot], int, int]:
    """Slots of the file and those that wait for it; how many did not read; the last one looked at."""
    query = "SELECT id, head, series, moment, data FROM slots WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
    first = min(part.before, waiting[0][0] if waiting else part.before)
    rows = db.execute(query, (part.after, first, part.limit)).fetchall()
    rows = [*rows, *(row for row in waiting if part.after < row[0] < part.before)][: part.limit]
    heads = {row[0]: row[4] for row in waiting if row[0] == row[1]}
    bases: dict[int, Values] = {}
    times, bad = spans(db), 0
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
                bases[head] = unpack(heads[head] if head in heads else _packed(db, head), None, count)
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
    return slots, bad, rows[-1][0] if rows else part.after


def _series(db: "Connection", number: int) -> tuple[Series, ...]:
    import zlib

    row = db.execute("SELECT data FROM series WHERE id = ?", (number,)).fetchone()
    try:
        return read_named(zlib.decompressobj().decompress(row[0], MOST_NAMED))
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _packed(db: "Connection", head: int) -> bytes:
    found: bytes = db.execute("SELECT data FROM slots WHERE id = ?", (head,)).fetchone()[0]
    return found


@dataclass(frozen=True, slots=True)
class Needed:
    """The first slot that some destination does not have, and the series of slots that wait for the file."""

    unsent_from: int
    series: int = 0


def drop_oldest(db: "Connection", needed: Needed) -> int | None:
    """Drop the oldest chunk; how many of its slots some destination does not have.

    None where there is but one: the one that is being written.
    """
    following = _second_head(db)
    if following is None:
        return None
    unsent = "SELECT count(*) FROM slots WHERE id < ? AND id >= ?"
    (lost,) = db.execute(unsent, (following, needed.unsent_from)).fetchone()
    used = db.execute("SELECT DISTINCT series FROM slots WHERE id < ?", (following,)).fetchall()
    db.execute("DELETE FROM slots WHERE id < ?", (following,))
    for (series,) in used:
        unused = "NOT EXISTS(SELECT 1 FROM slots WHERE slots.head = slots.id AND slots.series = ?1)"
        if series != needed.series:
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

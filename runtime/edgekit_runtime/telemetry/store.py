"""The file that telemetry is kept in: SQLite with a log ahead of it, so that no kill and no power cut leaves half.

Refuses a folder that cannot be written and a file that another process writes; a broken file is put aside.

What is committed survives kill -9 and, as the ring sets it, a power cut: it commits about once a minute, to spare SD
cards, and keeps what is younger on its slate."""

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.telemetry import slate, spans

if TYPE_CHECKING:
    from sqlite3 import Connection, Error

log = logging.getLogger("edgekit_runtime.telemetry")

NAME = "telemetry.db"
PAGE = 4096
VERSION = 1
SCHEMA = (
    "CREATE TABLE series(id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, data BLOB NOT NULL)",
    "CREATE TABLE slots(id INTEGER PRIMARY KEY, head INTEGER NOT NULL, series INTEGER NOT NULL,"
    " moment INTEGER NOT NULL, data BLOB NOT NULL)",
    spans.SCHEMA,
    "CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, slot INTEGER NOT NULL, moment INTEGER NOT NULL,"
    " kind TEXT NOT NULL, facts TEXT NOT NULL)",
    "CREATE TABLE destinations(name TEXT PRIMARY KEY, cursor INTEGER NOT NULL, tried INTEGER NOT NULL)",
)
LOG_PAGES = 48
"""So many pages are in the log before they go to the file."""
LOG_BYTES = 2 * LOG_PAGES * (PAGE + 24)
"""What the log may take: as much again for a last large change. It is cut back to this where it took more."""
ODD = (
    f"SELECT 1 WHERE (SELECT min(id) FROM slots) < 1 OR (SELECT max(id) FROM slots) > {2**60}",
    f"SELECT 1 FROM spans WHERE typeof(offset) != 'integer' OR abs(offset / 2) > {2**60}"
    " OR typeof(start) != 'integer' LIMIT 1",
    "SELECT 1 FROM destinations WHERE typeof(name) != 'text' OR typeof(cursor) != 'integer'"
    f" OR typeof(tried) != 'integer' OR max(cursor, tried) > {2**60} LIMIT 1",
)
"""What SQLite would take in a column of ours, and whoever reads it would not."""
BROKEN_CODES = (11, 26)
"""SQLITE_CORRUPT and SQLITE_NOTADB."""
FULL_CODE, BUSY_CODE = 13, 5
HINT = "name a folder that this user may write: --state DIR"


def open_store(folder: Path, limit: int) -> tuple["Connection", int]:
    """The file in this folder, made where it is missing, put aside and begun anew where it is broken; and how many
    pages it may have, so that file, log, slate and what was put aside stay within `limit` bytes.

    Raises:
        EdgeKitError: the folder cannot be written, or another process writes it.
    """
    import sqlite3

    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            db = _opened(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not broken(error):
                raise
            put_aside(path, limit, str(error))
            db = _opened(path)
        aside = sum(one.stat().st_size for one in folder.glob(f"{NAME}.broken-*"))
        pages = (limit - LOG_BYTES - slate.SIZE - aside) // PAGE
        db.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        return db, pages
    except OSError as error:
        raise EdgeKitError(f"telemetry cannot be kept in {folder}: {error.strerror}", hint=HINT) from error
    except sqlite3.Error as error:
        if code(error) == BUSY_CODE:
            another = "end the other one, or give this one a folder of its own: --state DIR"
            raise EdgeKitError(f"another server keeps its telemetry in {folder}", hint=another) from error
        raise EdgeKitError(f"telemetry cannot be kept in {folder}: {error}", hint=HINT) from error


def broken(error: Exception) -> bool:
    """Whether the file is no good, and not merely its disk. SQLite quotes what it does not know in its errors, and
    Python may not be able to read that."""
    return isinstance(error, UnicodeDecodeError) or code(error) in BROKEN_CODES


def code(error: Exception) -> int:
    """SQLite's primary result code."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def put_aside(path: Path, limit: int, why: str) -> None:
    """Keep the beginning of a broken file for who wants to look, one at most, and clear its place."""
    log.error("the telemetry kept in %s is broken (%s): it is put aside, and a new file begun", path.name, why)
    before = sorted(path.parent.glob(f"{path.name}.broken-*"))
    last = max((int(one.name.rpartition("-")[2]) for one in before if one.name.rpartition("-")[2].isdigit()), default=0)
    for one in (*before, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        one.unlink(missing_ok=True)  # a log that is left would be played into the new file
    kept = path.with_name(f"{path.name}.broken-{last + 1}")
    with suppress(FileNotFoundError):
        path.rename(kept)
        if kept.stat().st_size > limit // 4:
            os.truncate(kept, limit // 4)


def _opened(path: Path) -> "Connection":
    import sqlite3

    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise EdgeKitError(f"{path} is not a file", hint=HINT)
        os.fchmod(file, 0o600)
    finally:
        os.close(file)
    db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
    db.text_factory = _text
    try:
        _set_up(db)
    except BaseException:
        db.close()
        raise
    return db


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _set_up(db: "Connection") -> None:
    settings: tuple[tuple[str, Any], ...] = (
        ("locking_mode", "EXCLUSIVE"),  # one server a file; it also saves the file of shared memory
        ("page_size", PAGE), ("auto_vacuum", "INCREMENTAL"), ("journal_mode", "WAL"), ("synchronous", "FULL"),
        ("wal_autocheckpoint", LOG_PAGES), ("journal_size_limit", LOG_BYTES), ("cache_size", -512),
        ("temp_store", "MEMORY"), ("trusted_schema", "OFF"),
    )  # fmt: skip
    for name, value in settings:
        db.execute(f"PRAGMA {name} = {value}").fetchall()
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute("BEGIN IMMEDIATE")
    if version == 0 and not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        for statement in SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")
    _look_over(db)


def _look_over(db: "Connection") -> None:
    """Touch every table at both ends.

    Raises:
        sqlite3.DatabaseError: that is not our file, or it is broken there.
    """
    import sqlite3

    try:
        for table, key in (("slots", "id"), ("series", "id"), ("events", "id"), ("spans", "first")):
            for order in ("ASC", "DESC"):
                db.execute(f"SELECT * FROM {table} ORDER BY {key} {order} LIMIT 1").fetchall()
        db.execute("SELECT name, cursor, tried FROM destinations").fetchall()
        made = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        if made != {*SCHEMA, "CREATE TABLE sqlite_sequence(name,seq)"}:  # a trigger would run with what we write
            raise _foreign("its tables are not ours")
        odd = next((query for query in ODD if db.execute(query).fetchone() is not None), None)
    except sqlite3.OperationalError as error:
        if code(error) != 1:  # SQLITE_ERROR: no such table, no such column
            raise
        raise _foreign(str(error)) from error
    if odd is not None:
        raise _foreign("it holds what is never written there")


def _foreign(why: str) -> "Error":
    import sqlite3

    wrong = sqlite3.DatabaseError(f"not a file of this version: {why}")
    wrong.sqlite_errorcode = BROKEN_CODES[0]
    return wrong

"""Room in the file of telemetry: kept for the next slots by dropping the oldest; a file too long is made shorter.

Refuses nothing; where nothing can be dropped it says so. Each drop is a transaction of its own."""

from contextlib import suppress
from typing import TYPE_CHECKING

from edgekit_runtime.telemetry import slate
from edgekit_runtime.telemetry.rows import Needed, drop_oldest, older_than
from edgekit_runtime.telemetry.store import LOG_PAGES, NAME, PAGE

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection

SPARE = 32
"""Pages that are kept free for the next slots."""
DROPS = 64
"""Chunks dropped at once, at most: what is left over goes with the next slot."""


def free_pages(db: "Connection") -> int:
    """Pages within the file that hold nothing."""
    return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def used_pages(db: "Connection") -> int:
    """Pages that hold something."""
    return int(db.execute("PRAGMA page_count").fetchone()[0]) - free_pages(db)


def trim(db: "Connection", pages: int, before_ms: int, needed: Needed) -> dict[str, int]:
    """Drop what is too old or too much; by reason, how many slots went that some destination does not have."""
    lost = {"full": 0, "old": 0}
    for _ in range(DROPS):
        full = used_pages(db) > pages - max(SPARE, pages // 32)
        if not full and not older_than(db, before_ms):
            break
        dropped = drop(db, needed)
        if dropped is None:
            break
        lost["full" if full else "old"] += dropped
    return lost


def drop(db: "Connection", needed: Needed) -> int | None:
    """Drop the oldest chunk; how many of its slots were not sent. None: there is only the one being written."""
    db.execute("BEGIN IMMEDIATE")
    try:
        unsent = drop_oldest(db, needed)
        db.execute("COMMIT")
    except BaseException:
        roll_back(db)
        raise
    return unsent


def shrink(db: "Connection", pages: int) -> None:
    """Make a file of more than so many pages shorter: the limit was lowered."""
    while db.execute("PRAGMA page_count").fetchone()[0] > pages:
        if used_pages(db) > pages - SPARE and drop(db, Needed(0)) is None:
            return
        db.execute(f"PRAGMA incremental_vacuum({LOG_PAGES})").fetchall()
    db.execute(f"PRAGMA max_page_count = {pages}").fetchall()


def roll_back(db: "Connection") -> None:
    """Forget what was not committed, where SQLite has not done so itself."""
    import sqlite3

    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


def on_disk(db: "Connection", folder: "Path") -> int:
    """Bytes of the file, its log, the slate and what was put aside."""
    rest = [folder / f"{NAME}-wal", folder / slate.NAME, *folder.glob(f"{NAME}.broken-*")]
    size = int(db.execute("PRAGMA page_count").fetchone()[0]) * PAGE
    for one in rest:
        with suppress(OSError):
            size += one.stat().st_size
    return size

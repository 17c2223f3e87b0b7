"""What happened to a model on this device, a line each: the newest quarter of a megabyte of it.

Refuses nothing when it is read: a line that a power cut tore, or a bad disk changed, is passed over."""

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.disk import Disk, replace
from edgekit_runtime.store.layout import Layout, is_count

NAME = "history.jsonl"
MAX_BYTES = 256 * 1024
MAX_WHY = 500
MAX_COUNT = 2**53
ROLLED_BACK = "rolled back"
OF_SHADOWS = ("shadowing", "promoted", "dropped")
"""What is said of a version in shadow: nothing of what is live."""

log = logging.getLogger("edgekit_runtime.store")


@dataclass(frozen=True)
class Event:
    """At `when` (Unix time), `what` was done to version `id` (for people: `version`), and `live` was served then.

    `what` is one of: activated, good, rolled back, kept, found, shadowing, promoted, dropped. `rollbacks` is how often
    the model had been gone back from by then, this time too: it holds though the lines before it are forgotten. `add`
    sets it.
    """

    when: float
    what: str
    id: str
    version: str
    live: str | None
    why: str = ""
    rollbacks: int = 0


def read(at: Layout, name: str) -> list[Event]:
    """All that is known, the oldest first."""
    return _events(_tail(at, at.slot(name) / NAME))


def _events(lines: bytes) -> list[Event]:
    return [event for line in lines.split(b"\n") if (event := _event(line)) is not None]


def rollbacks(events: Iterable[Event]) -> int:
    """How often the model was gone back from, all told; lines of before this was written down are counted."""
    count = 0
    for one in events:
        count = max(count + (one.what == ROLLED_BACK), one.rollbacks)
    return count


def add(at: Layout, name: str, event: Event) -> None:
    """Write it down. What cannot be written is logged: by then the thing was done, and stays so."""
    path = at.slot(name) / NAME
    try:
        before = _tail(at, path)
        known = {"why": event.why[:MAX_WHY], "rollbacks": rollbacks([*_events(before), event])}
        line = json.dumps(asdict(event) | known).encode() + b"\n"
        if len(before) + len(line) > MAX_BYTES:
            kept = before[-MAX_BYTES // 2 :].partition(b"\n")[2]
            replace(at.disk, path, kept + line)
        else:
            _append(at.disk, path, line if before.endswith(b"\n") or not before else b"\n" + line)
    except OSError as error:
        log.warning("%s: %s was not written to its history: %s", name, event.what, error)


def _append(disk: Disk, path: Path, line: bytes) -> None:
    sink = disk.append(path)
    try:
        sink.write(line)
        sink.sync()
    finally:
        sink.close()
    disk.sync_folder(path.parent)


def _tail(at: Layout, path: Path) -> bytes:
    if at.disk.kind(path) != "file":
        return b""
    with at.disk.open(path) as file:
        file.seek(max(0, at.disk.size(path) - 2 * MAX_BYTES))
        return file.read(2 * MAX_BYTES)


def _event(line: bytes) -> Event | None:
    try:
        event = Event(**json.loads(line))
        texts: tuple[Any, ...] = (event.what, event.id, event.version, event.why, event.live or "")
        sound = math.isfinite(event.when) and all(isinstance(text, str) for text in texts)
        sound = sound and is_count(event.rollbacks) and event.rollbacks < MAX_COUNT
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return event if sound else None

"""What is not in the file of telemetry yet: the last minute's slots, events and cursors, as bytes for the slate. Pure.

Refuses bytes that it did not write."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = tuple[int, int, int, int, bytes]
"""A slot: its number, that of its chunk's head, its series, its moment, its numbers packed."""
Told = tuple[int, int, int, str, str]
"""An event: its number, the slot that it is beside, its moment, its kind, its facts as JSON."""
Cursor = tuple[int, int]
"""How far a destination has got, and how far was tried."""
LARGEST = 2**60


@dataclass(frozen=True, slots=True)
class Waiting:
    """Slots and events in order; all slots are of the same series, the last one may still be written over."""

    slots: tuple[Row, ...] = ()
    events: tuple[Told, ...] = ()

    def slotted(self, row: Row) -> "Waiting":
        """With this slot, in the place of what it was before."""
        return Waiting((*(one for one in self.slots if one[0] != row[0]), row), self.events)

    def told(self, more: tuple[Told, ...]) -> "Waiting":
        """With these events behind the others."""
        return Waiting(self.slots, self.events + more)


def pack(waiting: Waiting, cursors: Mapping[str, Cursor]) -> bytes:
    """Both as bytes."""
    rows = [(*row[:4], len(row[4])) for row in waiting.slots]
    head = json.dumps([rows, waiting.events, dict(cursors)], separators=(",", ":")).encode()
    return b"".join((head, b"\n", *(row[4] for row in waiting.slots)))


def unpack(raw: bytes) -> tuple[Waiting, dict[str, Cursor]]:
    """What `pack` wrote.

    Raises:
        ValueError: something else wrote it.
    """
    head, _, rest = raw.partition(b"\n")
    try:
        listed, told, found = json.loads(head)
        slots, at = [], 0
        for number, of, series, moment, size in listed:
            slots.append((_whole(number), _whole(of), _whole(series), _moment(moment), rest[at : at + _whole(size)]))
            at += size
        if at != len(rest) or any(low[0] >= high[0] for low, high in pairwise(slots)):
            raise ValueError("its slots are cut, or out of order")
        events = [
            (_whole(number), _whole(slot), _moment(moment), _word(kind), _word(facts))
            for number, slot, moment, kind, facts in told
        ]
        cursors = {name: (_whole(cursor), _whole(tried)) for name, (cursor, tried) in found.items()}
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return Waiting(tuple(slots), tuple(events)), cursors


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"{value!r} is no number of ours")
    return value


def _moment(value: Any) -> int:
    if type(value) is not int or abs(value) >= LARGEST:
        raise ValueError(f"{value!r} is no time")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no word")
    value.encode()
    return value

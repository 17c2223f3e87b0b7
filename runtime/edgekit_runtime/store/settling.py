"""Finish what a power cut or a kill left half done in a slot, before anything else is done to it.

Refuses nothing; each step may be cut in its turn, and is then done again.

The one moment that counts in every change is the swap of the link `live`. What is written before it says what is about
to be; what is written after it follows from it, and is caught up on here."""

import logging

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.store import shadow_file
from edgekit_runtime.store.floor import Floor
from edgekit_runtime.store.history import OF_SHADOWS, Event, add, read
from edgekit_runtime.store.layout import Layout, whole
from edgekit_runtime.store.slot import PREVIOUS, OnTrial, Slot, end_trial, read_slot, write_ids, write_trial

log = logging.getLogger("edgekit_runtime.store")


def settled(at: Layout, floor: Floor, name: str) -> Slot | None:
    """The slot, with nothing half done. The caller holds the lock on slots."""
    slot = read_slot(at, name)
    if slot is None:
        return None
    if slot.left is not None and slot.on_trial is not None:
        _restore_floor(floor, name, slot.left)
        write_trial(at, name, slot.on_trial)
    elif slot.left is not None:  # a version that is not served: its link was never swapped, or it was rolled back
        if slot.previous is not None and slot.previous == slot.live:
            older = slot.left.older
            write_ids(at, name, PREVIOUS, (older,) if older is not None and older != slot.live else ())
        _restore_floor(floor, name, slot.left)
        end_trial(at, name)
    elif slot.on_trial is None and slot.previous is not None and slot.previous == slot.live:
        write_ids(at, name, PREVIOUS, ())
    if slot.shadow is None and shadow_file.is_there(at, name):
        end_stale_shadow(at, name)
    _catch_up(at, floor, name)
    return read_slot(at, name)


def end_stale_shadow(at: Layout, name: str) -> None:
    """What it was compared with is not live any more: the comparison is over."""
    slot, gone = read_slot(at, name), shadow_file.read_shadow(at, name)
    shadow_file.end_shadow(at, name)
    if gone is not None and slot is not None and gone.id != slot.live:
        add(at, name, event(at, name, "dropped", gone.id, "the version that it was compared with is not live any more"))


def proven(at: Layout, floor: Floor, name: str, id: str) -> None:
    """What is live is on trial no more: what follows from that. Once: an override may lower the floor again."""
    _raise_floor(at, floor, name)
    add(at, name, event(at, name, "good", id))


def _raise_floor(at: Layout, floor: Floor, name: str) -> None:
    """A version that is good shuts out what is older than the one before it. A floor that cannot be written is logged:
    it must not keep a bad version alive."""
    if (least := floor_of(at, name)) is not None:
        _rise(floor, name, least)


def _restore_floor(floor: Floor, name: str, left: OnTrial) -> None:
    """A leave lowered it for a version that is not served, or not any more."""
    if left.floor:
        _rise(floor, name, left.floor)


def _rise(floor: Floor, name: str, least: int) -> None:
    try:
        floor.rise(name, least)
    except EdgeKitError as error:
        log.warning("the rollback floor of %s does not rise: %s", name, error.what)


def floor_of(at: Layout, name: str) -> int | None:
    """What is installed speaks for this floor: neither the live version nor the one before it is shut out, nor what a
    trial may fall back to."""
    slot = read_slot(at, name)
    if slot is None:
        return None
    trial, ids = slot.on_trial, (slot.live, slot.previous)
    known = [
        whole(at, name, id) if id is not None else None for id in (ids if trial is None else (*ids, trial.previous))
    ]
    releases = [version.manifest.release for version in known if version is not None]
    return min(releases) if len(releases) == len(known) else None


def event(at: Layout, name: str, what: str, id: str, why: str = "") -> Event:
    """What was just done, with what is live since."""
    slot, version = read_slot(at, name), whole(at, name, id)
    label = version.manifest.version if version is not None else "?"
    return Event(at.clock(), what, id, label, slot.live if slot is not None else None, why)


def _catch_up(at: Layout, floor: Floor, name: str) -> None:
    """A cut came between a change and what follows from it: the floor, and its line in the history."""
    slot, events = read_slot(at, name), [one for one in read(at, name) if one.what not in OF_SHADOWS]
    if slot is None or slot.live is None:
        return
    last = events[-1] if events else None
    if last is None or last.live != slot.live:
        what = "found" if slot.on_trial is None else "activated"
        add(at, name, event(at, name, what, slot.live, "the power went, or the program was killed, right after it"))
    elif slot.on_trial is None and last.what in ("activated", "kept") and last.id == slot.live:
        proven(at, floor, name, slot.live)

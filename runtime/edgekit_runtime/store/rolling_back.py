"""Go back to the version before: when it is asked for, when a trial fails, and when a server starts in a bad one.

Refuses to go back to nothing: a version that is the only one stays."""

from contextlib import suppress
from dataclasses import replace

from edgekit_runtime.store import shadow_file
from edgekit_runtime.store.floor import Floor
from edgekit_runtime.store.history import Event, add
from edgekit_runtime.store.layout import Layout, Version, whole
from edgekit_runtime.store.settling import event, settled
from edgekit_runtime.store.slot import MAX_REFUSED, REFUSED, Slot, Trial, read_slot, serve, write_ids, write_trial

MAX_STARTS = 3
"""How often a server may start within one trial: more is a crash loop."""


def roll_back(at: Layout, floor: Floor, name: str, why: str, id: str | None) -> Version | None:
    """Serve the version before, and never again the one that is live now unless it is asked for."""
    slot = settled(at, floor, name)
    if slot is None or id not in (None, slot.live):
        return None
    version = _before(at, slot)
    if version is None:
        return None
    if slot.live is not None:
        refuse(at, slot, slot.live)
    serve(at, name, version.id)
    add(at, name, event(at, name, "rolled back", slot.live or version.id, why))
    settled(at, floor, name)
    return version


def _before(at: Layout, slot: Slot) -> Version | None:
    """What there is to go back to. A trial did not shut out the version before that yet."""
    trial = slot.on_trial
    for id in (slot.previous,) if trial is None else (trial.previous, trial.older):
        version = whole(at, slot.name, id) if id is not None and id != slot.live else None
        if version is not None:
            return version
    return None


def refuse(at: Layout, slot: Slot, id: str) -> None:
    """Never again, unless it is asked for."""
    if id in slot.refused:
        return
    try:
        write_ids(at, slot.name, REFUSED, (*slot.refused, id)[-MAX_REFUSED:])
    except OSError:
        return  # a full disk must not keep a bad version alive; that it is bad stands in the history, or is found again


def boot(at: Layout, floor: Floor, name: str, boot_id: str, now: float) -> Event | None:
    """A server starts in the machine's start `boot_id`: what was rolled back, if anything."""
    slot = settled(at, floor, name)
    if slot is None:
        return None
    why = _fault(at, slot, boot_id)
    if why is None and slot.on_trial is not None:
        try:
            _started(at, slot, slot.on_trial.trial, boot_id, now)
        except OSError as error:  # what crashes again and again would not be told from what starts once
            why = f"that a server starts with it cannot be counted: {error.strerror}"
    if why is None:
        return None
    bad = slot.live
    if roll_back(at, floor, name, why, None) is not None:
        return event(at, name, "rolled back", bad or "", why)
    if slot.on_trial is not None and slot.live is not None:
        # The only one there is: better a version that may be bad than none. Its trial goes on in this boot.
        add(at, name, event(at, name, "kept", slot.live, f"{why}; there is no other version"))
        with suppress(OSError):  # better served and not counted than not served
            _started(at, slot, replace(slot.on_trial.trial, boot_id=None), boot_id, now)
    return None


def settles_at_boot(at: Layout, name: str) -> bool:
    """Whether a start has anything to write here: most have not, and a disk may be read-only."""
    slot = read_slot(at, name)
    if slot is None:
        return False
    half = (
        shadow_file.is_there(at, name)
        or slot.left is not None
        or slot.on_trial is not None
        or (slot.live is not None and slot.live == slot.previous)
    )
    return half or slot.live in slot.refused or slot.live is None or whole(at, name, slot.live) is None


def _fault(at: Layout, slot: Slot, boot_id: str) -> str | None:
    """Why what is live must not stay; None where it may."""
    if slot.live is None or whole(at, slot.name, slot.live) is None:
        return "the live version is not whole"
    if slot.live in slot.refused:
        return "its rollback was interrupted"
    if slot.on_trial is None:
        return None
    trial = slot.on_trial.trial
    if trial.boot_id is not None and trial.boot_id != boot_id:
        return "the machine went down before it was proven good"
    if trial.boot_id is not None and trial.starts + 1 > MAX_STARTS:
        return f"the server started more than {MAX_STARTS} times in its trial"
    return None


def _started(at: Layout, slot: Slot, trial: Trial, boot_id: str, now: float) -> None:
    """One start more; a trial that waited for its first begins."""
    if slot.on_trial is None:
        return
    begun = trial if trial.boot_id is not None else replace(trial, boot_id=boot_id, started=now, starts=0)
    write_trial(at, slot.name, replace(slot.on_trial, trial=replace(begun, starts=begun.starts + 1)))

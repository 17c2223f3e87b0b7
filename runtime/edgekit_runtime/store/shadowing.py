"""Put a version in shadow of the live one, and drop it or promote it when it has been judged.

Refuses a version that is not whole or was rolled back or dropped before, and to stand beside none or one on trial."""

import logging
from dataclasses import replace

from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.store.activating import activate
from edgekit_runtime.store.floor import Floor
from edgekit_runtime.store.history import Event, add
from edgekit_runtime.store.layout import Layout, Version, whole
from edgekit_runtime.store.rolling_back import MAX_STARTS, refuse
from edgekit_runtime.store.settling import event, settled
from edgekit_runtime.store.shadow_file import Shadowing, Terms, end_shadow, write_shadow
from edgekit_runtime.store.slot import REFUSED, Slot, Trial, read_slot, write_ids

log = logging.getLogger("edgekit_runtime.store")


def shadow(at: Layout, floor: Floor, version: Version, terms: Terms, again: bool) -> None:
    """From now on it is in shadow; one that was there before is dropped. Of what is in shadow on the same terms already
    the time goes on: a server that has it open does not begin it anew."""
    name, id = version.name, version.id
    if whole(at, name, id) is None:
        raise NotFound(f"version {id} of {name} is not whole in the store", hint="install it again")
    slot = settled(at, floor, name) if at.disk.kind(at.slot(name)) is not None else None
    if slot is None or slot.live is None:
        raise EdgeKitError(f"no version of {name} is served here to compare with", hint="install without --shadow")
    if slot.live == id:
        raise EdgeKitError(f"version {id} of {name} is live already", hint="install another one")
    if slot.on_trial is not None:
        raise EdgeKitError(
            f"the live version of {name} is on trial still, and may be gone back from",
            hint="wait until it is proven good (edgekit-runtime status), or install without --shadow",
        )
    if id in slot.refused and not again:
        raise EdgeKitError(
            f"version {id} ({version.manifest.version}) of {name} was rolled back or dropped on this device",
            hint="install one that is mended; to try this one once more, say so (--again)",
        )
    now, one = slot.shadow, Shadowing(id, slot.live, terms)
    if id in slot.refused:  # what is in shadow and refused was being dropped
        write_ids(at, name, REFUSED, tuple(one for one in slot.refused if one != id))
    elif now is not None and (now.id, now.terms) == (id, terms):
        one = now
    write_shadow(at, name, one)
    if slot.shadow is not None and slot.shadow.id != id:
        add(at, name, event(at, name, "dropped", slot.shadow.id, "another version took its place"))
    add(at, name, event(at, name, "shadowing", id, words_of(terms)))


def words_of(terms: Terms) -> str:
    """What it has to do."""
    return (
        f"{terms.share:.3g} of the requests; to agree on {terms.agreement:.4g} of {terms.requests} within "
        f"{terms.seconds:g} s, in {terms.slower:g} times the time at most"
    )


def drop(at: Layout, floor: Floor, name: str, why: str, id: str | None, bad: bool) -> Event | None:
    """The version in shadow (if it is `id`) goes, and if it is `bad` it is not to be tried again; what was noted."""
    slot = settled(at, floor, name)
    if slot is None or slot.shadow is None or id not in (None, slot.shadow.id):
        return None
    return _dropped(at, slot, slot.shadow.id, why, bad)


def _dropped(at: Layout, slot: Slot, id: str, why: str, bad: bool) -> Event:
    if bad:
        refuse(at, slot, id)
    end_shadow(at, slot.name)
    done = event(at, slot.name, "dropped", id, why)
    add(at, slot.name, done)
    return done


def promote(at: Layout, floor: Floor, version: Version, trial: Trial, why: str) -> bool:
    """Make the version in shadow live, on trial; False where it is not in shadow any more."""
    slot = settled(at, floor, version.name)
    if slot is None or slot.shadow is None or slot.shadow.id != version.id:
        return False
    add(at, version.name, event(at, version.name, "promoted", version.id, why))
    activate(at, floor, version, trial, False)
    return True


def start(at: Layout, name: str, now: float) -> Event | None:
    """A server starts, and is about to open the version in shadow: what was dropped, if too many did not end well."""
    slot = read_slot(at, name)
    if slot is None or slot.shadow is None:
        return None
    one = slot.shadow
    if one.id in slot.refused:
        return _dropped(at, slot, one.id, "its drop was interrupted", True)
    if whole(at, name, one.id) is None:
        return _dropped(at, slot, one.id, "it is not whole in the store any more", False)
    if one.starts + 1 > MAX_STARTS:
        why = f"more than {MAX_STARTS} servers that had it in shadow did not end well"
        return _dropped(at, slot, one.id, why, True)
    begun = now if one.started is None else one.started
    try:
        write_shadow(at, name, replace(one, started=begun, starts=one.starts + 1))
    except OSError as error:  # what is live is to be served from a disk that cannot be written, too
        log.warning("%s: that a server starts with %s in shadow is not counted: %s", name, one.id, error)
    return None


def opened(at: Layout, name: str, id: str, now: float) -> None:
    """A server that runs opens it: its time begins, and this counts as a start."""
    slot = read_slot(at, name)
    if slot is not None and slot.shadow is not None and slot.shadow.id == id and slot.shadow.started is None:
        write_shadow(at, name, replace(slot.shadow, started=now, starts=slot.shadow.starts + 1))


def rested(at: Layout, name: str) -> None:
    """The server ends as it was told to: what is in shadow did not bring it down."""
    slot = read_slot(at, name)
    if slot is not None and slot.shadow is not None and slot.shadow.starts:
        write_shadow(at, name, replace(slot.shadow, starts=0))

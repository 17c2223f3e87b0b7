"""Make a version live on trial, and make it good when it has proven itself.

Refuses a version that is not whole, one that was rolled back before (unless it is asked for again), and one below the
floor (unless a signed leave says so)."""

from dataclasses import replace

from edgekit_runtime.disk import make_folder
from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.store.floor import Floor
from edgekit_runtime.store.history import add
from edgekit_runtime.store.layout import Layout, Version, whole
from edgekit_runtime.store.settling import end_stale_shadow, event, proven, settled
from edgekit_runtime.store.slot import PREVIOUS, REFUSED, OnTrial, Slot, Trial, end_trial, serve, write_ids, write_trial


def activate(at: Layout, floor: Floor, version: Version, trial: Trial, again: bool, leave: bool = False) -> None:
    """Serve the version from now on, on trial; one that is live already stays as it is. A `leave` lowers the floor."""
    name, id = version.name, version.id
    if whole(at, name, id) is None:
        raise NotFound(f"version {id} of {name} is not whole in the store", hint="install it again")
    make_folder(at.disk, at.slot(name))
    slot = settled(at, floor, name) or Slot(name, None, None)
    if id in slot.refused and not again:
        raise EdgeKitError(
            f"version {id} ({version.manifest.version}) of {name} was rolled back on this device",
            hint="install one that is mended; to try this one once more, say so (--again)",
        )
    if not leave and version.manifest.release < floor.least(name):  # it may have risen since this one was verified
        raise Untrusted(
            f"{name} {version.manifest.version} is release {version.manifest.release}; this device takes "
            f"{floor.least(name)} or later",
            hint="install a newer version, or have a leave to go back signed",
            reason="downgrade",
        )
    if id in slot.refused:
        write_ids(at, name, REFUSED, tuple(one for one in slot.refused if one != id))
    if slot.live == id:
        at.disk.sync_folder(at.slot(name))  # who made it live may have died before this
        return
    one, least = _next_trial(at, slot, id, trial), floor.least(name)
    sinks = leave and version.manifest.release < least
    write_trial(at, name, replace(one, floor=max(one.floor, least)) if sinks else one)
    if sinks:  # if the power goes before the swap, or the trial fails, it rises again
        floor.allow(name, version.manifest.release)
    serve(at, name, id)
    add(at, name, event(at, name, "activated", id))
    if slot.shadow is not None:
        end_stale_shadow(at, name)


def _next_trial(at: Layout, slot: Slot, id: str, trial: Trial) -> OnTrial:
    """A version still on trial is no ground to fall back to: that is what was proven before it, if there is such."""
    now = slot.on_trial
    if now is None or now.previous is None or whole(at, slot.name, now.previous) is None:
        return OnTrial(id, slot.live, slot.previous, trial, replace(now, over=None) if now is not None else None)
    back = now.previous if now.previous != id else None
    return OnTrial(id, back, now.older, trial, replace(now, over=None), now.floor)


def good(at: Layout, floor: Floor, name: str, id: str | None) -> None:
    """What is on trial has proven itself: it stays, and the floor rises to the version before it."""
    slot = settled(at, floor, name)
    if slot is None or slot.on_trial is None or id not in (None, slot.live):
        return
    if slot.on_trial.previous is not None:
        write_ids(at, name, PREVIOUS, (slot.on_trial.previous,))
    end_trial(at, name)
    proven(at, floor, name, slot.on_trial.id)

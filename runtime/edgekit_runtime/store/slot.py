"""What a model is on this device: the version that is served, the one to go back to, and whether it is on trial.

Refuses nothing when it is read: what a bad disk spoilt is said in `unsound`, and the careful thing is assumed."""

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_runtime import disk
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.store.layout import ID, Layout, is_count
from edgekit_runtime.store.shadow_file import Shadowing, read_shadow

LIVE, PREVIOUS, TRIAL, REFUSED, PIN = "live", "previous", "trial.json", "refused", "pin"
MAX_REFUSED = 100
LINK = re.compile(r"\.\./\.\./versions/([^/]+)/([0-9a-f]{12})")


@dataclass(frozen=True)
class Trial:
    """A version on trial: it must be proven good within `seconds` from `started` (Unix time), in the machine's start
    `boot_id`, and within few `starts` of the server.

    `boot_id` None: the trial begins with the server's next start (a card that was filled in another machine).
    """

    boot_id: str | None
    started: float
    seconds: float
    starts: int = 0


@dataclass(frozen=True)
class OnTrial:
    """The version `id`; `previous` is served if it fails, and then `older` is what one can go back to. `over` is the
    trial that was not over yet when this one began: until the link is swapped it is the one that counts. `floor` is
    the one that a leave to go back lowered for this version: it holds again if the trial fails."""

    id: str
    previous: str | None
    older: str | None
    trial: Trial
    over: "OnTrial | None" = None
    floor: int = 0


@dataclass(frozen=True)
class Slot:
    """A model. `left` is a trial that an interrupted change left: of a version that is not served. `shadow` answers
    a copy of what the live version is asked."""

    name: str
    live: str | None
    previous: str | None
    on_trial: OnTrial | None = None
    left: OnTrial | None = None
    refused: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    unsound: tuple[str, ...] = ()
    shadow: Shadowing | None = None

    @property
    def kept(self) -> frozenset[str]:
        """The ids that must stay."""
        trials = [one for one in (self.on_trial, self.left, self.left.over if self.left else None) if one is not None]
        served = (self.live, self.previous, self.shadow.id if self.shadow is not None else None)
        ids = [id for one in trials for id in (one.id, one.previous, one.older)]
        return frozenset(one for one in (*served, *self.pinned, *ids) if one is not None)


def read_slot(at: Layout, name: str) -> Slot | None:
    """The model as it is; None where nothing is known of it."""
    folder = at.slot(name)
    if at.disk.kind(folder) != "folder":
        return None
    ids = {part: _ids(at, folder / part) for part in (PREVIOUS, REFUSED, PIN)}
    unsound = [part for part, found in ids.items() if found is None]
    live = _live(at, name)
    if live is None and at.disk.kind(folder / LIVE) is not None:
        unsound.append(LIVE)
    previous, refused, pinned = (found or () for found in ids.values())
    shadow = read_shadow(at, name)
    if shadow is not None and (shadow.beside != live or shadow.id == live):
        shadow = None
    slot = Slot(name, live, previous[0] if previous else None, None, None, refused, pinned, tuple(unsound), shadow)
    return _with_trial(at, slot) if at.disk.kind(folder / TRIAL) is not None else slot


def _with_trial(at: Layout, slot: Slot) -> Slot:
    trial = _trial(_text(at, at.slot(slot.name) / TRIAL))
    if trial is None:
        slot = replace(slot, unsound=(*slot.unsound, TRIAL))
        if slot.live is None:
            return slot
        # What is live may be unproven: it is on trial, in a start of the machine that is over.
        trial = OnTrial(slot.live, slot.previous, None, Trial("", 0, 0))
    if trial.id == slot.live:
        return replace(slot, on_trial=trial)
    return replace(slot, left=trial, on_trial=trial.over if trial.over and trial.over.id == slot.live else None)


def _text(at: Layout, path: Path) -> str:
    try:
        return at.read(path).decode("ascii")
    except (OSError, ValueError, BadBundle):
        return ""


def _ids(at: Layout, path: Path) -> tuple[str, ...] | None:
    """The ids in a file; none where there is no file, None where it is spoilt."""
    if at.disk.kind(path) is None:
        return ()
    ids = tuple(_text(at, path).split())
    return ids if ids and all(map(ID.fullmatch, ids)) else None


def _live(at: Layout, name: str) -> str | None:
    link = at.slot(name) / LIVE
    found = LINK.fullmatch(at.disk.target(link)) if at.disk.kind(link) == "link" else None
    return found[2] if found is not None and found[1] == name else None


def _trial(text: str) -> OnTrial | None:
    try:
        raw = json.loads(text)
        over = raw.pop("over")
        trial = _one_trial(raw)
        return trial if trial is None or over is None else replace(trial, over=_one_trial(over))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _one_trial(raw: dict[str, Any]) -> OnTrial | None:
    id, previous, older = (raw.pop(key) for key in ("id", "previous", "older"))
    floor = raw.pop("floor", 0)
    trial = Trial(**raw)
    sound = all(map(math.isfinite, (trial.started, trial.seconds, trial.starts)))
    sound = sound and id is not None and all(map(_is_id, (id, previous, older)))
    sound = sound and isinstance(trial.boot_id, str | None) and is_count(floor)
    return OnTrial(id, previous, older, trial, None, floor) if sound else None


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, str) and ID.fullmatch(value) is not None)


def write_trial(at: Layout, name: str, one: OnTrial) -> None:
    """Before its version is served."""
    over = _trial_json(one.over) if one.over is not None else None
    disk.replace(at.disk, at.slot(name) / TRIAL, json.dumps({**_trial_json(one), "over": over}).encode())


def _trial_json(one: OnTrial) -> dict[str, Any]:
    named = {"id": one.id, "previous": one.previous, "older": one.older, "floor": one.floor}
    return {**named, **asdict(one.trial)}


def write_ids(at: Layout, name: str, part: str, ids: tuple[str, ...]) -> None:
    """`previous`, `refused` or `pin`; a file of none goes."""
    path = at.slot(name) / part
    if ids:
        disk.replace(at.disk, path, "".join(f"{one}\n" for one in ids).encode())
    else:
        disk.forget(at.disk, path)


def serve(at: Layout, name: str, id: str) -> None:
    """Make the version live: from here on it is the one."""
    disk.swap_link(at.disk, at.slot(name) / LIVE, f"../../versions/{name}/{id}")


def end_trial(at: Layout, name: str) -> None:
    """Whatever is live is on trial no more."""
    disk.forget(at.disk, at.slot(name) / TRIAL)

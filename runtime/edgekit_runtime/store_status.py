"""What a device's folder holds, as facts for a program and as lines for a person.

Refuses nothing: what does not read is told as it is."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgekit_runtime import running
from edgekit_runtime.device import Device
from edgekit_runtime.disk import REAL, plain_errors
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.scored import last
from edgekit_runtime.store import Slot, Store

Json = dict[str, Any]


def facts_of(device: Device) -> Json:
    """Models, trust, floor, disk, and the server if one runs."""
    store, served, trust = device.store, running.server(device.folder), device.trusted()
    with plain_errors(str(device.folder)):
        room = REAL.room(device.folder)
    versions: Mapping[str, str] = served.versions if served is not None else {}
    return {
        "device": str(device.folder),
        "target": device.target(),
        "trust": None if trust is None else {"serial": trust.serial, "keys": [key.name for key in trust.keys]},
        "server": None if served is None else asdict(served),
        "disk": {"free_mb": round(room.free / 1e6, 1), "total_mb": round(room.total / 1e6, 1)},
        "seen": store.floor.seen(),
        "models": [_model(device, store, slot, versions.get(slot.name)) for slot in store.slots()],
    }


def _model(device: Device, store: Store, slot: Slot, served: str | None) -> Json:
    trial = None
    if slot.on_trial is not None:
        terms = slot.on_trial.trial
        left = max(0.0, terms.started + terms.seconds - device.clock())
        trial = {"id": slot.on_trial.id, "begun": terms.boot_id is not None, "starts": terms.starts}
        trial["seconds_left"] = round(min(left, terms.seconds), 1) if trial["begun"] else terms.seconds
    return {
        "name": slot.name,
        "live": _version(store, slot.name, slot.live),
        "exam": _exam(device, slot.live),
        "previous": _version(store, slot.name, slot.previous if slot.on_trial is None else slot.on_trial.previous),
        "served": served,
        "trial": trial,
        "shadow": _shadow(device, store, slot),
        "versions": list(store.ids(slot.name)),
        "pinned": list(slot.pinned),
        "refused": list(slot.refused),
        "floor": store.floor.least(slot.name),
        "unsound": list(slot.unsound),
    }


def _shadow(device: Device, store: Store, slot: Slot) -> Json | None:
    if (one := slot.shadow) is None:
        return None
    left = None if one.started is None else one.started + one.terms.seconds - device.now()
    told = {"begun": left is not None, "starts": one.starts, **asdict(one.terms)}
    seconds = one.terms.seconds if left is None else round(min(max(0.0, left), one.terms.seconds), 1)
    return {**(_version(store, slot.name, one.id) or {}), **told, "seconds_left": seconds}


def _exam(device: Device, id: str | None) -> Json | None:
    """How the version did in the exam that it brings, here; None where it brings none, or did not take it."""
    found = None if id is None else last(device.folder, id)
    return None if found is None else {**asdict(found), "text": found.text()}


def _version(store: Store, name: str, id: str | None) -> Json | None:
    if id is None:
        return None
    try:
        manifest = store.version(name, id).manifest
    except EdgeKitError as error:
        return {"id": id, "version": "?", "release": 0, "fault": error.what}
    return {"id": id, "version": manifest.version, "release": manifest.release}


def words_of(facts: Json) -> str:
    """The facts, a line or two for each model."""
    trust, server, disk = facts["trust"], facts["server"], facts["disk"]
    lines = [
        f"device   {facts['device']}, target {facts['target'] or 'any'}",
        "trust    "
        + (f"document {trust['serial']}: {', '.join(trust['keys']) or 'nobody'}" if trust else "nobody yet"),
        "server   " + (f"{server['url']} (process {server['pid']})" if server else "does not run"),
        f"disk     {disk['free_mb']:,.0f} of {disk['total_mb']:,.0f} MB free",
    ]
    for one in facts["models"]:
        lines += ["", *_lines(one, server is not None)]
    return "\n".join(lines) if facts["models"] else "\n".join([*lines, "", "nothing is installed yet"])


def _lines(one: Json, running: bool) -> list[str]:
    state = "good" if one["trial"] is None else _trial(one["trial"])
    if running and one["live"] is not None and one["served"] != one["live"]["id"]:
        state += "; the server does not serve it"
    lines = [f"{one['name']}", f"  live      {_told(one['live'])}: {state}", f"  previous  {_told(one['previous'])}"]
    if one["exam"] is not None:
        lines.append(f"  exam      {one['exam']['text'].removeprefix('exam: ')}")
    if one["shadow"] is not None:
        lines.append(f"  shadow    {_told(one['shadow'])}: {_compared(one['shadow'])}")
    for key in ("pinned", "refused", "unsound"):
        if one[key]:
            lines.append(f"  {key:<9} {', '.join(one[key])}")
    if one["floor"]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["floor"])) if one["floor"] < 2**35 else "-"
        lines.append(f"  floor     release {one['floor']} ({since})")
    return lines


def _trial(trial: Json) -> str:
    if not trial["begun"]:
        return f"on trial for {trial['seconds_left']:g} s from the server's next start on"
    return f"on trial, {trial['seconds_left']:g} s left"


def _compared(one: Json) -> str:
    left = f"{one['seconds_left']:g} s " + ("left" if one["begun"] else "from the server's next start on")
    return f"{one['share']:.3g} of the requests, {one['agreement']:.4g} of {one['requests']} to agree, {left}"


def _told(version: Json | None) -> str:
    return "none" if version is None else f"{version['version']} ({version['id']})"

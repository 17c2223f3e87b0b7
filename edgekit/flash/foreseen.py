"""What a device at rest will say to a bundle at its next start, and what is there already; as lines of checks. Pure.

Refuses nothing itself; memory, CPU features and the clock only a device that runs can tell."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit_runtime.manifest import Manifest
from edgekit_runtime.verified import Vouched

from edgekit.flash.at_rest import Root, content, find
from edgekit.flash.bundles import Terms
from edgekit.flash.checks import Check, first, version
from edgekit.flash.facts import Disk, Facts, Homes
from edgekit.flash.parcel import ARRIVED, BOOT_UNIT, UNITS, Parcel, boot_unit
from edgekit.target import Target

AT_REST = ("architecture", "C library", "Python", "target")
"""The questions of `checks` that a device at rest answers."""
SMALL = 100_000
"""Bytes of a list of versions."""


def foreseen(facts: Facts, manifest: Manifest, target: Target | None) -> list[Check]:
    """Whether the device is right for the bundle, as far as it tells."""
    asked = first(facts, manifest, target, 0.0)
    return [*(check for check in asked if check.name in AT_REST), _system(facts)]


def versions(root: Root, facts: Facts, vouched: Vouched, terms: Terms) -> list[Check]:
    """Whether the device will take this version beside what lies in its folders; it judges again."""
    found = _model(root, vouched.manifest.name, facts.homes)
    return version(replace(facts, status={"models": [found]}), vouched.manifest, vouched.digest[:12], terms)


def is_staged(root: Root, parcel: Parcel, homes: Homes) -> bool:
    """Whether this very parcel waits there, and its unit with it."""
    label = content(root, f"{homes.prefix}/{ARRIVED}/{parcel.name}/parcel.json")
    unit = content(root, f"{UNITS}/multi-user.target.wants/{BOOT_UNIT}")
    return label == parcel.label and unit == boot_unit(homes).encode()


def is_live(root: Root, manifest: Manifest, digest: str, homes: Homes) -> bool:
    """Whether the device serves this very bundle."""
    live = find(root, f"{homes.device}/store/slots/{manifest.name}/live")
    return live is not None and digest.startswith(live[0].rpartition("/")[2])


def writable(path: Path) -> Check:
    """Whether we may write there."""
    if not os.access(path, os.W_OK):
        return Check("rights", "refusal", f"{path} may not be written", "run this with sudo, or mount it writable")
    return Check("rights", "ok", "it may be written")


def stick_room(path: Path, disk: Disk, needed: int) -> Check:
    """Whether a stick takes it."""
    words = f"{disk.free / 1e6:,.0f} MB are free at {path}, {needed / 1e6:,.0f} MB will be written"
    return Check("disk", "ok" if disk.free > needed else "refusal", words, "free some of it")


def _system(facts: Facts) -> Check:
    if facts.systemd is None:
        hint = "carry it there: flash to an empty folder, on a stick for example"
        return Check("system", "refusal", "no systemd, which would install the bundle at the next start", hint)
    if not facts.account and not facts.tools & {"systemd-sysusers", "useradd", "adduser"}:
        return Check("system", "refusal", "nothing in it can make the user edgekit", "add that user to it")
    return Check("system", "ok", f"systemd {facts.systemd or 'of unknown version'}")


def _model(root: Root, name: str, homes: Homes) -> Mapping[str, Any]:
    """One model in the shape in which a running device tells it. What does not read, the device makes anew."""
    slot = f"{homes.device}/store/slots/{name}"
    live = find(root, f"{slot}/live")
    floor = _object(content(root, f"{homes.device}/floor.json")).get("names")
    return {
        "name": name,
        "live": None if live is None else {"id": live[0].rpartition("/")[2]},
        "trial": _object(content(root, f"{slot}/trial.json")) or None,
        "refused": (content(root, f"{slot}/refused", SMALL) or b"").decode("ascii", errors="replace").split(),
        "floor": floor.get(name) if isinstance(floor, dict) else None,
    }


def _object(raw: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

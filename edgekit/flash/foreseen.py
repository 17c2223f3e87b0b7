"""What a device at rest will say to a bundle at its next start, and what is there already; as lines of checks. Pure.

Refuses nothing itself; memory, CPU features and the clock only a device that runs can tell."""

import json
import os
from pathlib import Path

from edgekit_runtime.manifest import Manifest

from edgekit.flash.at_rest import Root, content, find
from edgekit.flash.checks import Check, first
from edgekit.flash.facts import Disk, Facts, Homes
from edgekit.flash.parcel import ARRIVED, BOOT_UNIT, UNITS, Parcel, boot_unit
from edgekit.target import Target

AT_REST = ("architecture", "C library", "Python", "target")
"""The questions of `checks` that a device at rest answers."""


def foreseen(root: Root, facts: Facts, manifest: Manifest, target: Target | None) -> list[Check]:
    """Whether the device is right for the bundle, as far as it tells."""
    asked = first(facts, manifest, target, 0.0)
    return [*(check for check in asked if check.name in AT_REST), _system(facts), _floor(root, manifest, facts.homes)]


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


def _floor(root: Root, manifest: Manifest, homes: Homes) -> Check:
    """The device's own rollback floor; the device judges again."""
    try:
        least = json.loads(content(root, f"{homes.device}/floor.json") or b"{}").get("names", {}).get(manifest.name, 0)
    except (ValueError, AttributeError, RecursionError):
        least = 0  # the device makes a spoilt file anew from what is installed there
    if isinstance(least, int) and manifest.release < least:
        words = f"{manifest.name} {manifest.version} is release {manifest.release}; the device takes {least} or later"
        return Check("release", "refusal", words, "build it again, or go back on the device: edgekit-runtime rollback")
    return Check("release", "ok", str(manifest.release))

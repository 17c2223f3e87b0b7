"""What is wanted of a flash without a network, what would be done, and that in words. Pure.

Refuses nothing."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgekit_runtime.manifest import Manifest
from edgekit_runtime.verified import Vouched

from edgekit.flash import checks, folder
from edgekit.flash.bundles import Terms
from edgekit.flash.card import Part
from edgekit.flash.checks import Check
from edgekit.flash.differing import Kept
from edgekit.flash.parcel import Contents, Parcel
from edgekit.flash.telling import how

USUAL = Terms()
Kind = Literal["image", "root", "stick"]


@dataclass(frozen=True)
class Wishes:
    """What is to be flashed, and where: `image:FILE` or `file://FOLDER`. `partition`: of several roots this one;
    `in_place`: no copy of the image; `pythons`: of the devices that a stick is for (none: the usual ones). `terms`: how
    the device installs it; `serve`: the words that it serves with from then on. `kept`: where what was flashed is kept,
    for the deltas of a later flash over ssh, which are made for a device that says that it has it (None: nowhere)."""

    bundle: Path
    where: str
    keys: Path
    partition: int | None = None
    in_place: bool = False
    pythons: tuple[str, ...] = ()
    terms: Terms = USUAL
    serve: tuple[str, ...] | None = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Plan:
    """What would be done: each check, each step in words, how many bytes are written; `done`: nothing is left to do."""

    where: str
    kind: Kind
    checks: tuple[Check, ...]
    manifest: Manifest
    id: str = ""
    steps: tuple[str, ...] = ()
    size: int = 0
    done: bool = False


@dataclass(frozen=True)
class Prepared:
    """A plan and what it takes to carry it out."""

    wishes: Wishes
    plan: Plan
    path: Path
    part: Part | None = None
    parcel: Parcel | None = None
    vouched: Vouched | None = None


def lines(plan: Plan) -> list[str]:
    """The plan in words."""
    name = f"{plan.manifest.name} {plan.manifest.version} ({plan.id})"
    return [f"{name} is in {plan.where} already: nothing to do"] if plan.done else list(plan.steps)


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan for machines."""
    return {
        "where": plan.where,
        "kind": plan.kind,
        "checks": [{"name": c.name, "state": c.state, "words": c.words, "hint": c.hint} for c in plan.checks],
        "refused": bool(checks.refused(plan.checks)),
        "bundle": {"name": plan.manifest.name, "version": plan.manifest.version, "id": plan.id},
        "bytes": plan.size,
        "steps": list(plan.steps),
        "nothing_to_do": plan.done,
    }


def steps_of(begun: Prepared, contents: Contents) -> tuple[str, ...]:
    """What is done, in words."""
    manifest, wishes = contents.manifest, begun.wishes
    pythons = ", ".join(contents.houses or ())
    what = [f"the runtime for Python {pythons} ({contents.arch})"] if contents.houses else []
    what += [*(["the trust document"] if contents.trust else []), f"the bundle {manifest.name} {manifest.version}"]
    after = how(wishes.terms)
    if contents.serve is not None:
        after.append(f"it serves with these words from then on: {shlex.join(contents.serve) or 'none'}")
    if begun.plan.kind == "stick":
        there = f"then, on the device: sh {folder.CARRIED}/install.sh"
        return (f"write {', '.join(what)} into {folder.CARRIED}/", there, *after)
    found = [f"write {', '.join(what)}, and a unit that installs them"]
    if begun.plan.kind == "image":
        itself = "write into the image itself: cut short, it has to be made anew"
        begin = itself if wishes.in_place else "copy the image"
        found = [begin, "check its file system", *found, "check its file system again"]
        found += [] if wishes.in_place else ["put the copy in the image's place"]
    found.append("at its next start the device verifies the bundle and replays its recorded inputs")
    return (*found, *after)

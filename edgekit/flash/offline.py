"""Flashing without a network: into a card's image, a mounted root file system, or a folder that is carried over.

Refuses, before it writes a byte, what the device would refuse later, as far as a device at rest tells it."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import edgekit_runtime
from edgekit_runtime.bundle import read_manifest
from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.verified import Vouched

from edgekit.flash import ext4, folder, image
from edgekit.flash.at_rest import Root, facts_of, is_root
from edgekit.flash.card import Part, read_ext, told
from edgekit.flash.carrying import newer_there, up_to_date
from edgekit.flash.checks import Check, Needed, refused, room
from edgekit.flash.differing import keep
from edgekit.flash.facts import Facts, Homes
from edgekit.flash.flashing import Flashed
from edgekit.flash.foreseen import foreseen, is_live, is_staged, stick_room, versions, writable
from edgekit.flash.parcel import Contents, Parcel, in_root, parcel_of
from edgekit.flash.staging import Kind, Plan, Prepared, Wishes, steps_of
from edgekit.flash.trusting import Trusting, leave, trusting, verified
from edgekit.flash.wheels import Platform, Wheelhouse, fetched, wanted
from edgekit.model import Tell
from edgekit.target import find_target

PYTHONS: Mapping[str, tuple[int, int]] = {"3.11": (2, 36), "3.12": (2, 39), "3.13": (2, 41)}
"""The Pythons of Debian 12, Ubuntu 24.04 and Debian 13, with the C library that each comes with."""
USUAL = ("3.11", "3.13")
"""What a stick carries, where nobody says which Python the device has."""


def is_offline(where: str) -> bool:
    """Whether an address is one of ours."""
    return where.startswith(("file:", "image:"))


def prepare(wishes: Wishes, tell: Tell) -> Prepared:
    """Look, judge and plan; write nothing but caches.

    Raises:
        EdgeKitError: there is nothing to flash, or to flash to; what a check refuses is told in the plan.
    """
    if not (wishes.bundle / "manifest.json").is_file():
        raise NotFound(f"no bundle at {wishes.bundle}", hint="name a folder that `edgekit build` made")
    manifest = read_manifest(wishes.bundle)
    kind, path = _place(wishes.where)
    if kind == "stick":
        return _for_stick(Prepared(wishes, Plan(str(path), kind, (), manifest), path), tell)
    if wishes.pythons:
        raise EdgeKitError("--python is for a stick: a device's own files tell which it has", hint="leave it out")
    if kind == "root":
        return _for_root(Prepared(wishes, Plan(str(path), kind, (), manifest), path), folder.as_root(path), tell)
    programs = ext4.programs(tell)

    def looks(part: Part) -> bool:
        with ext4.opened(path, part, programs) as one:
            return is_root(ext4.as_root(one))

    part = image.root_part(path, looks, wishes.partition)
    begun = Prepared(wishes, Plan(f"{path} ({told(part)})", kind, (), manifest), path, part)
    if read_ext(path, part).unclean:
        with _mended(path, part, tell) as one:
            return _for_root(begun, ext4.as_root(one), tell)
    with ext4.opened(path, part, programs) as one:
        return _for_root(begun, ext4.as_root(one), tell)


def carry_out(prepared: Prepared, tell: Tell) -> Flashed:
    """Do what was planned.

    Raises:
        EdgeKitError: a check refused it, or it failed; an image is then as it was, unless in place.
    """
    plan, parcel = prepared.plan, prepared.parcel
    if against := refused(plan.checks):
        raise EdgeKitError(f"{against[0].name}: {against[0].words}", hint=against[0].hint)
    assert parcel is not None
    assert prepared.vouched is not None
    name, version = plan.manifest.name, plan.manifest.version
    if plan.done:
        return Flashed("unchanged", name, version, plan.id, False, 0, None)
    if plan.kind == "stick":
        tell(f"writing {plan.where}")
        folder.carry(prepared.path, parcel.items)
        outcome, following = "carried", f"on the device: sh {folder.CARRIED}/install.sh"
    elif plan.kind == "root":
        tell(f"writing {plan.where}")
        folder.put(prepared.path, in_root(parcel, Homes()))
        outcome, following = "staged", ""
    else:
        _into_image(prepared, parcel, tell)
        outcome, following = "staged", ""
    if prepared.wishes.kept is not None:
        keep(prepared.wishes.kept, prepared.wishes.bundle, prepared.vouched)
    return Flashed(outcome, name, version, plan.id, False, plan.size, None, following)


def _into_image(prepared: Prepared, parcel: Parcel, tell: Tell) -> None:
    assert prepared.part is not None
    path, part, programs = prepared.path, prepared.part, ext4.programs(tell)
    with image.changing(path, prepared.wishes.in_place, prepared.plan.size, tell) as to:
        if read_ext(to, part).unclean:
            with _mended(to, part, tell) as one:
                image.restore(one.image, to, part)
        with ext4.opened(to, part, programs, path.name) as one:
            tell("checking the file system")
            one.check(mend=True)
            tell(f"writing into {told(part)}")
            ext4.put(one, in_root(parcel, Homes()))
            tell("checking the file system again")
            one.check()


@contextmanager
def _mended(path: Path, part: Part, tell: Tell) -> Iterator[ext4.Ext4]:
    """The partition of a device that lost its power, as a copy whose journal was replayed."""
    with (
        image.extracted(path, part) as file,
        ext4.opened(file, Part(0, 0, part.size, part.holds), ext4.programs(tell), path.name) as one,
    ):
        tell("replaying its journal: the device lost its power")
        one.check(mend=True)
        yield one


def _place(where: str) -> tuple[Kind, Path]:
    """What the address names."""
    if where.startswith("image:"):
        return "image", image.find_image(where.removeprefix("image:"))
    parts = urlsplit(where)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise EdgeKitError(f"{where!r} is no place to flash to", hint="write file:///FOLDER or image:FILE")
    path = Path(os.path.realpath(unquote(parts.path)))
    return folder.kind_of(path), path


def _for_root(begun: Prepared, root: Root, tell: Tell) -> Prepared:
    """The plan for a device whose root file system this is."""
    wishes, manifest, facts = begun.wishes, begun.plan.manifest, facts_of(root)
    try:
        target = find_target(manifest.target)
    except EdgeKitError:
        target = None
    trust = trusting(facts.trust, wishes.keys)
    vouched, signed = _verified(wishes, trust)
    checks = [*foreseen(facts, manifest, target), trust.check, signed, *_leave(wishes, trust, manifest)]
    if vouched is not None:
        checks += versions(root, facts, vouched, wishes.terms)
    if begun.plan.kind == "root" or wishes.in_place:
        checks.append(writable(begun.path))
    if vouched is None or refused(checks):
        return _with(begun, checks)
    begun = replace(begun, vouched=vouched)
    try:
        houses = _houses(facts, manifest, tell)
    except EdgeKitError as error:
        return _with(begun, [*checks, Check("wheels", "refusal", error.what, error.hint)])
    contents = _contents(wishes, vouched, facts.arch, trust, houses)
    parcel = parcel_of(contents)
    same = houses is None and not trust.documents and wishes.serve in (None, facts.words)
    done = is_staged(root, parcel, facts.homes) or (same and is_live(root, manifest, vouched.digest, facts.homes))
    if not done:
        unpacked = sum(house.unpacked for house in (houses or {}).values())
        checks += room(facts, Needed(parcel.size + unpacked, 2 * parcel.size))
    return _with(begun, checks, contents, parcel, done)


def _for_stick(begun: Prepared, tell: Tell) -> Prepared:
    """The plan for a folder that is carried to a device of which nothing is known but its target."""
    wishes, manifest = begun.wishes, begun.plan.manifest
    trust = trusting(None, wishes.keys)
    vouched, signed = _verified(wishes, trust)
    checks = [trust.check, signed, *_leave(wishes, trust, manifest), writable(begun.path)]
    pythons = wishes.pythons or USUAL
    if unknown := [python for python in pythons if python not in PYTHONS]:
        raise EdgeKitError(f"there is no runtime for Python {unknown[0]}", hint=f"choose from {', '.join(PYTHONS)}")
    if vouched is None or refused(checks):
        return _with(begun, checks)
    begun = replace(begun, vouched=vouched)
    arch = find_target(manifest.target).arch
    pins, engines = wanted(manifest, arch)
    houses = {}
    for python in pythons:
        major, minor = map(int, python.split("."))
        houses[python] = fetched(Platform(arch, (major, minor), PYTHONS[python]), pins, engines, tell)
    contents = _contents(wishes, vouched, arch, trust, houses)
    parcel = parcel_of(contents)
    there = begun.path / folder.CARRIED / "parcel.json"
    done = there.is_file() and there.read_bytes() == parcel.label
    if not done:
        checks.append(stick_room(begun.path, folder.as_root(begun.path).disk, parcel.size))
    return _with(begun, checks, contents, parcel, done)


def _verified(wishes: Wishes, trust: Trusting) -> tuple[Vouched | None, Check]:
    try:
        return verified(wishes.bundle, trust.trust, wishes.keys, time.time())
    except EdgeKitError as error:
        return None, Check("bundle", "refusal", error.what, error.hint)


def _leave(wishes: Wishes, trust: Trusting, manifest: Manifest) -> list[Check]:
    """Of a signed leave to install an older release, whether the device will take it; by its own clock, later."""
    raw = wishes.terms.downgrade
    return [] if raw is None or trust.trust is None else [leave(raw, trust.trust, manifest, time.time())]


def _houses(facts: Facts, manifest: Manifest, tell: Tell) -> dict[str, Wheelhouse] | None:
    """The runtime's wheels, by the device's Python; None where it has the runtime."""
    assert facts.python is not None
    assert facts.glibc is not None
    pins, engines = wanted(manifest, facts.arch, facts.runtime)
    if newer_there(facts, edgekit_runtime.__version__, engines):
        return None
    python = facts.python[:2]
    house = fetched(Platform(facts.arch, python, facts.glibc), pins, engines, tell)
    return None if up_to_date(facts, house) else {".".join(map(str, python)): house}


def _contents(
    wishes: Wishes, vouched: Vouched, arch: str, trust: Trusting, houses: dict[str, Wheelhouse] | None
) -> Contents:
    return Contents(
        wishes.bundle, vouched.manifest, vouched.digest, arch, trust.documents, houses, Homes(), wishes.terms,
        wishes.serve,
    )  # fmt: skip


def _with(
    begun: Prepared,
    checks: list[Check],
    contents: Contents | None = None,
    parcel: Parcel | None = None,
    done: bool = False,
) -> Prepared:
    """The plan with what was found."""
    plan = replace(begun.plan, checks=tuple(checks), done=done)
    if contents is not None and parcel is not None:
        steps = () if done else steps_of(begun, contents)
        plan = replace(plan, id=contents.digest[:12], steps=steps, size=parcel.size)
    return replace(begun, plan=plan, parcel=parcel)

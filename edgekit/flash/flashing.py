"""The story of a flash over ssh: look, judge, plan; then carry runtime, trust and bundle over, and see it served.

Refuses where a check does; nothing is changed on the device before the plan was agreed to."""

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edgekit_runtime
from edgekit_runtime.bundle import read_manifest
from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.verified import Vouched

from edgekit.flash import (
    bundles,
    carrying,
    checks,
    differing,
    facts,
    names,
    receipts,
    remote,
    running,
    trusting,
    wheels,
)
from edgekit.flash.bundles import Rest, Terms
from edgekit.flash.checks import Check
from edgekit.flash.facts import Facts, Homes
from edgekit.flash.line import Line
from edgekit.flash.moving import Moved
from edgekit.flash.wheels import Wheel, Wheelhouse
from edgekit.target import Target, find_target

Tell = Callable[[str], None]
NOTHING = Rest((), 0, 0)


@dataclass(frozen=True)
class Order:
    """What is wanted: this bundle on this device, its folders there, how it is installed and served (`words` after
    `serve`; None: as before), whether the server is started where no systemd does; and where we keep our own things
    (`kept` None: nothing of a bundle, and no deltas are sent)."""

    bundle: Path
    device: names.Device
    homes: Homes
    terms: Terms
    words: tuple[str, ...] | None
    start: bool
    keys: Path
    devices: Path
    receipts: Path
    kept: differing.Kept | None = None


@dataclass(frozen=True)
class Plan:
    """What was found and what would be done. `wheelhouse` is None where the runtime stays as it is; `wheels` of it have
    still to be sent, each from a byte on; `otherwise`: the server is to be started, or to serve with other words."""

    checks: tuple[Check, ...]
    facts: Facts
    manifest: Manifest
    vouched: Vouched | None = None
    documents: tuple[bytes, ...] = ()
    wheelhouse: Wheelhouse | None = None
    wheels: tuple[tuple[Wheel, int], ...] = ()
    rest: Rest = NOTHING
    otherwise: bool = False

    @property
    def id(self) -> str:
        """Of the version, as the device will call it."""
        return self.vouched.digest[:12] if self.vouched else ""

    @property
    def runtime_bytes(self) -> int:
        """To be sent for the runtime."""
        return sum(wheel.size - got for wheel, got in self.wheels)

    @property
    def model(self) -> dict[str, Any] | None:
        """What the device says of the model so far."""
        return running.model_of(self.facts.status, self.manifest.name)

    @property
    def nothing_to_do(self) -> bool:
        """Whether this version is live there, served where something serves, and all else is as it should be."""
        model = self.model
        if self.wheelhouse is not None or self.documents or self.otherwise:
            return False
        if model is None or running.live_of(model) != self.id:
            return False
        return model.get("served") == self.id or not (self.serves or running.supervised(self.facts))

    @property
    def serves(self) -> bool:
        """Whether a server runs there."""
        return bool(self.facts.status and self.facts.status.get("server"))


def manifest_of(bundle: Path) -> Manifest:
    """What is to be flashed.

    Raises:
        EdgeKitError: there is no bundle, or its manifest does not read.
    """
    if not (bundle / "manifest.json").is_file():
        raise NotFound(f"no bundle at {bundle}", hint="name a folder that `edgekit build` made")
    return read_manifest(bundle)


def prepare(line: Line, order: Order, tell: Tell) -> Plan:
    """Ask the device, judge what it says, and plan. Changes nothing there.

    Raises:
        EdgeKitError: there is no bundle, or the connection was lost; what a check refuses is told in the plan.
    """
    manifest = manifest_of(order.bundle)
    tell(f"asking {line.where} what it is")
    found = facts.asked(line, order.homes)
    told = checks.first(found, manifest, _target(manifest), time.time())
    will = trusting.trusting(found.trust, order.keys)
    vouched, verdict = _verified(order, will, manifest)
    if vouched is not None:
        told += checks.version(found, manifest, vouched.digest[:12], order.terms)
    if order.terms.downgrade is not None and will.trust is not None:
        told.append(trusting.leave(order.terms.downgrade, will.trust, manifest, time.time()))
    plan = Plan((*told, _key(order, found), will.check, verdict), found, manifest, vouched, will.documents)
    start = order.start and not plan.serves and not running.supervised(found)
    plan = replace(plan, otherwise=start or order.words not in (None, found.words))
    if checks.refused(plan.checks):
        return plan
    return _measured(line.as_root(found.root or ()), order, plan, tell)


def _key(order: Order, found: Facts) -> Check:
    """Whether it is the device that it was at its first flash."""
    try:
        names.same_key(order.device, found.key)
    except EdgeKitError as error:
        return Check("device key", "refusal", error.what, error.hint)
    return Check("device key", "ok", "the one that it showed first" if order.device.key else "not seen yet: it is kept")


def _verified(order: Order, will: trusting.Trusting, manifest: Manifest) -> tuple[Vouched | None, Check]:
    try:
        return trusting.verified(order.bundle, will.trust, order.keys, time.time())
    except EdgeKitError as error:
        return None, Check("bundle", "refusal", error.what, error.hint)


def _measured(line: Line, order: Order, plan: Plan, tell: Tell) -> Plan:
    """With what has to be sent, and whether there is room for it."""
    found, manifest = plan.facts, plan.manifest
    pins, engines = wheels.wanted(manifest, found.arch, found.runtime)
    assert found.python is not None
    assert found.glibc is not None
    if carrying.newer_there(found, edgekit_runtime.__version__, engines):
        words = f"edgekit-runtime {found.starts} is newer than this one, {edgekit_runtime.__version__}, and stays"
        plan = replace(plan, checks=(*plan.checks, Check("runtime", "warning", words, "update EdgeKit here")))
    else:
        try:
            platform = wheels.Platform(found.arch, found.python[:2], found.glibc)
            house = wheels.fetched(platform, pins, engines, tell)
        except EdgeKitError as error:
            return replace(plan, checks=(*plan.checks, Check("wheels", "refusal", error.what, error.hint)))
        words = f"{len(house.wheels)} for {found.arch}, Python {found.python[0]}.{found.python[1]}"
        plan = replace(plan, checks=(*plan.checks, Check("wheels", "ok", words)))
        if not carrying.up_to_date(found, house):
            plan = replace(plan, wheelhouse=house, wheels=tuple(carrying.missing(line, found, house)))
    there = remote.asked(line, found.homes, "have") if found.starts and found.status is not None else {}
    plan = replace(plan, rest=_rest(order, plan, there, tell))
    runtime = plan.runtime_bytes + (plan.wheelhouse.unpacked if plan.wheelhouse else 0)
    return replace(plan, checks=(*plan.checks, *checks.room(found, checks.Needed(runtime, plan.rest.written))))


def _rest(order: Order, plan: Plan, there: Any, tell: Tell) -> Rest:
    """What of the bundle has to be sent to a device that has what it told, as deltas where that spares much."""
    rest = bundles.rest(order.bundle, plan.manifest, there)
    ids = [id for which in ("live", "previous") if (id := running.live_of(plan.model, which)) is not None]
    if order.kept is None or not rest.pieces or not ids:
        return rest
    deltas = differing.made(order.kept, plan.manifest, rest.pieces, ids, tell)
    return bundles.rest(order.bundle, plan.manifest, there, deltas)


def _target(manifest: Manifest) -> Target | None:
    try:
        return find_target(manifest.target)
    except EdgeKitError:
        return None


def bring_trust(line: Line, found: Facts, home: Path, dry_run: bool) -> trusting.Trusting:
    """Have a device that was flashed before follow the trust documents in the folder of keys; what it was sent.

    Raises:
        EdgeKitError: it has no runtime, or what it trusts and what is trusted here do not go together.
    """
    if not found.starts:
        raise remote.no_runtime(line)
    will = trusting.trusting(found.trust, home)
    if will.check.state != "ok":
        raise EdgeKitError(f"{line.where}: {will.check.words}", hint=will.check.hint)
    if not dry_run:
        bundles.trust(line.as_root(found.root or ()), found, will.documents)
    return will


@dataclass(frozen=True)
class Flashed:
    """What came of it: the device's own `outcome`, the version, whether a server serves it, the receipt's file."""

    outcome: str
    name: str
    version: str
    id: str
    served: bool
    sent: int
    receipt: Path | None
    next: str = ""


def carry_out(line: Line, order: Order, plan: Plan, tell: Tell) -> Flashed:
    """Do what was planned; each step may be cut off, and the same again goes on from there.

    Raises:
        EdgeKitError: the device refused something, or the connection was lost; what was served is served on.
    """
    assert plan.vouched is not None
    line, found = line.as_root(plan.facts.root or ()), plan.facts
    words = found.words if order.words is None else order.words
    if plan.wheelhouse is not None:
        _runtime(line, plan, tell)
    running.prepare(line, found)
    if words != found.words:
        running.keep_words(line, found.homes, words)
    early = plan.serves and running.supervised(found)
    if early and (plan.wheelhouse is not None or words != found.words):
        tell(running.enable(line, found, words, restart=True))  # by the runtime that this bundle takes
    bundles.trust(line, found, plan.documents)
    there = remote.asked(line, found.homes, "have")
    rest = bundles.rest(order.bundle, plan.manifest, there, plan.rest.deltas)
    moved = Moved("bundle", rest.size, tell)
    bundles.send(line, found, rest, moved)
    done = bundles.install(line, found, plan.vouched, order.terms, tell)
    if order.kept is not None:
        differing.keep(order.kept, order.bundle, plan.vouched)
    kept = _kept(line, order, plan, done)
    outcome, why = done.get("outcome"), str(done.get("why", ""))[:1000]
    if outcome in ("rolled back", "dropped"):
        what = "went back by itself" if outcome == "rolled back" else "did not take it into shadow"
        raise EdgeKitError(f"{line.where} {what}: {why}", hint=f"edgekit logs {order.device.name}")
    served, following = (False, "") if outcome == "shadowing" else _served(line, order, plan, words, tell)
    sent = plan.runtime_bytes + moved.sent
    version = plan.manifest.version
    return Flashed(str(outcome), plan.manifest.name, version, plan.id, served, sent, kept, following)


def _runtime(line: Line, plan: Plan, tell: Tell) -> None:
    assert plan.wheelhouse is not None
    left = carrying.missing(line, plan.facts, plan.wheelhouse)
    carrying.send(line, plan.facts, left, Moved("runtime", sum(wheel.size - got for wheel, got in left), tell))
    tell("unpacking the runtime there")
    name = carrying.unpack(line, plan.facts, plan.wheelhouse)
    tell(f"the runtime is {plan.facts.homes.prefix}/runtimes/{name}")


def _kept(line: Line, order: Order, plan: Plan, done: Mapping[str, Any]) -> Path | None:
    """The receipt, verified and written down; the device's key remembered."""
    assert plan.vouched is not None
    key = line.run(f"head -c 10000 {shlex.quote(f'{plan.facts.homes.device}/device.pub')}").out
    names.same_key(order.device, key)
    receipt = done.get("receipt")
    if not receipt:
        return None
    kept, _ = receipts.keep(
        order.receipts, order.device.name.partition("://")[2] or order.device.name, receipt, key, plan.vouched.digest
    )
    names.remember(order.devices, order.device, key)
    return kept


def _served(line: Line, order: Order, plan: Plan, words: tuple[str, ...], tell: Tell) -> tuple[bool, str]:
    """See that it is served; where nothing starts a server, the command that would."""
    found = plan.facts
    if running.supervised(found):
        tell(running.enable(line, found, words, restart=False))
    elif not plan.serves and order.start:
        tell(running.start(line, found, words))
    elif not plan.serves:
        return False, running.start_command(found.homes, words)
    if not running.awaited(line, found, plan.manifest.name, plan.id, tell):
        raise EdgeKitError(
            f"{line.where} has it, but its server does not serve it yet", hint=f"edgekit logs {order.device.name}"
        )
    return True, ""

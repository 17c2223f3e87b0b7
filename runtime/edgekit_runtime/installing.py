"""The story of an installation: verified, added to the store, tried in a child, made live on trial, told to the server.

Refuses what was not verified or does not do here what it promises; what was served before is served on then."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit_runtime import running
from edgekit_runtime.detect import detect
from edgekit_runtime.device import Device
from edgekit_runtime.disk import REAL, remove
from edgekit_runtime.errors import BadBundle, EdgeKitError, Exceeded, Untrusted
from edgekit_runtime.files import Files
from edgekit_runtime.incoming import staged
from edgekit_runtime.on_drift import end_on_drift
from edgekit_runtime.receipts import Receipt, issue
from edgekit_runtime.scored import Scored, keep
from edgekit_runtime.scored import key as exam_key
from edgekit_runtime.shadow_install import check_comparable, check_memory, put
from edgekit_runtime.store import Terms, Trial, Version
from edgekit_runtime.telemetry.boots import this_boot
from edgekit_runtime.trust import opened_downgrade
from edgekit_runtime.trying import OF_FREE, Found, Unfit, free_mb, limits_of, try_out
from edgekit_runtime.verified import Rules, Vouched, open_verified, vouch

PROBATION = 300.0
SWAP_SECONDS = 180.0
"""How long the server may take to swap: it opens the model, and answers what it took before."""

CLOCK_SECONDS = 60.0
"""A clock that is so far behind the last time seen is told."""


@dataclass(frozen=True)
class Wishes:
    """How to install: trust documents to follow first, leave to go back, whether a version that was rolled back is to
    be tried again, how long it is on probation, whether a drift alarm ends that, whether it is made live at all; with
    `shadow` it is compared with the live version first."""

    trust: Sequence[bytes] = ()
    downgrade: bytes | None = None
    again: bool = False
    probation: float = PROBATION
    on_drift: bool = False
    activate: bool = True
    swap_seconds: float = SWAP_SECONDS
    shadow: Terms | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it: `outcome` is serving (a server serves it, on probation), live (it will be when one starts),
    stored, unchanged, "rolled back" (the server went back at once), shadowing (it is compared with what is live), or
    dropped (the server could not compare it); `receipt` is signed by the device."""

    outcome: str
    name: str
    version: str
    id: str
    why: str = ""
    found: Found | None = None
    receipt: dict[str, Any] = field(default_factory=dict)


Tell = Callable[[str], None]


def install(device: Device, folder: Path, wishes: Wishes, tell: Tell) -> Outcome:
    """Install the bundle in `folder`, or in the store's `incoming` the one of which only some files are there.

    Raises:
        EdgeKitError: it was refused; what was served is served on.
    """
    with device.store.installing():
        done = install_files(device, staged(device.store, folder), wishes, tell)
    if folder.resolve().parent == device.store.incoming.resolve():
        with suppress(OSError):  # another user may have put it there; gc removes it when it is old
            remove(REAL, folder)
    return done


def install_files(device: Device, files: Files, wishes: Wishes, tell: Tell) -> Outcome:
    """As `install`, of files wherever they are."""
    if wishes.trust:
        trust = device.take_trust(wishes.trust)
        tell(f"trust: serial {trust.serial if trust is not None else '-'}")
    rules = _rules(device, wishes)
    if rules.now > device.clock() + CLOCK_SECONDS:
        tell(f"clock: it is behind; taken for {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(rules.now))} UTC")
    vouched = vouch(files, rules)
    device.see_time()
    manifest, told = vouched.manifest, f"{vouched.manifest.name} {vouched.manifest.version}"
    tell(f"verified: {told}, signed by {vouched.key.name} ({vouched.key.public.fingerprint[:12]})")
    try:
        version = device.store.add(files)
    except BadBundle as error:  # the names were as they were signed: so it is the bytes of a file
        raise Untrusted(error.what, hint=error.hint, reason="touched") from error
    if not vouched.digest.startswith(version.id):  # it changed while it was read
        raise Untrusted(f"{files.where} was changed meanwhile", hint="install it again", reason="touched")
    tell(f"in the store as {version.id}")
    slot = device.store.slot(manifest.name)
    if slot is not None and slot.live == version.id:
        tell(f"{told} is live already")
        return _told_again(device, version, wishes)
    try:
        if wishes.shadow is not None:
            check_comparable(device, manifest)
        found = _tried(device, version, rules, tell)
        if wishes.shadow is not None:
            check_memory(found.peak_mb, free_mb())
    except EdgeKitError as error:
        with suppress(EdgeKitError):  # the refusal itself is what is told
            refused = _receipt(vouched, version, "refused", error.what, None)
            issue(device, replace(refused, exam=_told(error.exam if isinstance(error, Unfit) else None)))
        raise
    if not wishes.activate:
        outcome, why = "stored", ""
    elif wishes.shadow is not None:
        if wishes.on_drift:
            end_on_drift(device, manifest.name, version.id)
        outcome, why = put(device, version, wishes.shadow, wishes.again, wishes.swap_seconds)
        tell(f"{outcome}{f': {why}' if why else ''}")
    else:
        outcome, why = _activated(device, version, wishes, tell)
    receipt = _issued(device, _receipt(vouched, version, outcome, why, found), tell)
    return Outcome(outcome, manifest.name, manifest.version, version.id, why, found, receipt)


def _rules(device: Device, wishes: Wishes) -> Rules:
    """What may be installed now; with a signed leave, an older release too."""
    rules = device.rules()
    if wishes.downgrade is None:
        return rules
    leave = opened_downgrade(wishes.downgrade, rules.trust, rules.now)
    return replace(rules, floor=leave.lowered(rules.floor, rules.now))


def _tried(device: Device, version: Version, rules: Rules, tell: Tell) -> Found:
    """Verify the version once more, from the store into memory, and try just those bytes."""
    _refuse_large(version)
    held = open_verified(device.store.files(version), rules)
    try:
        facts = detect()
        limits = limits_of(version.manifest, facts["model"], rules.target is not None, free_mb())
        tell(f"trying it in a process of its own, in at most {limits.memory_mb:,.0f} MB")
        found = try_out(held.bundle, limits, tell)
        if found.exam is not None:
            with suppress(OSError):  # the receipt tells it, and a server takes it again
                keep(device.folder, exam_key(held.bundle), found.exam)
    finally:
        held.close()
    promised = "" if limits.inference_ms is None else f", at most {limits.inference_ms:.3g} promised"
    tell(f"its answers are within {found.worst:.2g} of the recorded ones ({found.tolerance:g} is allowed)")
    tell(f"it takes {found.p50_ms:.3g} ms (median; 90 %: {found.p90_ms:.3g}{promised}), {found.peak_mb:,.0f} MB")
    if found.exam is not None:
        tell(found.exam.text())
    return found


def _refuse_large(version: Version) -> None:
    """Before it is held: memory that no process maps is nobody's, and the system would end the server for it."""
    size, free = sum(entry.size for entry in version.manifest.files.values()) / 1e6, free_mb() * OF_FREE
    if size > free:
        raise Exceeded(
            f"the files of {version.name} {version.manifest.version} take {size:,.0f} MB of memory, and {free:,.0f} MB "
            "can be had",
            hint="free memory on the device, or build a smaller model",
            limit="memory",
        )


def _activated(device: Device, version: Version, wishes: Wishes, tell: Tell) -> tuple[str, str]:
    """Make it live, on trial, and have the server take it; what came of that, and why."""
    name, store = version.name, device.store
    served = running.is_served(device.folder)
    # Without a server the trial begins when one starts, in whichever start of the machine that is.
    trial = Trial(this_boot().name if served else None, device.clock(), wishes.probation)
    end_on_drift(device, name, version.id if wishes.on_drift else None)
    store.activate(name, version.id, trial, wishes.again, wishes.downgrade is not None)
    if not served:
        tell("live; no server runs: it is served, on trial, from the server's next start on")
        return "live", ""
    tell("live, on trial; telling the server")
    return _followed(device, version, wishes, tell)


def _followed(device: Device, version: Version, wishes: Wishes, tell: Tell) -> tuple[str, str]:
    """Wait until the server serves it, or went back."""
    name, store = version.name, device.store

    def settled(found: running.Running | None) -> bool:
        slot = store.slot(name)
        went_back = slot is not None and slot.live != version.id
        return found is not None and (found.versions.get(name) == version.id or went_back)

    try:
        taken, why = (
            running.wait(device.folder, settled, wishes.swap_seconds),
            "the server did not tell that it serves it",
        )
    except EdgeKitError as error:  # it is live, and that cannot be told
        taken, why = False, error.what
    if not taken:
        tell(f"not served yet: {why}")
        return "live", why
    slot = store.slot(name)
    if slot is not None and slot.live != version.id:
        why = next((one.why for one in reversed(store.history(name)) if one.id == version.id), "")
        tell(f"the server went back: {why}")
        return "rolled back", why
    tell(f"served, on trial for {wishes.probation:g} s")
    return "serving", ""


def _told_again(device: Device, version: Version, wishes: Wishes) -> Outcome:
    """It was installed before: see that the server, where one runs, serves it."""
    outcome, why = "unchanged", ""
    if running.is_served(device.folder):
        came, told = _followed(device, version, wishes, lambda line: None)
        outcome, why = (came, told) if came == "rolled back" else (outcome, why)
    return Outcome(outcome, version.name, version.manifest.version, version.id, why)


def _issued(device: Device, receipt: Receipt, tell: Tell) -> dict[str, Any]:
    """What was done is done, and told, whether or not the disk takes a receipt of it."""
    try:
        return issue(device, receipt)
    except EdgeKitError as error:
        tell(f"no receipt is kept: {error.what}")
        return {}


def _receipt(vouched: Vouched, version: Version, outcome: str, why: str, found: Found | None) -> Receipt:
    manifest, key = version.manifest, vouched.key
    facts: dict[str, Any] = {}
    if found is not None:
        facts = {one: getattr(found, one) for one in ("worst", "tolerance", "p50_ms", "p90_ms", "peak_mb")}
        facts["exam"] = _told(found.exam)
    names = (manifest.name, manifest.version, version.id, vouched.digest, key.name, key.public.fingerprint)
    return Receipt(*names, outcome, why, **facts)


def _told(exam: Scored | None) -> dict[str, Any] | None:
    return None if exam is None else asdict(exam)

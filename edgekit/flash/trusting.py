"""Whom a device will trust after a flash, and whether that lets this bundle in: told before anything is sent.

Refuses, as the device will: an unsigned or touched bundle, a key that is not trusted or was revoked, an expired
one; and to send a trust document that does not follow from the device's."""

from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.files import in_folder
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.trust import Trust, accepted, opened_downgrade, opened_first, succeed
from edgekit_runtime.verified import Rules, Vouched, chunks, vouch

from edgekit import keys
from edgekit.flash.checks import Check

TWO = "copy the newer folder of keys here, then revoke or rotate again"
APART = "keys were changed on two machines, or it is somebody else's device"
FOREIGN = "bring the folder of keys that the device follows here, and make your changes again in that one"


@dataclass(frozen=True)
class Trusting:
    """The trust documents to send, oldest first, the trust that follows from them, and the line that tells it."""

    documents: tuple[bytes, ...]
    trust: Trust | None
    check: Check


def trusting(there: bytes | None, home: Path) -> Trusting:
    """What the device trusts (`there`), and what it will once it was sent what lies in `home`."""
    try:
        ours = keys.trusted(home)
    except NotFound:
        ours = None
    if there is None:
        if ours is None:
            hint = "edgekit key new, or bring the folder of the keys here"
            return Trusting(
                (), None, Check("trust", "refusal", "the device trusts nobody yet, and no keys are here", hint)
            )
        names = ", ".join(key.name for key in ours.keys) or "nobody"
        words = f"first use: the device will trust what you do (document {ours.serial}: {names})"
        return Trusting((keys.trust_document(home),), ours, Check("trust", "ok", words))
    try:
        now = accepted(there)
    except Untrusted as error:
        return Trusting(
            (), None, Check("trust", "refusal", f"the device's own trust document: {error.what}", error.hint)
        )
    if ours is not None and (now.serial > ours.serial or (now.serial == ours.serial and now != ours)):
        words = f"the device has another document {now.serial} than yours"
        if now.serial > ours.serial:
            words = f"the device has document {now.serial}, yours is {ours.serial}"
        words += ": keys were changed on two machines"
        return Trusting((), now, Check("trust", "warning", words, TWO))
    if ours is None or ours.serial == now.serial:
        return Trusting((), now, Check("trust", "ok", f"the device has document {now.serial}"))
    if (lost := _lost(now, ours, home)) is not None:
        words = f"the device has another document {now.serial} than yours ({ours.serial}) was made from{lost}"
        return Trusting((), now, Check("trust", "refusal", f"{words}: {APART}", FOREIGN))
    try:
        documents, after = keys.trust_chain(home, now.serial), now
        for raw in documents:
            after = succeed(after, raw)
    except EdgeKitError as error:
        words = f"the device has document {now.serial} and will not take ours ({ours.serial}): {error.what}"
        return Trusting((), now, Check("trust", "refusal", words, error.hint or FOREIGN))
    words = f"the device has document {now.serial} and gets {after.serial}"
    return Trusting(tuple(documents), after, Check("trust", "ok", words))


def _lost(now: Trust, ours: Trust, home: Path) -> str | None:
    """What the device would forget with `ours`, in words, where that was not made from what it trusts `now`; else None.

    Only the root's signature and the revocations tell that to a device: it would take such a document, and refuse from
    then on what was signed by keys that the other machine made. Where our earlier documents are not here any more,
    `ours` has to know all keys at least: none is ever taken out of a document.
    """
    earlier = (accepted(raw) for raw in keys.trust_chain(home, now.serial - 1))
    same = next((one for one in earlier if one.serial == now.serial), None)
    known = {key.public for key in ours.keys} | set(ours.roots)
    gone = [key.name for key in now.keys if key.public not in known]
    gone += [f"the root {root.fingerprint[:12]}" for root in now.roots if root not in known]
    if same == now or (same is None and not gone):
        return None
    return f", which forgets {', '.join(gone)}" if gone else ""


def leave(raw: bytes, trust: Trust, manifest: Manifest, now: float) -> Check:
    """Whether the device will take a signed leave to go back for this bundle."""
    try:
        found = opened_downgrade(raw, trust, now)
    except Untrusted as error:
        return Check("leave", "refusal", error.what, error.hint)
    if found.name != manifest.name or manifest.release < found.release:
        words = (
            f"it is for {found.name} from release {found.release} on, and this is {manifest.name} {manifest.release}"
        )
        return Check("leave", "refusal", words, f"edgekit key allow {manifest.name} {manifest.release}")
    return Check("leave", "ok", f"to install {found.name} from release {found.release} on")


def verified(bundle: Path, trust: Trust | None, home: Path, now: float) -> tuple[Vouched, Check]:
    """The bundle as its signature vouches for it, every byte compared, and the line that tells it.

    Raises:
        Untrusted: it is not signed, was touched, or nobody that is trusted here signed it.
    """
    rules = Rules(trust or opened_first(keys.trust_document(home)), None, lambda name: 0, now)
    files = in_folder(bundle)
    vouched = vouch(files, rules)
    for name, entry in vouched.manifest.files.items():
        for _ in chunks(files, name, entry):
            pass
    manifest = vouched.manifest
    words = f"{manifest.name} {manifest.version}, signed by {vouched.key.name} ({vouched.key.public.fingerprint[:12]})"
    return vouched, Check("bundle", "ok", words)

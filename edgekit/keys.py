"""The keys that bundles are signed with, in a folder of their own: a root that vouches for them, and signing keys.

Refuses a name that is taken, to write over a secret that no trust document names, and to sign with a revoked key."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.manifest import PLAIN
from edgekit_runtime.trust import Downgrade, Revoked, Trust, accepted, made_downgrade, made_trust, opened_first
from edgekit_runtime.trust import Key as Trusted

from edgekit.keyfiles import alone, in_words, prepare, read, write_all

ROOT = "root"
TRUST = "trust.json"
EARLIER = "trust"
"""The folder of all trust documents, by serial."""
FIRST = "main"
"""What the first signing key is called where nobody named one."""
LONGEST_WHY = 200
LONGEST_LEAVE = 3650
"""Days."""


@dataclass(frozen=True)
class Key:
    """A key as the folder has it: `private` where its secret half lies here; `role` is root or sign."""

    name: str
    fingerprint: str
    role: str
    private: Path | None
    revoked: str | None = None


def default_home() -> Path:
    """The folder for keys: below XDG_CONFIG_HOME or ~/.config."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit" / "keys"


def listed(home: Path) -> list[Key]:
    """All keys that the trust document in `home` names, roots first; none where there is no document yet."""
    with in_words(home):
        if not (home / TRUST).exists():
            return []
        trust = _trust(home)
        here = _secrets(home, trust)
    why = {one.fingerprint: one.why for one in trust.revoked}
    roots = [Key(ROOT, key.fingerprint, "root", here.get(key.fingerprint)) for key in trust.roots]
    ours = [Key(key.name, key.public.fingerprint, "sign", here.get(key.public.fingerprint)) for key in trust.keys]
    return [replace(key, revoked=why.get(key.fingerprint)) for key in (*roots, *ours)]


def new(home: Path, name: str) -> Key:
    """Make a signing key, and the root that vouches for it where there is none yet.

    Raises:
        EdgeKitError: the name is taken or no plain word, or the root is not here.
    """
    if not PLAIN.fullmatch(name) or name == ROOT:
        raise EdgeKitError(
            f"{name[:100]!r} cannot be a key's name", hint="use letters, digits, . _ - and not the word root"
        )
    with in_words(home):
        prepare(home)
        with alone(home):
            return _new(home, name)


def rotate(home: Path, name: str) -> Key:
    """Another key in the place of `name` (or of the root); the old one is trusted until it is revoked.

    Devices take the new trust with the next flash, since the old root signs it."""
    with in_words(home), alone(home):
        trust = _trust(home)
        secret = new_private_key()
        public = public_of(secret)
        if name == ROOT:
            old = _root(home, trust)
            retired = f"{ROOT}-{public_of(old).fingerprint[:12]}.key"
            files = [(retired, old), (f"{ROOT}.key", secret)]
            _succeed(home, replace(trust, roots=(*trust.roots, public)), files, old)
        else:
            old_key = _named(home, name)
            if old_key.role != "sign":
                raise EdgeKitError(f"{name!r} is a root", hint=f"edgekit key rotate {ROOT}")
            aged = f"{old_key.name}-{old_key.fingerprint[:12]}"
            keys = tuple(replace(key, name=aged) if key.name == old_key.name else key for key in trust.keys)
            files = [(f"{old_key.name}.key", secret)]
            if old_key.private is not None:
                files.insert(0, (f"{aged}.key", read(old_key.private)))
            following = replace(trust, keys=(*keys, Trusted(old_key.name, public, None)))
            _succeed(home, following, files, _root(home, trust))
        return next(key for key in listed(home) if key.fingerprint == public.fingerprint)


def revoke(home: Path, name: str, why: str) -> Key:
    """Trust the key of that name or fingerprint no more, from the next flash on; bundles that it signed are refused.

    Raises:
        EdgeKitError: it is revoked already, or it is the last root, or `why` is no line of words.
    """
    if not 0 < len(why) <= LONGEST_WHY or not why.isprintable():
        raise EdgeKitError(f"--why must be one line of at most {LONGEST_WHY} letters", hint="say it in fewer words")
    with in_words(home), alone(home):
        trust, key = _trust(home), _named(home, name)
        if key.revoked is not None:
            raise EdgeKitError(f"{key.name} is revoked already: {key.revoked}")
        gone = {one.fingerprint for one in trust.revoked} | {key.fingerprint}
        if all(root.fingerprint in gone for root in trust.roots):
            hint = "edgekit key rotate root first"
            raise EdgeKitError("that is the only root: nothing could vouch for keys", hint=hint)
        following = replace(trust, revoked=(*trust.revoked, Revoked(key.fingerprint, why, int(time.time()))))
        _succeed(home, following, [], _root(home, trust, following))
        return next(one for one in listed(home) if one.fingerprint == key.fingerprint)


def signing_key(home: Path, name: str | None = None, tell: Callable[[str], None] = lambda words: None) -> bytes:
    """The secret of the key to sign with, PEM: `name`, or the only or first one; made where there is none at all.
    One that was rotated away signs where there is no other.

    Raises:
        NotFound: there is no such key here.
        EdgeKitError: it is revoked, or others can read it.
    """
    if name is None and not listed(home):
        with in_words(home):
            prepare(home)
            with alone(home):
                made = None if listed(home) else _new(home, FIRST)  # another build may have made it meanwhile
        if made is not None:
            tell(f"a key to sign bundles with was made, {made.private} (edgekit key --help)")
    usable = [key for key in listed(home) if key.role == "sign" and key.private is not None and key.revoked is None]
    if name is not None:
        key = _named(home, name)
        if key.revoked is not None:
            raise EdgeKitError(f"key {key.name} is revoked: {key.revoked}", hint="edgekit key new, or --key NAME")
        if key.role != "sign":
            raise EdgeKitError(f"{name!r} is a root, which signs no bundles", hint="see edgekit key list")
        usable = [one for one in usable if one == key]
    if not usable:
        raise NotFound("no key to sign with lies here", hint="edgekit key new NAME, or bring NAME.key here")
    current = [key for key in usable if not key.name.endswith(f"-{key.fingerprint[:12]}")] or usable
    chosen = next((key for key in current if key.name == FIRST), current[0])
    assert chosen.private is not None
    with in_words(home):
        return read(chosen.private)


def allow(home: Path, model: str, release: int, days: float, name: str | None = None) -> bytes:
    """The signed leave to install releases of `model` from `release` on for so many days, whatever a device's floor.

    Raises:
        EdgeKitError: that is no model's name, or no number of days; or as `signing_key` raises, for a key that signs.
    """
    if not PLAIN.fullmatch(model):
        raise EdgeKitError(
            f"{model[:100]!r} cannot be a model's name", hint="say the name in the bundle's manifest.json"
        )
    if not 0 < days <= LONGEST_LEAVE:  # what is no number is not between them
        raise EdgeKitError(f"{days} is no number of days for a leave", hint=f"say one up to {LONGEST_LEAVE}")
    if not listed(home):
        raise NotFound(f"no keys in {home}", hint="bring the folder of the keys that the devices trust")
    return made_downgrade(Downgrade(model, release, int(time.time() + days * 86400)), signing_key(home, name))


def trust_document(home: Path) -> bytes:
    """What a device is to trust, as it lies in `home`."""
    with in_words(home):
        _trust(home)
        return (home / TRUST).read_bytes()


def trust_chain(home: Path, after: int) -> list[bytes]:
    """The trust documents with a greater serial than `after` up to that in force, oldest first.

    A device takes them in turn: the root that signed the newest may be one that only an earlier one brings. Where the
    earlier ones are not here any more, there is the newest alone."""
    with in_words(home):
        newest = _trust(home).serial
        found = {newest: (home / TRUST).read_bytes()}
        for path in (home / EARLIER).glob("*.json"):
            if path.stem.isdecimal() and after < int(path.stem) < newest and _is_document(path):
                found[int(path.stem)] = path.read_bytes()
    return [found[serial] for serial in sorted(found) if serial > after]


def trusted(home: Path) -> Trust:
    """The same, read."""
    return _trust(home)


def _new(home: Path, name: str) -> Key:
    """The caller holds the folder."""
    if name in {key.name for key in listed(home)}:
        raise EdgeKitError(f"there is a key {name} already", hint=f"say edgekit key rotate {name}, or another name")
    _refuse_to_lose(home, name)
    secret, files = new_private_key(), []
    if (home / TRUST).exists():
        before = _trust(home)
        root = _root(home, before)
    else:
        root = new_private_key()
        before = Trust(0, (public_of(root),), (), (), 0)
        files.append((f"{ROOT}.key", root))
    key = Trusted(name, public_of(secret), None)
    _succeed(home, replace(before, keys=(*before.keys, key)), [*files, (f"{name}.key", secret)], root)
    return _named(home, name)


def _refuse_to_lose(home: Path, name: str) -> None:
    """Raise where a secret would be written over: a root that came without its trust document, or anyone's NAME.key."""
    if not (home / TRUST).exists() and (home / f"{ROOT}.key").exists():
        raise EdgeKitError(
            f"{home} has a {ROOT}.key, and no {TRUST} that says what it vouches for",
            hint=f"bring {TRUST} and the folder {EARLIER} here too; or, if it vouched for nothing, move it away",
        )
    if (place := home / f"{name}.key").exists():
        raise EdgeKitError(f"{place} is there already", hint="move it away, or say another name")


def _trust(home: Path) -> Trust:
    try:
        return opened_first((home / TRUST).read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"no keys in {home}", hint="edgekit key new NAME") from error
    except Untrusted as error:
        hint = f"put back a whole one: the newest of {home / EARLIER}, or that of your other machine"
        raise Untrusted(f"{home / TRUST}: {error.what}", hint=hint, reason=error.reason) from error


def _is_document(path: Path) -> bool:
    """Whether it is the trust document of the serial that it is named by."""
    try:
        return accepted(path.read_bytes()).serial == int(path.stem)
    except Untrusted:
        return False


def _secrets(home: Path, trust: Trust) -> dict[str, Path]:
    """Where the secrets lie, by fingerprint. What else is called .key in the folder is not ours, and is left alone."""
    names = {ROOT, *(key.name for key in trust.keys)}
    found: dict[str, Path] = {}
    for path in sorted(home.glob("*.key")):
        try:
            found[public_of(read(path)).fingerprint] = path
        except (EdgeKitError, OSError) as error:
            if path.stem in names:
                told = error.what if isinstance(error, EdgeKitError) else str(error.strerror)
                told = told if str(path) in told else f"{path}: {told}"
                raise EdgeKitError(told, hint=getattr(error, "hint", "") or "it belongs to another user") from error
    return found


def _named(home: Path, name: str) -> Key:
    """The key of that name, or whose fingerprint begins so."""
    every = listed(home)
    found = [key for key in every if key.name == name and (key.revoked is None or key.role == "sign")]
    found = found or [key for key in every if len(name) >= 8 and key.fingerprint.startswith(name)]
    if len(found) != 1:
        told = ", ".join(f"{key.name} ({key.fingerprint[:12]})" for key in found or every) or "none"
        raise NotFound(f"{'several keys are' if found else 'no key is'} called {name!r}", hint=f"here are: {told}")
    return found[0]


def _root(home: Path, *trusts: Trust) -> bytes:
    """The secret of a root that all of `trusts` let live, whatever its file is called."""
    live = set.intersection(*(set(trust.live_roots()) for trust in trusts))
    found = sorted(path for fingerprint, path in _secrets(home, trusts[0]).items() if fingerprint in live)
    if not found:
        place = home / f"{ROOT}.key"
        wrong, away = f"{place} is no root that is trusted", f"the root's secret is not here ({place})"
        told = wrong if place.exists() else away
        raise NotFound(told, hint="bring it back for this, then take it away again")
    return read(next((path for path in found if path.stem == ROOT), found[0]))


def _succeed(home: Path, trust: Trust, secrets: Sequence[tuple[str, bytes]], root: bytes) -> None:
    """Write the secrets, then the next trust document, signed by the root: all of it, or nothing."""
    following = replace(trust, serial=trust.serial + 1, made=int(time.time()))
    raw = made_trust(following, root)
    (home / EARLIER).mkdir(exist_ok=True)
    files = [(home / name, secret) for name, secret in secrets]
    files += [((home / name).with_suffix(".pub"), public_of(secret).pem) for name, secret in secrets]
    write_all(home / TRUST, [*files, (home / EARLIER / f"{following.serial}.json", raw), (home / TRUST, raw)])

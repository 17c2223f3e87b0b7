"""The keys that bundles are signed with, in a folder of their own: a root that vouches for them, and signing keys.

Refuses a name that is taken, to sign with a key that is revoked, and a key that others may read."""

import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.manifest import PLAIN
from edgekit_runtime.trust import Key as Trusted
from edgekit_runtime.trust import Revoked, Trust, made_trust, opened_first

ROOT = "root"
TRUST = "trust.json"
EARLIER = "trust"
"""The folder of all trust documents, by serial."""
FIRST = "main"
"""What the first signing key is called where nobody named one."""


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
    if not (home / TRUST).is_file():
        return []
    trust = _trust(home)
    why = {one.fingerprint: one.why for one in trust.revoked}
    here = {public_of(_read(path)).fingerprint: path for path in sorted(home.glob("*.key"))}
    roots = [Key(ROOT, key.fingerprint, "root", here.get(key.fingerprint)) for key in trust.roots]
    ours = [Key(key.name, key.public.fingerprint, "sign", here.get(key.public.fingerprint)) for key in trust.keys]
    return [replace(key, revoked=why.get(key.fingerprint)) for key in (*roots, *ours)]


def new(home: Path, name: str) -> Key:
    """Make a signing key, and the root that vouches for it where there is none yet.

    Raises:
        EdgeKitError: the name is taken or no plain word, or the root is not here.
    """
    if not PLAIN.fullmatch(name) or name == ROOT:
        raise EdgeKitError(f"{name!r} cannot be a key's name", hint="use letters, digits, . _ - and not the word root")
    if name in {key.name for key in listed(home)}:
        raise EdgeKitError(f"there is a key {name} already", hint=f"say edgekit key rotate {name}, or another name")
    first = not (home / TRUST).is_file()
    if first:
        _prepare(home)
        _write(home / f"{ROOT}.key", new_private_key())
    secret = new_private_key()
    key = Trusted(name, public_of(secret), None)
    before = Trust(0, (public_of(_root(home)),), (), (), 0) if first else _trust(home)
    _succeed(home, replace(before, keys=(*before.keys, key)), [(f"{name}.key", secret)])
    return _named(home, name)


def rotate(home: Path, name: str) -> Key:
    """Another key in the place of `name` (or of the root); the old one is trusted until it is revoked.

    Devices take the new trust with the next flash, since the old root signs it."""
    trust = _trust(home)
    secret = new_private_key()
    if name == ROOT:
        old = _root(home)
        retired = home / f"{ROOT}-{public_of(old).fingerprint[:12]}.key"
        changed = replace(trust, roots=(*trust.roots, public_of(secret)))
        _succeed(home, changed, [(retired.name, old), (f"{ROOT}.key", secret)], signer=old)
        return next(key for key in listed(home) if key.fingerprint == public_of(secret).fingerprint)
    old_key = _named(home, name)
    aged = f"{name}-{old_key.fingerprint[:12]}"
    keys = tuple(replace(key, name=aged) if key.name == name else key for key in trust.keys)
    files = [(f"{name}.key", secret)]
    if old_key.private is not None:
        files.insert(0, (f"{aged}.key", _read(old_key.private)))
    _succeed(home, replace(trust, keys=(*keys, Trusted(name, public_of(secret), None))), files)
    return _named(home, name)


def revoke(home: Path, name: str, why: str) -> Key:
    """Trust the key of that name or fingerprint no more, from the next flash on; bundles that it signed are refused.

    Raises:
        EdgeKitError: it is revoked already, or it is the last root.
    """
    trust, key = _trust(home), _named(home, name)
    if key.revoked is not None:
        raise EdgeKitError(f"{key.name} is revoked already: {key.revoked}")
    gone = {one.fingerprint for one in trust.revoked} | {key.fingerprint}
    if all(root.fingerprint in gone for root in trust.roots):
        raise EdgeKitError("that is the only root: nothing could vouch for keys", hint="edgekit key rotate root first")
    stone = Revoked(key.fingerprint, why, int(time.time()))
    _succeed(home, replace(trust, revoked=(*trust.revoked, stone)), [])
    return next(one for one in listed(home) if one.fingerprint == key.fingerprint)


def signing_key(home: Path, name: str | None = None, tell: Callable[[str], None] = lambda words: None) -> bytes:
    """The secret of the key to sign with, PEM: `name`, or the only or first one; made where there is none at all.

    Raises:
        NotFound: there is no such key here.
        EdgeKitError: it is revoked, or others can read it.
    """
    if name is None and not listed(home):
        key = new(home, FIRST)
        tell(f"a key to sign bundles with was made: {key.private} (edgekit key --help)")
    usable = [key for key in listed(home) if key.role == "sign" and key.private is not None and key.revoked is None]
    if name is not None:
        key = _named(home, name)
        if key.revoked is not None:
            raise EdgeKitError(f"key {key.name} is revoked: {key.revoked}", hint="edgekit key new, or --key NAME")
        usable = [one for one in usable if one == key]
    if not usable:
        raise NotFound("no key to sign with lies here", hint="edgekit key new NAME, or bring NAME.key here")
    chosen = next((key for key in usable if key.name == FIRST), usable[0])
    assert chosen.private is not None
    return _read(chosen.private)


def trust_document(home: Path) -> bytes:
    """What a device is to trust, as it lies in `home`."""
    _trust(home)
    return (home / TRUST).read_bytes()


def trust_chain(home: Path, after: int) -> list[bytes]:
    """The trust documents with a greater serial than `after`, oldest first.

    A device takes them in turn: the root that signed the newest may be one that only an earlier one brings."""
    _trust(home)
    found = [(int(path.stem), path) for path in (home / EARLIER).glob("*.json") if path.stem.isdigit()]
    return [path.read_bytes() for serial, path in sorted(found) if serial > after]


def trusted(home: Path) -> Trust:
    """The same, read."""
    return _trust(home)


def _trust(home: Path) -> Trust:
    try:
        return opened_first((home / TRUST).read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"no keys in {home}", hint="edgekit key new NAME") from error


def _named(home: Path, name: str) -> Key:
    """The key of that name, or whose fingerprint begins so."""
    every = listed(home)
    found = [key for key in every if key.name == name and (key.revoked is None or key.role == "sign")]
    found = found or [key for key in every if len(name) >= 8 and key.fingerprint.startswith(name)]
    if len(found) != 1:
        told = ", ".join(f"{key.name} ({key.fingerprint[:12]})" for key in found or every) or "none"
        raise NotFound(f"{'several keys are' if found else 'no key is'} called {name!r}", hint=f"here are: {told}")
    return found[0]


def _root(home: Path) -> bytes:
    path = home / f"{ROOT}.key"
    if not path.is_file():
        raise NotFound(
            f"the root's secret is not here ({path})", hint="bring it back for this, then take it away again"
        )
    return _read(path)


def _succeed(home: Path, trust: Trust, files: Sequence[tuple[str, bytes]], signer: bytes | None = None) -> None:
    """Write the secrets, then the next trust document, signed by the root."""
    following = replace(trust, serial=trust.serial + 1, made=int(time.time()))
    raw = made_trust(following, signer or _root(home))
    for name, secret in files:
        _write(home / name, secret)
        (home / name).with_suffix(".pub").write_bytes(public_of(secret).pem)
    (home / EARLIER).mkdir(exist_ok=True)
    _write(home / EARLIER / f"{following.serial}.json", raw)
    _write(home / TRUST, raw)


def _prepare(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)


def _read(path: Path) -> bytes:
    """A secret, which nobody else may be able to read."""
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EdgeKitError(f"{path} can be read by others", hint=f"chmod 600 {path}, and think of rotating the key")
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    """Whole or as it was, for its owner only."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def to_json(key: Key) -> dict[str, str | None]:
    """A key for machines; its secret stays where it is."""
    where = None if key.private is None else str(key.private)
    return {
        "name": key.name,
        "role": key.role,
        "fingerprint": key.fingerprint,
        "private": where,
        "revoked": key.revoked,
    }


def shown(keys: Sequence[Key]) -> str:
    """The keys as JSON text."""
    return json.dumps([to_json(key) for key in keys], indent=1)

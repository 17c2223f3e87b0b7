"""Whom a device trusts: root keys, the keys that they let sign, the keys that were revoked; and how that may change.

Refuses a change that no trusted root signed, an older one, one that forgets a revocation, one that leaves no root."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.dsse import a_text, an_object, only, parse_envelope, read_json
from edgekit_runtime.errors import Untrusted
from edgekit_runtime.files import SHA256
from edgekit_runtime.keypair import PublicKey, envelope, opened, public_of, read_public

SCHEMA = 1
TRUST = "application/vnd.edgekit.trust+json"
DOWNGRADE = "application/vnd.edgekit.downgrade+json"
MAX_DOCUMENT = 2**20
MAX_LISTED = 1000
"""Roots, keys or revocations in one document."""
LAST = 2**53
"""No serial and no second is beyond it."""


@dataclass(frozen=True)
class Key:
    """A key that may sign bundles, under the name its owner gave it; `until` is a Unix second, or None for no end."""

    name: str
    public: PublicKey
    until: int | None = None


@dataclass(frozen=True)
class Revoked:
    """A key, by fingerprint, that is never trusted again; `when` is a Unix second."""

    fingerprint: str
    why: str
    when: int


@dataclass(frozen=True)
class Trust:
    """The trust of one moment. Each change has a greater `serial`."""

    serial: int
    roots: tuple[PublicKey, ...]
    keys: tuple[Key, ...] = ()
    revoked: tuple[Revoked, ...] = ()
    made: int = 0

    def signer(self, fingerprint: str, now: float) -> Key:
        """The key that may sign bundles at `now`.

        Raises:
            Untrusted: it is revoked, expired, or was never trusted.
        """
        self.refuse_revoked(fingerprint)
        for key in self.keys:
            if key.public.fingerprint == fingerprint:
                if key.until is not None and now > key.until:
                    raise Untrusted(
                        f"the key {key.name!r} ({fingerprint[:12]}) was for use until {key.until}, in Unix time",
                        hint="build it again with a key that is in use (edgekit key list), or bring newer trust",
                        reason="expired",
                    )
                return key
        raise Untrusted(
            f"signed by {fingerprint[:12]!a}, a key that is not trusted here",
            hint="put a trust document that lists it in place: edgekit key trust",
            reason="wrong_key",
        )

    def refuse_revoked(self, fingerprint: str) -> None:
        """Raise `Untrusted` if this key was revoked."""
        for one in self.revoked:
            if one.fingerprint == fingerprint:
                raise Untrusted(
                    f"signed by {fingerprint[:12]}, a key that was revoked: {one.why!a}",
                    hint="build it again with a key that is in use (edgekit key list)",
                    reason="revoked",
                )

    def live_roots(self) -> dict[str, PublicKey]:
        """The roots that are not revoked, by fingerprint."""
        gone = {one.fingerprint for one in self.revoked}
        return {root.fingerprint: root for root in self.roots if root.fingerprint not in gone}


@dataclass(frozen=True)
class Downgrade:
    """Leave to install releases of `name` from `release` on, below a device's floor, until a Unix second."""

    name: str
    release: int
    until: int

    def lowered(self, floor: Callable[[str], int], now: float) -> Callable[[str], int]:
        """The floor with this leave."""
        return lambda name: min(floor(name), self.release) if name == self.name and now <= self.until else floor(name)


def opened_first(raw: bytes) -> Trust:
    """The trust in a document that one of its own roots signed: for first use, by whoever brought it there.

    Raises:
        Untrusted: it does not read, or none of its own roots signed it.
    """
    document = _document(raw)
    claimed = _parse(_payload(document))
    return _parse(_opened(document, claimed.live_roots()))


def succeed(current: Trust, raw: bytes) -> Trust:
    """The trust in a document that a root of `current` signed, which it does not itself revoke.

    Raises:
        Untrusted: nobody trusted signed it, it is not newer, or it forgets a revocation. `current` then stays.
    """
    document = _document(raw)
    after = _parse(_opened(document, current.live_roots()))
    if parse_envelope(document).signatures[0].key in {one.fingerprint for one in after.revoked}:
        raise _bad("it revokes the root that signed it", "sign it with another root")
    if after.serial <= current.serial:
        raise _bad(f"its serial {after.serial} is not greater than {current.serial}", "put the newest one in place")
    kept = {one.fingerprint for one in after.revoked}
    if forgotten := [one.fingerprint[:12] for one in current.revoked if one.fingerprint not in kept]:
        raise _bad(f"it forgets that {', '.join(forgotten)} was revoked", "make it from the newest one")
    return after


def accepted(raw: bytes) -> Trust:
    """The trust in a document that `opened_first` or `succeed` took before and only root could change since: its
    signature, by a root that may be gone now, is not verified again."""
    return _parse(_payload(_document(raw)))


def made_trust(trust: Trust, root_pem: bytes) -> bytes:
    """The document of `trust`, signed by a root's private key.

    Raises:
        EdgeKitError: no device would read it.
    """
    payload = {
        "schema": SCHEMA,
        "serial": trust.serial,
        "made": trust.made,
        "roots": [root.pem.decode() for root in trust.roots],
        "keys": [{"name": key.name, "pem": key.public.pem.decode(), "until": key.until} for key in trust.keys],
        "revoked": [{"fingerprint": one.fingerprint, "why": one.why, "when": one.when} for one in trust.revoked],
    }
    raw = json.dumps(payload).encode()
    _parse(raw)
    trust.refuse_revoked(public_of(root_pem).fingerprint)
    return json.dumps(envelope(root_pem, TRUST, raw), indent=1).encode() + b"\n"


def made_downgrade(downgrade: Downgrade, private_pem: bytes) -> bytes:
    """The document that gives this leave, signed by a key that may sign bundles."""
    raw = json.dumps({"name": downgrade.name, "release": downgrade.release, "until": downgrade.until}).encode()
    return json.dumps(envelope(private_pem, DOWNGRADE, raw), indent=1).encode() + b"\n"


def opened_downgrade(raw: bytes, trust: Trust, now: float) -> Downgrade:
    """The leave in a document that a key trusted at `now` signed.

    Raises:
        Untrusted: it does not read, nobody trusted signed it, or its time is over.
    """
    document = read_json(raw, MAX_DOCUMENT)
    key = trust.signer(parse_envelope(document).signatures[0].key, now).public
    fields = an_object(read_json(opened(document, {key.fingerprint: key}, DOWNGRADE), MAX_DOCUMENT), "the leave")
    only(fields, {"name", "release", "until"})
    leave = Downgrade(a_text(fields, "name"), _count(fields, "release"), _count(fields, "until"))
    if now > leave.until:
        raise Untrusted(
            f"the leave to go back with {leave.name!a} ended at {leave.until}, in Unix time",
            hint="have a new one signed",
            reason="expired",
        )
    return leave


def _document(raw: bytes) -> object:
    try:
        return read_json(raw, MAX_DOCUMENT)
    except Untrusted as error:
        raise _bad(error.what) from error


def _payload(document: object) -> bytes:
    """What a document says, whoever signed it."""
    try:
        found = parse_envelope(document)
    except Untrusted as error:
        raise _bad(error.what) from error
    if found.payload_type != TRUST:
        raise _bad(f"it is {found.payload_type!a}")
    return found.payload


def _opened(document: object, roots: Mapping[str, PublicKey]) -> bytes:
    """What a document says that one of `roots` signed; all that is wrong with it is "trust"."""
    try:
        return opened(document, roots, TRUST)
    except Untrusted as error:
        raise _bad(error.what, error.hint) from error


def _parse(payload: bytes) -> Trust:
    try:
        fields = an_object(read_json(payload, MAX_DOCUMENT, 8 * MAX_LISTED), "the document")
        if fields.get("schema") != SCHEMA or isinstance(fields["schema"], bool):
            raise Untrusted(f"its schema is {fields.get('schema')!r}; this runtime reads {SCHEMA}")
        only(fields, {"schema", "serial", "made", "roots", "keys", "revoked"})
        trust = Trust(
            _count(fields, "serial"),
            tuple(_public(pem) for pem in _list(fields, "roots")),
            tuple(map(_key, _list(fields, "keys"))),
            tuple(map(_revoked, _list(fields, "revoked"))),
            _count(fields, "made"),
        )
        if not trust.live_roots():
            raise Untrusted("it leaves no root that is trusted")
        for names in ([key.public for key in trust.keys], [key.name for key in trust.keys], trust.roots):
            if len(set(names)) != len(names):
                raise Untrusted("it lists a key or a name twice")
    except Untrusted as error:
        raise _bad(error.what, error.hint) from error
    return trust


def _key(raw: object) -> Key:
    fields = an_object(raw, "a key")
    only(fields, {"name", "pem", "until"})
    until = None if fields.get("until") is None else _count(fields, "until")
    return Key(_words(fields, "name"), _public(fields.get("pem")), until)


def _revoked(raw: object) -> Revoked:
    fields = an_object(raw, "a revocation")
    only(fields, {"fingerprint", "why", "when"})
    fingerprint = a_text(fields, "fingerprint")
    if not SHA256.fullmatch(fingerprint):  # one that no key has would revoke nothing
        raise Untrusted("a revocation's fingerprint is not 64 hex digits in lower case")
    return Revoked(fingerprint, _words(fields, "why"), _count(fields, "when"))


def _words(fields: Mapping[str, Any], key: str) -> str:
    """A text that can be shown as it is."""
    if not a_text(fields, key).isprintable():
        raise Untrusted(f"{key} has letters that cannot be printed")
    return a_text(fields, key)


def _public(pem: object) -> PublicKey:
    if not isinstance(pem, str):
        raise Untrusted("a key is no text")
    try:
        return read_public(pem.encode())
    except UnicodeEncodeError as error:
        raise Untrusted("a key is no text") from error


def _list(fields: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = fields.get(key)
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise Untrusted(f"{key} is no list of at most {MAX_LISTED}")
    return value


def _count(fields: Mapping[str, Any], key: str) -> int:
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LAST:
        raise Untrusted(f"{key} is no whole number from 0 to {LAST}")
    return value


def _bad(what: str, hint: str = "") -> Untrusted:
    return Untrusted(f"the trust document is refused: {what}", hint=hint, reason="trust")

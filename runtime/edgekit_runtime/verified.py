"""A bundle from bytes that nobody vouches for yet: signature, rules, digests; loaded from the bytes that were hashed.

Refuses all that is not verified, each in its own way (`Untrusted.reason`); no outcome but success opens anything."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgekit_runtime.bundle import MANIFEST, MAX_MANIFEST, Bundle, checked, fitting, parse_manifest, refuse_other_names
from edgekit_runtime.encrypted import decrypt, unwrap
from edgekit_runtime.errors import BadBundle, Untrusted
from edgekit_runtime.files import Files
from edgekit_runtime.held import View
from edgekit_runtime.manifest import FileEntry, Manifest
from edgekit_runtime.signature import MAX_FILE, SIGNATURE, Signed, parse_signature
from edgekit_runtime.trust import Key, Trust


@dataclass(frozen=True)
class Rules:
    """What is let in: signed by a key of `trust`, for `target` (None: for any), of at least the release that `floor`
    says for its name, and not expired at `now`.

    `now` is in Unix seconds, and the caller's to choose well: the greater of the clock and the last time seen. A device
    without a battery starts in 1970, where nothing has expired; the last time seen, kept beside the floor, still holds.
    `device_key` is the device's own private key, for bundles that are encrypted for it.
    """

    trust: Trust
    target: str | None
    floor: Callable[[str], int]
    now: float
    device_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Vouched:
    """What the signature vouches for. No file but the manifest was read: `chunks` reads the others against it."""

    manifest: Manifest
    raw_manifest: bytes
    raw_signature: bytes
    key: Key

    @property
    def digest(self) -> str:
        """Hex SHA-256 of manifest.json, which lists all else: the bundle's identity."""
        return hashlib.sha256(self.raw_manifest).hexdigest()


@dataclass(frozen=True)
class Held:
    """A verified bundle, in memory: what it is opened from can not change, and lasts until `close`.

    `signed_by` is the name of the key; `digest` the hex SHA-256 of manifest.json.
    """

    bundle: Bundle
    signed_by: str
    digest: str
    close: Callable[[], None]


def open_verified(files: Files, rules: Rules) -> Held:
    """The bundle in `files`, verified by `rules`; it is opened from the very bytes that were verified.

    Raises:
        Untrusted: it was not verified; says why.
        EdgeKitError: it does not fit into memory.
    """
    vouched = vouch(files, rules)
    plain, view = _beside_a_model(vouched.manifest), View()
    try:
        read = _reader(files, vouched.manifest, rules)
        for name in vouched.manifest.files:
            (view.add_plain if name in plain else view.add)(name, read(name))
        view.add(MANIFEST, [vouched.raw_manifest])
        bundle = _readable(fitting(Bundle(view.folder, replace(vouched.manifest, encrypted=None))))
    except BaseException:
        view.close()
        raise
    return Held(bundle, vouched.key.name, vouched.digest, view.close)


def _readable(bundle: Bundle) -> Bundle:
    """The bundle, if a server could read what it tells of the model; else it would be live before that is known."""
    bundle.labels()
    bundle.baseline()
    return bundle


def _reader(files: Files, manifest: Manifest, rules: Rules) -> Callable[[str], Iterator[bytes]]:
    """Gives the verified bytes of a file, in clear where they are encrypted for this very device."""
    found = manifest.encrypted
    if found is None:
        return lambda name: chunks(files, name, manifest.files[name])
    if rules.device_key is None:
        raise Untrusted(
            f"{manifest.name} {manifest.version} is encrypted for the device {found.device[:12]}",
            hint="install it on that device",
            reason="other_device",
        )
    key = unwrap(found, rules.device_key, manifest.name, manifest.version)

    def read(name: str) -> Iterator[bytes]:
        stored = chunks(files, name, manifest.files[name])
        return stored if name not in found.files else decrypt(key, name, found.files[name], stored)

    return read


def vouch(files: Files, rules: Rules) -> Vouched:
    """What the signature beside the manifest vouches for, if `rules` let it in.

    Raises:
        Untrusted: there is none, it is not by a key that may, or does not fit what lies there.
    """
    where = files.where
    if SIGNATURE not in files.names:
        hint = "sign it: build it with a key (edgekit key new)"
        raise Untrusted(f"{where} is not signed", hint=hint, reason="unsigned")
    raw = _whole(files, SIGNATURE, MAX_FILE)
    claim = parse_signature(raw)
    key = rules.trust.signer(claim.key, rules.now)
    signed = claim.proven(key.public)
    refuse_other_names(where, signed.files.keys() | {MANIFEST}, files.names - {SIGNATURE})
    manifest_raw = _whole(files, MANIFEST, MAX_MANIFEST)
    if len(manifest_raw) > MAX_MANIFEST or hashlib.sha256(manifest_raw).hexdigest() != signed.files.get(MANIFEST):
        raise Untrusted(
            f"{where}: {MANIFEST} was touched after it was signed", hint="get the bundle again", reason="touched"
        )
    manifest = _manifest(manifest_raw, where)
    _refuse_other_digests(where, manifest.files, signed)
    _refuse_by_rule(manifest, rules)
    return Vouched(manifest, manifest_raw, raw, key)


def chunks(files: Files, name: str, entry: FileEntry) -> Iterator[bytes]:
    """The bytes of one file in pieces, good only if this ends without raising. Raises `Untrusted` where they are not
    what was signed."""
    try:
        with files.open(name) as file:
            yield from checked(f"{files.where}: {name}", file, entry)
    except OSError as error:
        raise _unread(files.where, name, error) from error


def _whole(files: Files, name: str, limit: int) -> bytes:
    """A small file. Of one that is larger than `limit` comes a byte more than that: no digest will fit it."""
    try:
        with files.open(name) as file:
            return file.read(limit + 1)
    except OSError as error:
        raise _unread(files.where, name, error) from error


def _manifest(raw: bytes, where: str) -> Manifest:
    try:
        return parse_manifest(raw, f"{where}: {MANIFEST}")
    except BadBundle as error:  # signed, so not touched: made by another version of EdgeKit
        raise Untrusted(f"{where}: {error.what}", hint=error.hint, reason="schema") from error


def _refuse_other_digests(where: str, listed: Mapping[str, FileEntry], signed: Signed) -> None:
    """The manifest's list and the signature's must be the same."""
    told = {name: entry.sha256 for name, entry in listed.items()}
    if told != {name: digest for name, digest in signed.files.items() if name != MANIFEST}:
        raise Untrusted(
            f"{where}: {MANIFEST} and {SIGNATURE} do not list the same files", hint="build and sign the bundle again"
        )


def _refuse_by_rule(manifest: Manifest, rules: Rules) -> None:
    told, least = f"{manifest.name} {manifest.version}", rules.floor(manifest.name)
    if rules.target is not None and manifest.target != rules.target:
        raise Untrusted(
            f"{told} was built for {manifest.target}; this device is {rules.target}",
            hint=f"build it with --target {rules.target}",
            reason="other_target",
        )
    if manifest.expires is not None and rules.now > manifest.expires:
        raise Untrusted(
            f"{told} was for use until {manifest.expires}, in Unix time; it is {rules.now:.0f}",
            hint="install a newer version",
            reason="expired",
        )
    if manifest.release < least:
        raise Untrusted(
            f"{told} is release {manifest.release}; this device takes {least} or later",
            hint="install a newer version, or have a leave to go back signed",
            reason="downgrade",
        )


def _beside_a_model(manifest: Manifest) -> set[str]:
    """Files that ONNX Runtime may open by itself, as weights beside a model: it follows no link out of a folder."""
    shadow, golden = manifest.shadow, manifest.golden
    if "onnx" not in (manifest.engine, shadow.engine if shadow else None):
        return set()
    ours = {manifest.entry, manifest.labels, manifest.baseline}
    ours |= {golden.file if golden else None, shadow.entry if shadow else None}
    ours |= {manifest.exam.file if manifest.exam else None}
    return set(manifest.files) - ours


def _unread(where: str, name: str, error: OSError) -> Untrusted:
    return Untrusted(
        f"{where}: {name} does not read: {error.strerror or error}", hint="copy the bundle again", reason="missing"
    )

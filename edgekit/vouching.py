"""Who signed a bundle, by the trust document that lies here: told before the bundle is used or given on.

Refuses a signature that is broken, and one by a key that was revoked or whose time is over."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.bundle import describe, is_bundle
from edgekit_runtime.dsse import bad
from edgekit_runtime.errors import NotFound, Untrusted
from edgekit_runtime.files import in_folder
from edgekit_runtime.printable import safe
from edgekit_runtime.signature import MAX_FILE, SIGNATURE, parse_signature

from edgekit import keys

SHOWN = 12


@dataclass(frozen=True)
class Signer:
    """The key that a signature names: `name` where it is trusted here and the signature was verified; else nobody knows
    who made the bundle. No `key`: it is not signed at all."""

    key: str | None = None
    name: str | None = None

    @property
    def words(self) -> str:
        """For a person."""
        if self.key is None:
            return "not signed"
        if self.name is None:
            return f"signed by {safe(self.key[:SHOWN])}, a key that nobody here vouches for (edgekit key list)"
        return f"signed by {self.name} ({self.key[:SHOWN]}), a key that you trust"


def signer(raw: bytes | None, digests: Mapping[str, str], home: Path | None) -> Signer:
    """By whom the files with these hex SHA-256 are signed; `raw` is model.sig, whose own digest is not asked for.

    `home` is the folder with the trust document; where there is none, nobody is trusted.

    Raises:
        Untrusted: the signature does not read, is broken, or is by a key that was revoked.
    """
    if raw is None:
        return Signer()
    if len(raw) > MAX_FILE:
        raise bad(f"more than {MAX_FILE} bytes")
    claim = parse_signature(raw)
    try:
        if home is None:
            return Signer(claim.key)
        trust = keys.trusted(home)
    except NotFound:
        return Signer(claim.key)
    try:
        key = trust.signer(claim.key, time.time())
    except Untrusted as error:
        if error.reason != "wrong_key":
            raise
        return Signer(claim.key)
    if claim.proven(key.public).files != {name: told for name, told in digests.items() if name != SIGNATURE}:
        raise Untrusted(f"{SIGNATURE} is of other files than these", hint="do not use this bundle")
    return Signer(claim.key, key.name)


def signer_of(folder: Path, home: Path) -> Signer:
    """The same for a bundle that lies here."""
    if not is_bundle(folder):
        raise NotFound(f"no bundle at {folder}", hint="name a folder that `edgekit build` made")
    names, raw = in_folder(folder).names, None
    if SIGNATURE in names:
        with (folder / SIGNATURE).open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    return signer(raw, {name: describe(folder / name).sha256 for name in names}, home)

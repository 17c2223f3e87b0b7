"""Who signed a bundle, by a trust document: for a person who looks at it, before anything is done with it.

Refuses a trust document that is none; a signature that does not read, or is of a revoked key, is told as what it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgekit_runtime.bundle import MANIFEST, Bundle, describe
from edgekit_runtime.device import Device
from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.files import open_plain
from edgekit_runtime.printable import safe
from edgekit_runtime.signature import MAX_FILE, SIGNATURE, parse_signature
from edgekit_runtime.trust import MAX_DOCUMENT, Trust, opened_first

State = Literal["unsigned", "trusted", "expired", "revoked", "unknown", "broken"]
SHOWN = 12


@dataclass(frozen=True)
class Signer:
    """What is known of who signed a bundle. `key` is the fingerprint that the signature names, `name` what the trust
    document calls that key: that it signed these very files was proven where the state is trusted or expired, and is a
    mere claim elsewhere. `why` says what is wrong with it."""

    state: State
    key: str | None = None
    name: str | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """For a person."""
        if self.key is None:
            return "not signed" if self.state == "unsigned" else f"BROKEN: {safe(self.why)}"
        who = f"{self.name} ({self.key[:SHOWN]})" if self.name else self.key[:SHOWN]
        return safe(f"by {who}: {'trusted here' if self.state == 'trusted' else f'{self.state.upper()}: {self.why}'}")

    def facts(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def signer_here(bundle: Bundle, document: Path | None, device: Path, now: float) -> Signer:
    """By whom a bundle was signed, as the trust document in a file has it, else the device whose folder that is.

    Raises:
        EdgeKitError: the file does not read, or is no trust document.
    """
    if document is not None:
        return signer_of(bundle, _opened(document), now)
    try:
        return signer_of(bundle, Device(device).trusted(), now)
    except EdgeKitError as error:  # a user may look at a bundle without the right to read a device's folder
        found = signer_of(bundle, None, now)
        return Signer("unknown", found.key, why=error.what) if found.state == "unknown" else found


def signer_of(bundle: Bundle, trust: Trust | None, now: float) -> Signer:
    """By whom a bundle was signed that was opened: its files are as its manifest lists them."""
    try:
        with open_plain(bundle.folder / SIGNATURE) as file:
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return Signer("unsigned")
    except OSError as error:
        return Signer("broken", why=f"{SIGNATURE} does not read: {error.strerror or error}")
    files = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return signer(raw, files | {MANIFEST: describe(bundle.folder / MANIFEST).sha256}, trust, now)


def signer(raw: bytes, digests: Mapping[str, str], trust: Trust | None, now: float) -> Signer:
    """By whom the files with these hex SHA-256 were signed; `raw` is model.sig."""
    try:
        claim = parse_signature(raw)
    except Untrusted as error:
        return Signer("broken", why=error.what)
    if trust is None:
        return Signer("unknown", claim.key, why="nobody is trusted here yet")
    found = next((key for key in trust.keys if key.public.fingerprint == claim.key), None)
    name = None if found is None else found.name
    gone = next((one for one in trust.revoked if one.fingerprint == claim.key), None)
    if gone is not None:
        return Signer("revoked", claim.key, name, gone.why)
    if found is None:
        return Signer("unknown", claim.key, why="a key that is not trusted here")
    try:
        same = claim.proven(found.public).files == digests
    except Untrusted as error:
        return Signer("broken", claim.key, name, error.what)
    if not same:
        return Signer("broken", claim.key, name, "it signed other files than these")
    try:
        trust.signer(claim.key, now)
    except Untrusted as error:
        return Signer("expired", claim.key, name, error.what)
    return Signer("trusted", claim.key, name)


def _opened(path: Path) -> Trust:
    try:
        with path.open("rb") as file:
            return opened_first(file.read(MAX_DOCUMENT + 1))
    except OSError as error:
        raise NotFound(f"{path} does not read: {error.strerror}", hint="name a trust document") from error

"""Signs test bundles, and says whom to trust.

Refuses nothing: what is to be wrong with a signature, the tests do to it."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit_runtime.bundle import MANIFEST, describe, read_manifest
from edgekit_runtime.files import Files
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.manifest import to_json
from edgekit_runtime.signature import SIGNATURE, Signed, parse_signature, signed
from edgekit_runtime.trust import Key, Trust
from edgekit_runtime.verified import Rules

from tests.runtime.bundles import write_manifest

NOW = 1_800_000_000


def sign_folder(folder: Path, private_pem: bytes) -> Path:
    """The bundle with a signature over all that is in it now."""
    (folder / SIGNATURE).unlink(missing_ok=True)
    (folder / SIGNATURE).write_bytes(signed(folder.name, digests(folder), private_pem))
    return folder


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    return {path.relative_to(folder).as_posix(): describe(path).sha256 for path in folder.rglob("*") if path.is_file()}


def relisted(folder: Path, **changes: object) -> Path:
    """The bundle with a manifest that lists all files that are there now, and with other fields."""
    files = {
        path.relative_to(folder).as_posix(): describe(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (MANIFEST, SIGNATURE)
    }
    write_manifest(folder, to_json(replace(read_manifest(folder), files=files, **changes)))  # type: ignore[arg-type]
    return folder


def trusting(root_pem: bytes, **keys: bytes) -> Trust:
    """Trust in these private keys' public halves, by name."""
    return Trust(1, (public_of(root_pem),), tuple(Key(name, public_of(pem)) for name, pem in keys.items()))


def read_signature(raw: bytes, *private_pems: bytes) -> Signed:
    """What a signature file says, as who trusts these private keys' public halves reads it."""
    claim, trust = (
        parse_signature(raw),
        trusting(new_private_key(), **{f"key{n}": one for n, one in enumerate(private_pems)}),
    )
    return claim.proven(trust.signer(claim.key, NOW).public)


def rules(trust: Trust, target: str | None = "here", floor: int = 0, now: float = NOW) -> Rules:
    """Rules with one floor for every name."""
    return Rules(trust, target, lambda name: floor, now)


def in_memory(data: Mapping[str, bytes]) -> Files:
    """Files that are bytes already."""
    return Files("memory", frozenset(data), lambda name: io.BytesIO(data[name]))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

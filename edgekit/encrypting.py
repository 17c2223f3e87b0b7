"""Encrypt a bundle for one device: all that it loads can be read there alone. The result is a bundle, signed anew.

Refuses a bundle that is touched, or encrypted already. Manifest, report, card, SBOM and provenance stay readable."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.encrypted import CHUNK, Encrypted, Plain, encrypt, new_key
from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.keypair import PublicKey, read_public
from edgekit_runtime.manifest import Manifest

from edgekit.attesting import PROVENANCE
from edgekit.bundle import seal, whole_folder
from edgekit.sbom import SBOM

READABLE = frozenset({"report.json", "report.html", "MODEL_CARD.md", SBOM, PROVENANCE})
"""What stays as it is: it is for people and for tools that keep account, and no device loads it."""

HINT = "copy the device's public key here, and name it to --for"


@dataclass(frozen=True)
class Made:
    """The encrypted bundle: where, for which key, which files are encrypted and which are not."""

    place: Path
    device: str
    encrypted: tuple[str, ...]
    readable: tuple[str, ...]


def encrypt_bundle(bundle: Path, device: PublicKey, place: Path, private_pem: bytes | None) -> Made:
    """Make at `place` the bundle that only `device` can open, signed with `private_pem` where there is one.

    Raises:
        EdgeKitError: `bundle` is not whole or encrypted already, or `place` is taken.
    """
    if place.absolute() == bundle.absolute():
        raise EdgeKitError(f"{place} is the bundle itself", hint="say --out with another name: keep the readable one")
    manifest = open_bundle(bundle).manifest
    if manifest.encrypted is not None:
        raise EdgeKitError(
            f"{bundle} is encrypted already", hint="encrypt the readable bundle, for each device of its own"
        )
    with whole_folder(place) as folder:
        field = encrypt_folder(bundle, manifest, device, folder)
        made = seal(folder, replace(manifest, encrypted=field), private_pem)
    readable = made.files.keys() - field.files.keys()
    return Made(place, field.device, tuple(sorted(field.files)), tuple(sorted(readable)))


def encrypt_folder(folder: Path, manifest: Manifest, device: PublicKey, to: Path) -> Encrypted:
    """Write the files of a verified bundle into `to`, encrypted unless they stay readable; the manifest's field."""
    key, wrapped, ephemeral = new_key(manifest.name, manifest.version, device)
    files = {}
    for name, entry in manifest.files.items():
        place = to / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name in READABLE:
            shutil.copyfile(folder / name, place)
            continue
        with place.open("wb") as out:
            for chunk in encrypt(key, name, _chunks(folder / name)):
                out.write(chunk)
        files[name] = Plain(entry.sha256, entry.size)
    return Encrypted(key.device, wrapped, ephemeral, files)


def read_device(path: Path) -> PublicKey:
    """The public key of a device, from the file that `edgekit-runtime` gave.

    Raises:
        EdgeKitError: there is none, or it is a private one.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(10_000)
    except OSError as error:
        told = "" if isinstance(error, FileNotFoundError | IsADirectoryError) else f": {error.strerror}"
        raise NotFound(f"no key at {path}{told}", hint=HINT) from error
    if b"PRIVATE KEY" in raw:
        raise EdgeKitError(f"{path} is a private key", hint="give the device's public key; the other one stays there")
    try:
        return read_public(raw)
    except EdgeKitError as error:
        raise EdgeKitError(f"{path}: {error.what}", hint=error.hint or HINT) from error


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk

"""Put what was measured back into a bundle's evidence: the whole folder anew and sealed, its artifact as it was.

Refuses a bundle that changed since it was measured, and one whose signature is broken; leaves no half of one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import EdgeKitError

from edgekit import keys
from edgekit.bundle import copy_files, seal, whole_folder
from edgekit.measured import earlier
from edgekit.vouching import signer_of

MOST = 20
"""Measurements that a bundle keeps; of more the oldest go."""


@dataclass(frozen=True)
class Seal:
    """What a bundle is to be signed with: the `secret` (None: it was not signed and is not to be), and a word about it
    where somebody should know."""

    secret: bytes | None
    warning: str | None = None


def seal_for(folder: Path, home: Path, name: str | None, tell: Callable[[str], None]) -> Seal:
    """The key to sign with: the one named, else the one that signed it if its secret lies here, else your first.

    Raises:
        EdgeKitError: the bundle's signature is broken, or there is no such key.
    """
    by = signer_of(folder, home)
    if by.key is None and name is None:
        return Seal(None, f"{folder} is not signed, and stays so (--key NAME signs it)")
    if name is None and by.name is not None:
        ours = [key for key in keys.listed(home) if key.fingerprint == by.key and key.private is not None]
        if ours and ours[0].revoked is None:
            return Seal(keys.signing_key(home, ours[0].name))
    secret = keys.signing_key(home, name, tell)
    other = by.key is not None and by.name is None
    return Seal(secret, f"{folder} is {by.words}; it is signed with your key now" if other else None)


def keep(measured: Bundle, entries: Sequence[Mapping[str, Any]], sealed: Seal) -> Path:
    """The bundle with more in `evidence["measured"]`, in its own place; version and release stay.

    Raises:
        EdgeKitError: it is not the bundle any more that was measured.
    """
    place = measured.folder.resolve()
    with whole_folder(place) as folder:
        manifest = open_bundle(place).manifest
        if replace(manifest, evidence={}) != replace(measured.manifest, evidence={}):
            raise EdgeKitError(
                f"{measured.folder} changed while it was measured", hint="measure it again; nothing was written"
            )
        kept = [*earlier(manifest.evidence), *entries][-MOST:]
        copy_files(place, folder)
        seal(folder, replace(manifest, evidence={**manifest.evidence, "measured": kept}), sealed.secret)
    return place

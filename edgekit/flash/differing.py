"""Deltas for a device: what turns a file that it has into one that it lacks, made from what earlier flashes kept here.

Refuses nothing: where either side lacks the older file, or little is spared, the file itself is sent."""

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.bundle import MAX_MANIFEST, parse_manifest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import FileEntry, Manifest
from edgekit_runtime.verified import Vouched

from edgekit.cache import Cache
from edgekit.flash.moving import Piece
from edgekit.oci.blobs import Blobs

LEAST, MOST = 64_000, 2**26
"""Bytes of a file that a delta is made for: smaller ones are sent at once, larger ones take minutes to compare."""
SPARED = 0.1
"""This part of what would be sent otherwise, or it is not worth a step of its own."""
MADE = "delta"


@dataclass(frozen=True)
class Delta:
    """What makes a file of the one whose digest is `base`."""

    base: str
    content: bytes

    def spares(self, piece: Piece) -> bool:
        """Whether it is clearly less than what of the file is still to be sent."""
        return len(self.content) < (1 - SPARED) * (piece.size - piece.offset)


@dataclass(frozen=True)
class Kept:
    """What lies here of earlier flashes: the bundles' files, and the deltas that were made of them."""

    blobs: Blobs
    steps: Cache


def made(
    kept: Kept, manifest: Manifest, missing: Iterable[tuple[str, Piece]], ids: Iterable[str],
    tell: Callable[[str], None],
) -> dict[str, Delta]:  # fmt: skip
    """Deltas for the `missing` files, by digest, each from the file of that name in one of the versions `ids`."""
    if manifest.encrypted is not None:  # two that say the same have no bytes in common
        return {}
    older = [version for id in ids if (version := _version(kept.blobs, id)) is not None]
    names = {entry.sha256: name for name, entry in manifest.files.items()}
    found = {}
    for sha256, piece in missing:
        entries = [one.files[names[sha256]] for one in older if names[sha256] in one.files]
        if not LEAST < piece.size <= MOST or (base := _base(kept.blobs, entries)) is None:
            continue
        tell(f"comparing {names[sha256]} with the version that is there")
        delta = _delta(kept, base, sha256, piece.path)
        if delta is not None and delta.spares(piece):
            found[sha256] = delta
    return found


def keep(kept: Kept, bundle: Path, vouched: Vouched) -> None:
    """Keep the files of a bundle that was flashed: the deltas of later versions start from them."""
    manifest, blobs = vouched.manifest, kept.blobs
    if manifest.encrypted is not None:
        return
    with suppress(OSError):  # a full disk here is no fault of the device, which has it all
        blobs.root.mkdir(parents=True, exist_ok=True)
        for name, entry in manifest.files.items():
            if LEAST < entry.size <= MOST:
                _put(blobs, entry.sha256, bundle / name)
        _put(blobs, vouched.digest, vouched.raw_manifest)
        blobs.trim()


def _version(blobs: Blobs, id: str) -> Manifest | None:
    """The manifest that was kept whose digest begins so."""
    for path in blobs.root.glob(f"{id}*") if len(id) == 12 and id.isalnum() else ():
        with suppress(EdgeKitError, OSError):
            size = path.lstat().st_size
            if size <= MAX_MANIFEST and blobs.find(f"sha256:{path.name}", size):
                found = parse_manifest(path.read_bytes(), str(path))
                return found if found.encrypted is None else None
    return None


def _base(blobs: Blobs, entries: Iterable[FileEntry]) -> str | None:
    """The digest of the first that is here."""
    fit = (one for one in entries if 0 < one.size <= MOST)
    with suppress(OSError):
        return next((one.sha256 for one in fit if blobs.find(f"sha256:{one.sha256}", one.size)), None)
    return None


def _delta(kept: Kept, base: str, sha256: str, new: Path) -> Delta | None:
    """Made once, for however many devices."""
    from edgekit_runtime import deltas

    def make(folder: Path) -> None:
        content = deltas.make(kept.blobs.place(base), new)
        if content is not None:
            (folder / MADE).write_bytes(content)

    try:
        content = (kept.steps.folder("delta", [base, sha256], make) / MADE).read_bytes()
    except OSError:  # it has none; or another process cleared the cache, or the disk here is full: then do without
        return None
    header = deltas.read_header(io.BytesIO(content))
    whole = (header.base_sha256, header.sha256) == (base, sha256)  # else something wrote to a file meanwhile
    return Delta(base, content) if whole else None


def _put(blobs: Blobs, sha256: str, source: Path | bytes) -> None:
    if blobs.place(sha256).is_file():
        os.utime(blobs.place(sha256))
        return
    descriptor, name = tempfile.mkstemp(prefix=f"{sha256}.", dir=blobs.root)
    try:
        with open(descriptor, "wb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                with source.open("rb") as opened:
                    shutil.copyfileobj(opened, file)
        blobs.put(sha256, Path(name))
    finally:
        Path(name).unlink(missing_ok=True)

"""`edgekit pull`: fetch a bundle from a registry; whole or absent, every byte verified, and who signed it is told.

Refuses an image that is no bundle, files that its manifest does not name, a signature that is broken or by a key that
was revoked here, and more than the disk holds."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import MANIFEST, describe, open_bundle
from edgekit_runtime.errors import BadBundle, EdgeKitError
from edgekit_runtime.manifest import parse
from edgekit_runtime.show import size_words
from edgekit_runtime.signature import MAX_FILE, SIGNATURE

from edgekit.bundle import refuse_to_replace, whole_folder
from edgekit.oci import differences
from edgekit.oci.answers import Refused
from edgekit.oci.blobs import Blobs, in_tenths
from edgekit.oci.calls import Access, connected
from edgekit.oci.differences import BASE, NOTHING, RESULT
from edgekit.oci.downloading import download
from edgekit.oci.manifest import Descriptor, digest_of, files_of, parse_image, sizes
from edgekit.oci.reference import Reference
from edgekit.oci.registry import Repository, get_manifest
from edgekit.vouching import Signer, signer

RESERVE = 256 * 2**20
"""Bytes that stay free on the disk."""
MAX_BUNDLE_MANIFEST = 16 * 2**20
MAX_BASE_FILES = 10_000
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """Which image becomes the folder `out`; `base` is an older bundle, whose files spare us bytes; `keys` is the folder
    with the trust document that says whose signature counts."""

    what: Reference
    out: Path
    base: Path | None = None
    dry_run: bool = False
    keys: Path | None = None


@dataclass(frozen=True)
class Fetched:
    """What came: `fetched_bytes` over the network for `bytes` of files; so many were here, or made by deltas. `key` is
    what its signature names, `signed_by` that key's name where it is trusted here and the signature was verified."""

    reference: str
    digest: str
    out: str
    dry_run: bool
    files: int
    bytes: int
    fetched_bytes: int = 0
    here: int = 0
    by_delta: int = 0
    delta_bytes: int = 0
    key: str | None = None
    signed_by: str | None = None


def pull(wish: Wish, access: Access, blobs: Blobs, tell: Tell) -> Fetched:
    """Fetch the image and put it at `wish.out`; an older bundle there stays until the new one is whole.

    Raises:
        EdgeKitError: it cannot be had, is not a whole bundle, or is by a key that was revoked. What came stays in the
            cache.
    """
    refuse_to_replace(wish.out)
    with connected(wish.what.registry, access) as client:
        repository = Repository(client, wish.what.repository)
        raw = _manifest(repository, wish.what)
        files = files_of(parse_image(raw))
        bases = _contents(wish.base) if wish.base is not None else {}
        missing = {one.digest: one for one in files.values() if _here(one, bases, blobs) is None}
        first = _refuse_other_files(repository, files, bases, blobs, tell)
        known = Fetched(
            str(wish.what), digest_of(raw), str(wish.out), wish.dry_run, len(files), sizes([*files.values()])
        )
        known = replace(known, here=len({one.digest for one in files.values()}) - len(missing))
        by, second = _signer(repository, files, bases, blobs, wish.keys)
        known = replace(known, key=by.key, signed_by=by.name)
        for name in {MANIFEST, SIGNATURE} & files.keys():
            missing.pop(files[name].digest, None)
        deltas = _usable(repository, digest_of(raw), missing, bases, blobs) if missing else {}
        if wish.dry_run:
            return replace(known, **_planned(missing, deltas))
        _refuse_to_fill(wish.out, blobs.root, known.bytes, sizes([*missing.values()]))
        tally = _fetch(repository, missing, deltas, bases, blobs, tell)
        tally["fetched_bytes"] += first + second
    _assemble(wish.out, files, bases, blobs)
    blobs.trim()
    return replace(known, **tally)


def to_json(found: Fetched) -> dict[str, Any]:
    """The facts as JSON values."""
    return asdict(found)


def lines(found: Fetched) -> list[str]:
    """The same for a person."""
    would = "would fetch" if found.dry_run else "fetched"
    rest = f"{found.here} were here" + (f", {found.by_delta} made by deltas" if found.by_delta else "")
    size = f"{size_words(found.fetched_bytes)} for {found.files} files of {size_words(found.bytes)}"
    done = [] if found.dry_run else [f"{found.out} is whole: edgekit inspect {found.out}"]
    by = Signer(found.key, found.signed_by).words
    by = by if found.signed_by else f"warning: {by}{': no device will install it' if found.key is None else ''}"
    return [f"{found.reference}  {found.digest}", f"  {would} {size}; {rest}", f"  {by}", *done]


def _manifest(repository: Repository, what: Reference) -> bytes:
    try:
        return get_manifest(repository, what.name)
    except Refused as refused:
        if refused.status != 404:
            raise
        raise EdgeKitError(f"there is no {what}", hint="check the repository's name and the tag") from refused


def _refuse_other_files(
    repository: Repository, files: Mapping[str, Descriptor], bases: Mapping[str, Path], blobs: Blobs, tell: Tell
) -> int:
    """Before anything large is fetched: the image must have the very files that the bundle's manifest lists. The bytes
    that came for that one."""
    first = files.get(MANIFEST)
    if first is None or first.size > MAX_BUNDLE_MANIFEST:
        raise BadBundle(f"the image holds no {MANIFEST} of a bundle", hint="name an image that edgekit push made")
    raw, size = _small(repository, first, bases, blobs)
    try:
        manifest = parse(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"the image's {MANIFEST} is not JSON", hint="do not use this image") from error
    tell(f"{manifest.name} {manifest.version} for {manifest.target}")
    told = {name: (f"sha256:{entry.sha256}", entry.size) for name, entry in manifest.files.items()}
    came = {name: (one.digest, one.size) for name, one in files.items() if name not in (MANIFEST, SIGNATURE)}
    for name in sorted(told.keys() | came.keys()):
        if told.get(name) != came.get(name):
            raise BadBundle(f"the image and its {MANIFEST} do not agree on {name}", hint="do not use this image")
    return size


def _signer(
    repository: Repository, files: Mapping[str, Descriptor], bases: Mapping[str, Path], blobs: Blobs, home: Path | None
) -> tuple[Signer, int]:
    """Who signed these very files, and the bytes that came to learn it: before anything large is fetched."""
    one, raw, size = files.get(SIGNATURE), None, 0
    if one is not None and one.size > MAX_FILE:
        raise BadBundle(f"the image's {SIGNATURE} is too large for a signature", hint="do not use this image")
    if one is not None:
        raw, size = _small(repository, one, bases, blobs)
    digests = {name: blob.digest.removeprefix("sha256:") for name, blob in files.items()}
    return signer(raw, digests, home), size


def _small(repository: Repository, blob: Descriptor, bases: Mapping[str, Path], blobs: Blobs) -> tuple[bytes, int]:
    """A file that fits into memory, and the bytes that came for it."""
    kept = _here(blob, bases, blobs)
    path, size = (kept, 0) if kept is not None else download(repository, blob, blobs, lambda count: None)
    return path.read_bytes(), size


def _contents(base: Path) -> dict[str, Path]:
    """The files of an older bundle by their digests."""
    if not base.is_dir():
        raise EdgeKitError(f"no bundle at {base}", hint="name a folder to --base, or leave it out")
    found = [path for path in sorted(base.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {f"sha256:{describe(path).sha256}": path for path in found[:MAX_BASE_FILES]}


def _here(blob: Descriptor, bases: Mapping[str, Path], blobs: Blobs) -> Path | None:
    known = bases.get(blob.digest)
    return known if known is not None else blobs.find(blob.digest, blob.size)


def _usable(
    repository: Repository, image: str, missing: Mapping[str, Descriptor], bases: Mapping[str, Path], blobs: Blobs
) -> dict[str, Descriptor]:
    """For each missing file the smallest delta whose base is here, where that is smaller than the file."""
    found: dict[str, Descriptor] = {}
    for delta in differences.find_deltas(repository, image):
        result, base = delta.annotations[RESULT], delta.annotations[BASE]
        if result not in missing or delta.size >= found.get(result, missing[result]).size:
            continue
        if base == NOTHING or base in bases or blobs.place(base).is_file():
            found[result] = delta
    return found


def _planned(missing: Mapping[str, Descriptor], deltas: Mapping[str, Descriptor]) -> dict[str, Any]:
    small = sum(delta.size for delta in deltas.values())
    rest = sum(one.size for digest, one in missing.items() if digest not in deltas)
    return {"fetched_bytes": small + rest, "by_delta": len(deltas), "delta_bytes": small}


def _fetch(
    repository: Repository, missing: Mapping[str, Descriptor], deltas: Mapping[str, Descriptor],
    bases: Mapping[str, Path], blobs: Blobs, tell: Tell,
) -> dict[str, Any]:  # fmt: skip
    """Bring what is missing into the cache; what it took."""
    came = made = small = 0
    for digest, blob in missing.items():
        name = blob.title
        if digest in deltas:
            delta = deltas[digest]
            tell(f"fetching what differs in {name}: {size_words(delta.size)}")
            came += (size := _by_delta(repository, delta, blob, bases, blobs))
            if blobs.place(digest).is_file():
                made, small = made + 1, small + size
                continue
        tell(f"fetching {name}: {size_words(blob.size)}")
        came += download(repository, blob, blobs, in_tenths(name, blob.size, tell))[1]
    return {"fetched_bytes": came, "by_delta": made, "delta_bytes": small}


def _by_delta(
    repository: Repository, delta: Descriptor, blob: Descriptor, bases: Mapping[str, Path], blobs: Blobs
) -> int:
    """Make a file of an older one, if that can be done; the bytes that came for it."""
    base = delta.annotations[BASE]
    old = None if base == NOTHING else bases.get(base, blobs.place(base))
    try:
        path, came = download(repository, delta, blobs, lambda count: None)
    except (Refused, BadBundle):
        return 0
    scratch = blobs.root / f"{blob.digest.removeprefix('sha256:')}.{os.getpid()}.made"
    try:
        if (old is None or old.is_file()) and differences.apply(path, old, scratch, blob):
            blobs.put(blob.digest, scratch)
    finally:
        scratch.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return came


def _refuse_to_fill(out: Path, cache: Path, size: int, missing: int) -> None:
    """Raise where the disk has no room: files lie in the cache and in the bundle, often on one disk."""
    wanted: dict[int, tuple[Path, int]] = {}
    for place, more in ((out, size), (cache, missing)):
        there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
        first, before = wanted.get(there.stat().st_dev, (there, 0))
        wanted[there.stat().st_dev] = first, before + more
    for there, total in wanted.values():
        free = shutil.disk_usage(there).free
        if total > free - RESERVE:
            what = f"{total / 1e6:,.0f} MB are to be written, and {free / 1e6:,.0f} MB are free at {there}"
            raise EdgeKitError(what, hint="free some space, or say --out or --cache on another disk")


def _assemble(out: Path, files: Mapping[str, Descriptor], bases: Mapping[str, Path], blobs: Blobs) -> None:
    """The folder, whole and verified, or nothing."""
    with whole_folder(out) as folder:
        for name, blob in files.items():
            source = _here(blob, bases, blobs)
            if source is None:
                raise EdgeKitError(f"{name} went from the cache while it was used", hint="run the same again")
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        open_bundle(folder)

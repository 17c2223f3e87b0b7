"""Deltas as a registry keeps them: an artifact that refers to an image and makes its files of others.

Refuses nothing itself: what does not read as a delta of ours is passed over, and the whole file fetched instead."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.bundle import describe
from edgekit_runtime.errors import BadBundle, EdgeKitError

from edgekit.oci.answers import Refused
from edgekit.oci.image import OURS, Packed
from edgekit.oci.manifest import (
    EMPTY,
    INDEX,
    MANIFEST,
    Descriptor,
    Json,
    compact,
    digest_of,
    parse_image,
    parse_index,
)  # fmt: skip
from edgekit.oci.reference import DIGEST
from edgekit.oci.registry import Repository, fallback_tag, find_manifest, get_manifest, put_manifest, referrers

DELTA = "application/vnd.edgekit.delta.v1"
BASE, RESULT, FILE = f"{OURS}delta.base", f"{OURS}delta.result", f"{OURS}delta.file"
NOTHING = f"sha256:{hashlib.sha256().hexdigest()}"
"""The base of a file that is packed by itself."""
LEAST = 1024
"""Files smaller than this are sent whole."""
MOST = 20
"""How many artifacts that refer to an image are looked into."""
TRIES = 5
"""How often the list of what refers to an image is written before it is left: a delta spares bytes, no more."""


@dataclass(frozen=True)
class Delta:
    """What makes `file` of the content `base`; `content` is there where it was made here."""

    file: str
    base: str
    blob: Descriptor
    content: bytes


def make_deltas(packed: Packed, old: Mapping[str, Path], tell: Callable[[str], None]) -> list[Delta]:
    """For each file that `old` has in another version, the delta that is smaller than the file, if there is one."""
    from edgekit_runtime import deltas

    found = []
    for layer in packed.layers:
        title, size = layer.descriptor.title, layer.descriptor.size
        base = old.get(title)
        if base is None or size < LEAST:
            continue
        tell(f"comparing {title} with its older version")
        content, of = deltas.make(base, layer.path), f"sha256:{describe(base).sha256}"
        if content is None:
            content, of = deltas.make(b"", layer.path), NOTHING
        if content is None or len(content) >= size:
            continue
        told = {FILE: title, BASE: of, RESULT: layer.descriptor.digest}
        found.append(Delta(title, of, Descriptor(DELTA, digest_of(content), len(content), told), content))
    return found


def artifact(subject: Descriptor, deltas: list[Delta]) -> Json:
    """The manifest that lists deltas for the image `subject`."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": DELTA,
        "config": Descriptor(EMPTY, digest_of(b"{}"), 2).to_json(),
        "layers": [delta.blob.to_json() for delta in deltas],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
    }


def announce(repository: Repository, subject: Descriptor, raw: bytes) -> None:
    """Put the artifact there, and into the list of what refers to its image where the registry keeps none itself.

    Such a list cannot be changed by two at once: who finds that another wrote over it adds to it again."""
    mine = Descriptor(MANIFEST, digest_of(raw), len(raw), artifact_type=DELTA)
    if put_manifest(repository, mine.digest, raw, MANIFEST):
        return
    for _ in range(TRIES):
        known = find_manifest(repository, fallback_tag(subject.digest))
        listed = list(parse_index(known)) if known is not None else []
        if mine.digest in (one.digest for one in listed):
            return
        entries = [one.to_json() for one in (*listed, mine)]
        index = compact({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        put_manifest(repository, fallback_tag(subject.digest), index, INDEX)


def find_deltas(repository: Repository, subject: str) -> Iterator[Descriptor]:
    """The deltas that a registry offers for the files of an image."""
    try:
        known = referrers(repository, subject)
        listed = parse_index(known) if known is not None else ()
    except (Refused, BadBundle):
        return
    ours = [one for one in listed if one.artifact_type == DELTA]
    for one in ours[-MOST:]:
        try:
            image = parse_image(get_manifest(repository, one.digest))
        except (Refused, BadBundle):
            continue
        if image.subject is not None and image.subject.digest == subject:
            yield from filter(_is_delta, image.layers)


def apply(blob: Path, base: Path | None, out: Path, wanted: Descriptor) -> bool:
    """Whether `out` became the wanted file; `base` None is nothing at all."""
    import io

    from edgekit_runtime import deltas

    sha256 = wanted.digest.removeprefix("sha256:")
    try:
        with blob.open("rb") as delta, out.open("wb") as file:
            if base is None:
                deltas.apply(io.BytesIO(), delta, file, sha256, wanted.size)
            else:
                with base.open("rb") as opened:
                    deltas.apply(opened, delta, file, sha256, wanted.size)
    except (EdgeKitError, FileNotFoundError):  # gone: another pull was done with it, or the cache was cleared
        return False
    return True


def _is_delta(layer: Descriptor) -> bool:
    names = (layer.annotations.get(BASE, ""), layer.annotations.get(RESULT, ""))
    return layer.media_type == DELTA and all(DIGEST.fullmatch(name) for name in names)

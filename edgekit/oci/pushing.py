"""`edgekit push`: send a bundle, or its layout, to a registry; what is there is not sent again.

Refuses what is not whole, and to name an image before all that it names is there."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import is_bundle
from edgekit_runtime.errors import BadBundle, EdgeKitError
from edgekit_runtime.show import size_words
from edgekit_runtime.signature import SIGNATURE

from edgekit.oci.blobs import Blobs, in_tenths
from edgekit.oci.calls import Access, connected
from edgekit.oci.differences import BASE, NOTHING, RESULT, Delta, announce, artifact, find_deltas, make_deltas
from edgekit.oci.downloading import download
from edgekit.oci.image import Packed, pack
from edgekit.oci.layout import is_layout, read_layout
from edgekit.oci.manifest import (
    CONFIG,
    EMPTY,
    MANIFEST,
    Descriptor,
    compact,
    digest_of,
    files_of,
    parse_image,
    sizes,
)  # fmt: skip
from edgekit.oci.reference import Reference
from edgekit.oci.registry import Repository, find_manifest, has_blob, put_manifest
from edgekit.oci.uploading import Content, upload

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sending:
    """What is wanted: to where; deltas from which image (None: from what the tag names now), or from none."""

    to: Reference
    delta_from: Reference | None = None
    deltas: bool = True
    dry_run: bool = False


@dataclass(frozen=True)
class Sent:
    """What became of it: the image's digest and bytes, how many bytes went up, and of how many blobs they are; whether
    the bundle is signed, by whomever."""

    reference: str
    digest: str
    bytes: int
    sent_bytes: int
    sent: int
    there: int
    mounted: int
    dry_run: bool
    deltas: list[dict[str, Any]] = field(default_factory=list)
    signed: bool = False


def opened(source: Path) -> Packed:
    """The image of a bundle, or that in a layout."""
    if is_layout(source):
        return read_layout(source)
    if is_bundle(source):
        return pack(source)
    raise EdgeKitError(f"neither a bundle nor an OCI layout at {source}", hint="name what edgekit build or pack made")


def push(source: Path, sending: Sending, access: Access, blobs: Blobs, tell: Tell) -> Sent:
    """Send what lies at `source`.

    Raises:
        EdgeKitError: it is not whole, or cannot be sent; what arrived stays there, and is not sent again.
    """
    packed, to = opened(source), sending.to
    if to.digest is not None and to.digest != packed.descriptor.digest:
        hint = "say a tag, or leave the digest out"
        raise EdgeKitError(f"{to} names another image than {packed.descriptor.digest}", hint=hint)
    with connected(to.registry, access) as client:
        repository = Repository(client, to.repository)
        before = _older(repository, sending) if sending.deltas else None
        counts = _send_all(repository, packed, sending, tell)
        if not sending.dry_run:
            put_manifest(repository, to.name, packed.manifest, MANIFEST)
        found: list[Delta] = []
        if before is not None and not sending.dry_run:
            tell("looking for what differs from the older image")
            found = make_deltas(packed, dict(_bases(repository, before, sending, packed, blobs)), tell)
            _send_deltas(repository, packed.descriptor, found)
        blobs.trim()
    total = sizes([layer.descriptor for layer in packed.layers])
    told = [_delta_facts(packed, delta) for delta in found]
    signed = any(layer.descriptor.title == SIGNATURE for layer in packed.layers)
    return Sent(str(to), packed.descriptor.digest, total, *counts, sending.dry_run, told, signed)


def to_json(sent: Sent) -> dict[str, Any]:
    """The facts as JSON values."""
    return asdict(sent)


def lines(sent: Sent) -> list[str]:
    """The same for a person."""
    would = "would send" if sent.dry_run else "sent"
    rest = f"{sent.there} were there" + (f", {sent.mounted} mounted from next door" if sent.mounted else "")
    found = [
        f"{sent.reference}  {sent.digest}",
        f"  {would} {size_words(sent.sent_bytes)} in {sent.sent} blobs; {rest}",
    ]
    for delta in sent.deltas:
        found.append(f"  {delta['file']}: a delta of {size_words(delta['bytes'])} for {size_words(delta['full'])}")
    if not sent.signed:
        found.append("  warning: not signed: no device will install it")
    return found


def _contents(packed: Packed) -> Iterator[tuple[Descriptor, Content, str]]:
    """Every blob once: what it is, its bytes, and its name for a person."""
    yield Descriptor(CONFIG, digest_of(packed.config), len(packed.config)), packed.config, "config"
    seen: set[str] = set()
    for layer in packed.layers:
        if layer.descriptor.digest not in seen:
            seen.add(layer.descriptor.digest)
            yield layer.descriptor, layer.path, layer.descriptor.title


def _send_all(repository: Repository, packed: Packed, sending: Sending, tell: Tell) -> tuple[int, int, int, int]:
    """Bytes sent, blobs sent, blobs that were there, blobs mounted."""
    near = sending.delta_from
    same = near is not None and near.registry == sending.to.registry and near.repository != sending.to.repository
    source = near.repository if near is not None and same else None
    size = sent = there = mounted = 0
    for blob, content, name in _contents(packed):
        if has_blob(repository, blob):
            there += 1
            continue
        tell(f"sending {name}: {size_words(blob.size)}")
        if sending.dry_run or upload(repository, blob, content, source, in_tenths(name, blob.size, tell)):
            size, sent = size + blob.size, sent + 1
        else:
            mounted += 1
    return size, sent, there, mounted


def _older(repository: Repository, sending: Sending) -> bytes | None:
    """The manifest of the image that deltas start from."""
    near = sending.delta_from
    if near is None:
        return find_manifest(repository, sending.to.name) if sending.to.digest is None else None
    if near.registry != sending.to.registry:
        raise EdgeKitError(f"{near} is in another registry", hint=f"name an image in {sending.to.registry}")
    found = find_manifest(Repository(repository.client, near.repository), near.name)
    if found is None:
        raise EdgeKitError(f"there is no {near}", hint="name an image that was pushed, or leave --delta-from out")
    return found


def _bases(
    repository: Repository, before: bytes, sending: Sending, packed: Packed, blobs: Blobs
) -> Iterator[tuple[str, Path]]:
    """Of each file that is in both images, and differs, its older content; fetched unless it is in the cache."""
    try:
        old = files_of(parse_image(before))
    except BadBundle:
        return  # the tag named something else before
    near = sending.delta_from
    there = Repository(repository.client, near.repository) if near is not None else repository
    told = find_deltas(repository, packed.descriptor.digest)
    offered = {(delta.annotations[BASE], delta.annotations[RESULT]) for delta in told}
    for layer in packed.layers:
        title = layer.descriptor.title
        one = old.get(title)
        if one is None or any((base, layer.descriptor.digest) in offered for base in (one.digest, NOTHING)):
            continue
        if one.digest != layer.descriptor.digest:
            kept = blobs.find(one.digest, one.size)
            yield title, kept if kept is not None else download(there, one, blobs, lambda count: None)[0]


def _send_deltas(repository: Repository, subject: Descriptor, deltas: list[Delta]) -> None:
    """The artifact and all that it names."""
    if not deltas:
        return
    raw = compact(artifact(subject, deltas))
    blobs: list[tuple[Descriptor, bytes]] = [(Descriptor(EMPTY, digest_of(b"{}"), 2), b"{}")]
    for blob, content in [*blobs, *((delta.blob, delta.content) for delta in deltas)]:
        if not has_blob(repository, blob):
            upload(repository, blob, content, None, lambda count: None)
    announce(repository, subject, raw)


def _delta_facts(packed: Packed, delta: Delta) -> dict[str, Any]:
    full = next(layer.descriptor.size for layer in packed.layers if layer.descriptor.title == delta.file)
    return {"file": delta.file, "bytes": delta.blob.size, "full": full, "base": delta.base}

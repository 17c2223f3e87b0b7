"""What an image's manifest says: descriptors of its config and of its files. Pure: bytes in, frozen values out.

Refuses other digests than SHA-256, other kinds of image, and files outside the bundle or named twice."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.errors import BadBundle
from edgekit_runtime.printable import safe

from edgekit.oci.reference import DIGEST

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
MODEL = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
KINDS = {
    name: f"application/vnd.cncf.model.{name}.v1.raw" for name in ("weight", "weight.config", "doc", "code", "dataset")
}
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"

MAX_MANIFEST = 4 * 2**20
MAX_LAYERS = 10_000
MAX_SIZE = 2**40
ALIEN = "push the bundle with edgekit push, which sends files as they are"

Json = dict[str, Any]


@dataclass(frozen=True)
class Descriptor:
    """Some bytes by their digest and size, and what is said of them."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None

    @property
    def title(self) -> str:
        """The file that it is, where it is one."""
        return self.annotations.get(TITLE) or self.annotations.get(FILEPATH, self.digest)

    def to_json(self) -> Json:
        """As in a manifest."""
        found: Json = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        found |= {"artifactType": self.artifact_type} if self.artifact_type else {}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


@dataclass(frozen=True)
class Image:
    """A manifest: what it is of, its config and its layers."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None


def digest_of(content: bytes) -> str:
    """Its digest, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def compact(value: object) -> bytes:
    """JSON in the one way that we write it, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def parse_image(raw: bytes) -> Image:
    """The image that a manifest describes.

    Raises:
        BadBundle: it is none, or one of many platforms.
    """
    told = _object(raw, "manifest")
    if told.get("mediaType", MANIFEST) != MANIFEST or "manifests" in told:
        kind = safe(str(told.get("mediaType", "an index")))[:100]
        raise BadBundle(f"the image is of another kind: {kind}", hint="name a single image, by its digest if need be")
    layers = told.get("layers")
    if told.get("schemaVersion") != 2 or not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise BadBundle("the manifest is not one of schema 2 with a list of layers", hint=ALIEN)
    subject = told.get("subject")
    return Image(
        parse_descriptor(told.get("config")),
        tuple(map(parse_descriptor, layers)),
        _text(told.get("artifactType")),
        _annotations(told.get("annotations")),
        parse_descriptor(subject) if subject is not None else None,
    )


def parse_index(raw: bytes) -> tuple[Descriptor, ...]:
    """What an index lists."""
    told = _object(raw, "index")
    listed = told.get("manifests")
    if not isinstance(listed, list) or len(listed) > MAX_LAYERS:
        raise BadBundle("the index lists no manifests", hint=ALIEN)
    return tuple(map(parse_descriptor, listed))


def parse_descriptor(raw: object) -> Descriptor:
    """One entry of a manifest or an index."""
    if not isinstance(raw, dict):
        raise BadBundle("the manifest holds something that is no descriptor", hint=ALIEN)
    kind, digest, size = raw.get("mediaType"), raw.get("digest"), raw.get("size")
    if not isinstance(kind, str) or len(kind) > 255 or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise BadBundle(f"the manifest names content by {safe(str(digest))[:100]!r}, not by SHA-256", hint=ALIEN)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise BadBundle(f"the manifest gives {safe(str(size))[:40]!r} as a size", hint=ALIEN)
    return Descriptor(kind, digest, size, _annotations(raw.get("annotations")), _text(raw.get("artifactType")))


def files_of(image: Image) -> dict[str, Descriptor]:
    """The files of a bundle by their paths.

    Raises:
        BadBundle: the image holds something else, or the paths could not lie in one folder.
    """
    if image.config.media_type != CONFIG or image.artifact_type not in (MODEL, None):
        kind = safe(image.artifact_type or image.config.media_type)[:100]
        raise BadBundle(f"the image is no model but {kind}", hint="name an image that edgekit push made")
    found: dict[str, Descriptor] = {}
    for layer in image.layers:
        if layer.media_type not in KINDS.values():
            raise BadBundle(f"the image holds a layer of the kind {safe(layer.media_type)[:100]!r}", hint=ALIEN)
        path = _path(layer.annotations)
        if path in found:
            raise BadBundle(f"the image names {path!r} twice", hint="do not use this image")
        found[path] = layer
    for path in found:
        parts = path.split("/")
        if any("/".join(parts[:count]) in found for count in range(1, len(parts))):
            raise BadBundle(f"the image has {path!r} inside of another file", hint="do not use this image")
    return found


def _path(annotations: Mapping[str, str]) -> str:
    """Where a layer's file belongs; both ways to say it must agree."""
    said = [annotations[key] for key in (TITLE, FILEPATH) if key in annotations]
    if not said or len(set(said)) > 1:
        raise BadBundle("the image has a layer without a file name, or with two", hint=ALIEN)
    path = said[0]
    parts = path.split("/")
    wrong = any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
    if wrong or "\\" in path or not path.isprintable() or len(path) > 1000:
        raise BadBundle(f"the image names a file outside the bundle: {ascii(path)[:200]}", hint="do not use this image")
    return path


def _object(raw: bytes, what: str) -> Json:
    if len(raw) > MAX_MANIFEST:
        raise BadBundle(f"the {what} is larger than {MAX_MANIFEST:,} bytes", hint="do not use this image")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"the {what} is not JSON", hint="look whether the address is that of a registry") from error
    if not isinstance(found, dict):
        raise BadBundle(f"the {what} is not a JSON object", hint="look whether the address is that of a registry")
    return found


def _annotations(raw: object) -> Mapping[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(value, str) and _utf8(value) for value in raw.values()):
        raise BadBundle("the manifest has annotations that are not texts", hint=ALIEN)
    return raw


def _utf8(text: str) -> bool:
    """JSON can write half a surrogate pair, which no file name or terminal takes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _text(raw: object) -> str | None:
    if raw is None or (isinstance(raw, str) and len(raw) <= 255 and _utf8(raw)):
        return raw or None
    raise BadBundle("the manifest has an artifactType that is no media type", hint=ALIEN)


def sizes(descriptors: Sequence[Descriptor]) -> int:
    """Bytes of all; what is named twice counts once."""
    return sum({one.digest: one.size for one in descriptors}.values())

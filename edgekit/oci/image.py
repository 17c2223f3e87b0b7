"""A bundle as a CNCF ModelPack image: its config and its manifest, the same for the same bundle. Reads; writes nothing.

Refuses what is no whole bundle."""

import datetime
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import MANIFEST as BUNDLE_MANIFEST
from edgekit_runtime.bundle import describe, open_bundle
from edgekit_runtime.manifest import Manifest

from edgekit.oci.manifest import (
    CONFIG,
    FILEPATH,
    KINDS,
    MANIFEST,
    MODEL,
    TITLE,
    Descriptor,
    compact,
    digest_of,
    files_of,
    parse_image,
)  # fmt: skip

OURS = "io.edgekit."
"""What the names of our own annotations begin with."""
DOCS, CODE = (".html", ".md", ".pdf"), (".py", ".sh")
BESIDE = (".json", ".txt", ".npz", ".sig", ".toml", ".csv", ".cdx", ".jsonl")
"""Endings of files that go with the weights; what has another ending are weights."""
HEARD = {"image": "image", "audio": "audio", "text": "text"}


@dataclass(frozen=True)
class Layer:
    """A file and its descriptor."""

    descriptor: Descriptor
    path: Path


@dataclass(frozen=True)
class Packed:
    """An image that is here: the bytes of its manifest and config, and its layers."""

    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]
    annotations: Mapping[str, str]

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest, as an index lists it."""
        return Descriptor(MANIFEST, digest_of(self.manifest), len(self.manifest), artifact_type=MODEL)


def pack(folder: Path) -> Packed:
    """The image of the bundle in `folder`, every byte of which is verified first.

    Raises:
        BadBundle, NotFound: there is no whole bundle.
    """
    bundle = open_bundle(folder)
    layers = tuple(_layer(folder, name, bundle.manifest) for name in _names(folder))
    config = compact(_config(bundle.manifest, layers))
    annotations = annotations_of(bundle.manifest)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": MODEL,
        "config": Descriptor(CONFIG, digest_of(config), len(config)).to_json(),
        "layers": [layer.descriptor.to_json() for layer in layers],
        "annotations": annotations,
    }
    packed = Packed(compact(manifest), config, layers, annotations)
    files_of(parse_image(packed.manifest))  # what nobody could pull is not packed
    return packed


def annotations_of(manifest: Manifest) -> dict[str, str]:
    """What a registry shows of a bundle, so that it can be chosen without being fetched."""
    evidence = manifest.evidence
    quality, latency = _table(evidence, "quality"), _table(evidence, "latency")
    ours = {
        "name": manifest.name, "version": manifest.version, "release": manifest.release, "target": manifest.target,
        "engine": manifest.engine, "format": manifest.format, "precision": manifest.precision,
        "metric": quality.get("metric"), "accuracy": quality.get("value"), "drop": quality.get("drop"),
        "samples": quality.get("n"), "latency.median.ms": latency.get("median_ms"),
        "latency.p90.ms": latency.get("p90_ms"), "memory.peak.mb": evidence.get("peak_mb"),
        "size": sum(entry.size for entry in manifest.files.values()),
        "evidence.digest": f"sha256:{hashlib.sha256(compact(evidence)).hexdigest()}",
    }  # fmt: skip
    told = {f"{OURS}{key}": _word(value) for key, value in ours.items() if value is not None}
    general = {TITLE: manifest.name, "org.opencontainers.image.version": manifest.version}
    return {**general, **_created(manifest, "org.opencontainers.image.created"), **told}


def _names(folder: Path) -> Iterator[str]:
    """The files, the manifest first: who pulls needs it before all others."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    yield BUNDLE_MANIFEST
    yield from (name for name in found if name != BUNDLE_MANIFEST)


def _layer(folder: Path, name: str, manifest: Manifest) -> Layer:
    entry = manifest.files.get(name) or describe(folder / name)
    annotations = {TITLE: name, FILEPATH: name}
    kind = KINDS[_kind(name, manifest)]
    return Layer(Descriptor(kind, f"sha256:{entry.sha256}", entry.size, annotations), folder / name)


def _kind(name: str, manifest: Manifest) -> str:
    """Which of ModelPack's kinds a file is."""
    shadow = manifest.shadow.entry if manifest.shadow else None
    ending = Path(name).suffix.lower()
    if name in (manifest.entry, shadow):
        return "weight"
    if ending in DOCS or re.fullmatch(r"(?i)(LICENSE|NOTICE|README)(\.txt)?", Path(name).name):
        return "doc"
    return "code" if ending in CODE else "weight.config" if ending in BESIDE else "weight"


def _config(manifest: Manifest, layers: tuple[Layer, ...]) -> dict[str, Any]:
    """ModelPack's config. Its `modelfs` has the digests of the unpacked layers, which are the layers' own."""
    heard = HEARD.get(str((manifest.preprocess or {}).get("kind")))
    capabilities = {"capabilities": {"inputTypes": [heard]}} if heard else {}
    return {
        "descriptor": {"name": manifest.name, "version": manifest.version, **_created(manifest, "createdAt")},
        "config": {"format": manifest.format, "precision": manifest.precision, **capabilities},
        "modelfs": {"type": "layers", "diffIds": [layer.descriptor.digest for layer in layers]},
    }


def _created(manifest: Manifest, key: str) -> dict[str, str]:
    """When it was built, where `release` is a time; it may be any number that a person chose."""
    if not 10**9 <= manifest.release < 10**11:
        return {}
    when = datetime.datetime.fromtimestamp(manifest.release, datetime.UTC)
    return {key: when.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _table(evidence: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = evidence.get(key)
    return found if isinstance(found, Mapping) else {}


def _word(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:500]

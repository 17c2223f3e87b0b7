"""What an image says of a bundle, and what the cache keeps."""

import json
import os
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import BadBundle, EdgeKitError

from edgekit.oci.blobs import Blobs
from edgekit.oci.calls import connected
from edgekit.oci.downloading import download
from edgekit.oci.image import annotations_of, pack
from edgekit.oci.layout import read_layout, write_layout
from edgekit.oci.manifest import Descriptor, digest_of
from edgekit.oci.registry import Repository
from edgekit.oci.uploading import upload
from tests.oci.making import HASTE
from tests.registry_server import Registry

Versions = tuple[Path, Path]


def test_every_file_is_of_the_kind_that_model_pack_has_for_it(versions: Versions) -> None:
    kinds = {
        layer.descriptor.title: layer.descriptor.media_type.split(".model.")[1] for layer in pack(versions[0]).layers
    }
    assert kinds["model.onnx"] == kinds["extra.bin"] == kinds["float/more.bin"] == "weight.v1.raw"
    assert kinds["manifest.json"] == kinds["labels.txt"] == kinds["golden.npz"] == "weight.config.v1.raw"


def test_the_config_names_the_model_and_its_layers(versions: Versions) -> None:
    packed = pack(versions[0])
    config = json.loads(packed.config)
    assert config["descriptor"] == {"name": "tiny", "version": "1", "createdAt": "2023-11-14T22:13:21Z"}
    assert config["config"] == {"format": "onnx", "precision": "float32", "capabilities": {"inputTypes": ["image"]}}
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer.descriptor.digest for layer in packed.layers]}
    assert json.loads(packed.manifest)["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"


def test_the_annotations_tell_what_was_measured(versions: Versions) -> None:
    manifest = open_bundle(versions[0]).manifest
    evidence = {
        "quality": {"metric": "top1", "value": 0.7123456789, "drop": 0.004, "n": 500},
        "latency": {"median_ms": 12.5, "p90_ms": 14.25},
        "peak_mb": 78.8,
    }
    told = annotations_of(replace(manifest, evidence=evidence))
    ours = {key.removeprefix("io.edgekit."): value for key, value in told.items()}
    assert (ours["accuracy"], ours["drop"], ours["metric"], ours["samples"]) == ("0.712346", "0.004", "top1", "500")
    assert (ours["latency.median.ms"], ours["latency.p90.ms"], ours["memory.peak.mb"]) == ("12.5", "14.25", "78.8")
    assert (ours["target"], ours["precision"], ours["release"]) == ("here", "float32", "1700000001")
    assert ours["evidence.digest"] != annotations_of(manifest)["io.edgekit.evidence.digest"]
    assert all(isinstance(value, str) for value in told.values())


def test_a_layout_that_does_not_hold_together_is_refused(versions: Versions, tmp_path: Path) -> None:
    packed = pack(versions[0])
    for number, (name, content) in enumerate(
        {
            packed.descriptor.digest: b"{}",
            digest_of(packed.config): packed.config + b" ",
            packed.layers[1].descriptor.digest: b"cut",
        }.items()
    ):
        folder = tmp_path / str(number)
        write_layout(packed, folder)
        (folder / "blobs" / "sha256" / name.removeprefix("sha256:")).write_bytes(content)
        with pytest.raises(BadBundle):
            read_layout(folder)
    with pytest.raises(EdgeKitError, match="no OCI layout"):
        read_layout(tmp_path)


def test_large_files_go_and_come_in_little_memory(registry: Registry, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(2**20) * 48)
    blob = Descriptor("application/octet-stream", digest_of(large.read_bytes()), large.stat().st_size)
    with connected(registry.address, replace(HASTE, chunk=16 * 2**20)) as client:
        tracemalloc.start()
        try:
            upload(Repository(client, "large"), blob, large, None, lambda count: None)
            download(Repository(client, "large"), blob, Blobs(tmp_path / "cache"), lambda count: None)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * 2**20


def test_the_cache_gives_only_what_its_name_says_and_stays_small(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, limit=10)
    digest = digest_of(b"content")
    blobs.place(digest).write_bytes(b"content")
    assert blobs.find(digest, 7) == blobs.place(digest)
    blobs.place(digest).write_bytes(b"c0ntent")
    assert blobs.find(digest, 7) is None
    assert not blobs.place(digest).exists()
    for age, name in ((7200, "a" * 64), (5400, "b" * 64), (0, "c" * 64), (8 * 86400, f"{'d' * 64}.part")):
        (tmp_path / name).write_bytes(b"0123456789")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    blobs.trim()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["c"]

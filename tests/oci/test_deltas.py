"""What differs from an older image is fetched instead of the whole, where that is smaller."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.oci.calls import connected
from edgekit.oci.differences import BASE, DELTA, RESULT, find_deltas
from edgekit.oci.image import pack
from edgekit.oci.manifest import files_of, parse_image, parse_index
from edgekit.oci.reference import parse_reference
from edgekit.oci.registry import Repository, fallback_tag, find_manifest
from tests.oci.making import HASTE, Bench, make_versions
from tests.oci.test_round_trip import same
from tests.registry_server import Registry

pytestmark = pytest.mark.slow

Versions = tuple[Path, Path]
WEIGHTS = 200_000


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """A bundle with fewer weights, and its next version."""
    return make_versions(tmp_path_factory.mktemp("small"), WEIGHTS)


def test_a_delta_is_made_for_what_the_tag_named_before(bench: Bench, versions: Versions) -> None:
    bench.push(versions[0])
    sent = bench.push(versions[1])
    large = next(one for one in sent.deltas if one["file"] == "extra.bin")
    assert large["full"] == WEIGHTS
    assert large["bytes"] < WEIGHTS // 6
    assert all(one["bytes"] < one["full"] for one in sent.deltas)


def test_a_delta_is_fetched_where_the_older_bundle_is(bench: Bench, versions: Versions) -> None:
    bench.push(versions[0])
    small = sum(one["bytes"] for one in bench.push(versions[1]).deltas)
    found = bench.pull(base=versions[0], cache="empty")
    assert same(versions[1], bench.folder / "out")
    assert found.by_delta >= 1
    assert found.fetched_bytes < small + 10_000
    assert not list((bench.folder / "empty").glob("*.made"))


def test_a_delta_is_fetched_where_the_older_content_is_in_the_cache(bench: Bench, versions: Versions) -> None:
    bench.push(versions[0])
    bench.pull(cache="device")
    bench.push(versions[1])
    found = bench.pull(cache="device")
    assert found.fetched_bytes < WEIGHTS // 6
    assert same(versions[1], bench.folder / "out")


def test_a_delta_can_start_from_the_image_that_is_named(bench: Bench, versions: Versions) -> None:
    bench.push(versions[0], "old")
    assert not bench.push(versions[1], "new").deltas
    assert bench.push(versions[1], "new", older=bench.url("old")).deltas
    assert bench.pull("new", base=versions[0], cache="empty").by_delta >= 1
    with pytest.raises(EdgeKitError, match="there is no oci://"):
        bench.push(versions[1], "new", older=bench.url("never"))


def test_without_the_older_bundle_the_whole_is_fetched(bench: Bench, versions: Versions) -> None:
    bench.push(versions[0])
    bench.push(versions[1])
    found = bench.pull(cache="empty")
    assert found.fetched_bytes <= found.bytes
    assert found.fetched_bytes > WEIGHTS
    assert same(versions[1], bench.folder / "out")


def test_a_delta_that_was_lost_or_spoilt_is_no_harm(bench: Bench, versions: Versions, registry: Registry) -> None:
    bench.push(versions[0])
    digest = bench.push(versions[1]).digest
    with connected(registry.address, HASTE) as client:
        repository = Repository(client, parse_reference(bench.url()).repository)
        offered = list(find_deltas(repository, digest))
    large = max(offered, key=lambda one: one.size)
    kept = registry.blob(large.digest).read_bytes()
    try:
        registry.blob(large.digest).write_bytes(kept[:-20] + bytes(20))
        assert bench.pull(base=versions[0], cache="spoilt").fetched_bytes > WEIGHTS
        registry.blob(large.digest).unlink()
        assert bench.pull(base=versions[0], cache="lost").fetched_bytes > WEIGHTS
    finally:
        registry.blob(large.digest).write_bytes(kept)
    assert same(versions[1], bench.folder / "out")


def test_a_base_that_was_touched_is_no_harm(bench: Bench, versions: Versions) -> None:
    bench.push(versions[0])
    bench.push(versions[1])
    shutil.copytree(versions[0], bench.folder / "base")
    (bench.folder / "base" / "extra.bin").write_bytes(b"other")
    bench.pull(base=bench.folder / "base", cache="empty")
    assert same(versions[1], bench.folder / "out")


def test_deltas_are_kept_as_an_artifact_that_refers_to_the_image(
    bench: Bench, versions: Versions, registry: Registry
) -> None:
    bench.push(versions[0])
    digest = bench.push(versions[1]).digest
    bench.push(versions[0], "older")
    with connected(registry.address, HASTE) as client:
        repository = Repository(client, parse_reference(bench.url()).repository)
        listed = parse_index(find_manifest(repository, fallback_tag(digest)) or b"")
        artifact = parse_image(find_manifest(repository, listed[0].digest) or b"")
    assert [one.artifact_type for one in listed] == [DELTA]
    assert artifact.subject is not None
    assert artifact.subject.digest == digest
    bases, results = (files_of(parse_image(pack(one).manifest)) for one in versions)
    for layer in artifact.layers:
        assert layer.annotations[RESULT] in {one.digest for one in results.values()}
        empty = f"sha256:{hashlib.sha256().hexdigest()}"
        assert layer.annotations[BASE] in {empty, *(one.digest for one in bases.values())}


def test_pushing_twice_offers_a_delta_once(bench: Bench, versions: Versions, registry: Registry) -> None:
    bench.push(versions[0], "old")
    for _ in range(2):
        digest = bench.push(versions[1], "new", older=bench.url("old")).digest
    with connected(registry.address, HASTE) as client:
        repository = Repository(client, parse_reference(bench.url()).repository)
        assert len(parse_index(find_manifest(repository, fallback_tag(digest)) or b"")) == 1


def test_deltas_can_be_left_out(bench: Bench, versions: Versions) -> None:
    from tests.commands import edgekit

    bench.push(versions[0])
    words = ("--no-deltas", "--json", "--quiet", "--cache", bench.folder)
    assert edgekit("push", versions[1], bench.url(), *words).json()["deltas"] == []
    assert replace(bench, folder=bench.folder).pull(base=versions[0], cache="empty").by_delta == 0

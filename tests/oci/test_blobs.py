"""The cache of pulled content: what is in use stays, the rest goes when it is asked for, and a disk is never filled."""

import shutil
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.oci import differences
from edgekit.oci.blobs import Blobs
from edgekit.oci.calls import connected
from edgekit.oci.differences import announce, apply, artifact
from edgekit.oci.fetching import RESERVE, _refuse_to_fill
from edgekit.oci.image import pack
from edgekit.oci.manifest import Descriptor, compact, digest_of, parse_index
from edgekit.oci.reference import parse_reference
from edgekit.oci.registry import Repository, fallback_tag, find_manifest
from tests.commands import edgekit
from tests.oci.making import HASTE, Bench

pytestmark = pytest.mark.slow


def test_what_was_pulled_is_told_and_cleared_with_the_cache(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / ("a" * 64)).write_bytes(b"x" * 2_000_000)
    (blobs / f"{'b' * 64}.part").write_bytes(b"x" * 1_000_000)
    told = edgekit("cache", "--cache", tmp_path).out
    assert any("pulled content" in line and " 2 " in line and "3.0" in line for line in told.splitlines()), told
    assert "3.0" in edgekit("cache", "--cache", tmp_path, "clear").out
    assert not list(blobs.iterdir())
    assert "pulled content" not in edgekit("cache", "--cache", tmp_path).out


def test_what_is_being_fetched_is_not_cleared(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest = digest_of(b"content")
    with blobs.writing(digest) as descriptor:
        assert descriptor is not None
        assert blobs.clear() == 0
        assert blobs.keep(digest, descriptor).is_file()
    assert blobs.clear() == 0
    assert blobs.size() == (0, 0)


def test_the_cache_and_the_bundle_on_one_disk_need_room_for_both(tmp_path: Path) -> None:
    half = (shutil.disk_usage(tmp_path).free - RESERVE) * 6 // 10
    _refuse_to_fill(tmp_path / "out", tmp_path / "cache", half, 0)
    with pytest.raises(EdgeKitError, match="are to be written"):
        _refuse_to_fill(tmp_path / "out", tmp_path / "cache", half, half)


def test_a_delta_that_went_meanwhile_is_fetched_whole(tmp_path: Path) -> None:
    wanted = Descriptor("x", digest_of(b"content"), 7)
    assert not apply(tmp_path / "gone", None, tmp_path / "out", wanted)
    (tmp_path / "delta").write_bytes(b"")
    assert not apply(tmp_path / "delta", tmp_path / "gone", tmp_path / "out", wanted)


def test_two_that_announce_at_once_are_both_listed(
    bench: Bench, versions: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another, who looked at the list before we wrote it, writes it after us, without what we added."""
    bench.push(versions[0])
    packed = pack(versions[1])
    bench.push(versions[1])
    tag, real, others = fallback_tag(packed.descriptor.digest), differences.put_manifest, [True, True]
    with connected(parse_reference(bench.url()).registry, HASTE) as client:
        repository = Repository(client, parse_reference(bench.url()).repository)
        before = find_manifest(repository, tag) or b""

        def put(repository: Repository, name: str, raw: bytes, kind: str) -> bool:
            noted = real(repository, name, raw, kind)
            if name == tag and others:
                others.pop()
                real(repository, name, before, kind)
            return noted

        monkeypatch.setattr(differences, "put_manifest", put)
        ours = compact(artifact(packed.descriptor, []))
        announce(repository, packed.descriptor, ours)
        listed = {one.digest for one in parse_index(find_manifest(repository, tag) or b"")}
    assert not others
    assert listed == {digest_of(ours), *(one.digest for one in parse_index(before))}
    assert len(listed) == 2

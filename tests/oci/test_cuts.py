"""Connections are cut in the middle, and what was sent or had is not sent or fetched again."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.oci.blobs import Blobs
from edgekit.oci.calls import Access, connected
from edgekit.oci.downloading import download
from edgekit.oci.image import pack
from edgekit.oci.manifest import Descriptor, digest_of
from edgekit.oci.reference import parse_reference
from edgekit.oci.registry import Repository, has_blob
from edgekit.oci.uploading import upload
from tests.oci.making import HASTE, WEIGHTS, Bench
from tests.oci.test_round_trip import same
from tests.registry_server import Registry, gathering, line

pytestmark = pytest.mark.slow

OVER = 400_000
"""Bytes of headers, of other files and of what is on its way when a line is cut."""
SIZE = 2_000_000


def some(seed: bytes) -> tuple[Descriptor, bytes]:
    content = (seed + os.urandom(64)) * (SIZE // (64 + len(seed)))
    return Descriptor("application/octet-stream", digest_of(content), len(content)), content


def test_a_download_that_was_cut_goes_on_where_it_was(bench: Bench, versions: tuple[Path, Path]) -> None:
    bench.push(versions[0])
    with line(bench.address, "down", WEIGHTS // 3, cuts=2) as cut:
        found = replace(bench, address=cut.address).pull()
        assert cut.cuts == 2
        assert found.fetched_bytes == found.bytes
        assert WEIGHTS < cut.down < WEIGHTS + OVER
    assert same(versions[0], bench.folder / "out")


def test_a_download_goes_on_in_the_next_run(bench: Bench, versions: tuple[Path, Path]) -> None:
    bench.push(versions[0])
    with line(bench.address, "down", WEIGHTS // 2, cuts=9) as cut:
        with pytest.raises(EdgeKitError, match="cut"):
            replace(bench, address=cut.address).pull(access=replace(HASTE, tries=1))
        assert not (bench.folder / "out").exists()
        parts = list((bench.folder / "cache").glob("*.part"))
        assert [path.stat().st_size > WEIGHTS // 4 for path in parts] == [True]
        before, cut.left = cut.down, 0
        replace(bench, address=cut.address).pull()
        assert cut.down - before < WEIGHTS * 3 // 4
    assert same(versions[0], bench.folder / "out")
    assert not list((bench.folder / "cache").glob("*.part"))


def test_a_part_that_was_damaged_does_not_spoil_what_comes(bench: Bench, versions: tuple[Path, Path]) -> None:
    bench.push(versions[0])
    blob = pack(versions[0]).layers[3].descriptor
    bench.blobs.root.mkdir()
    bench.blobs.part(blob.digest).write_bytes(b"\0" * (blob.size // 2))
    with pytest.raises(EdgeKitError, match="what came is not"):
        bench.pull()
    bench.pull()
    assert same(versions[0], bench.folder / "out")


def test_an_upload_that_was_cut_goes_on_at_the_last_chunk(registry: Registry, tmp_path: Path) -> None:
    """nginx hands chunks on whole, so that the registry's own count of them stays right."""
    blob, content = some(b"gathered")
    with gathering(tmp_path, registry) as gathered, line(gathered, "up", SIZE // 2, cuts=2) as cut:
        with connected(cut.address, HASTE) as client:
            repository = Repository(client, "cut/up")
            heard: list[int] = []
            assert upload(repository, blob, content, None, heard.append)
            assert has_blob(repository, blob)
        assert cut.cuts >= 1
        assert SIZE <= cut.up < SIZE + cut.cuts * HASTE.chunk + OVER // 4
        assert heard == sorted(set(heard))
    assert registry.blob(blob.digest).read_bytes() == content


def test_an_upload_goes_on_though_docker_forgets_it(registry: Registry) -> None:
    """Cut within a chunk, Docker's registry refuses what it had; that blob, and no other, begins anew."""
    blob, content = some(b"straight")
    with line(registry.address, "up", SIZE // 2, cuts=1) as cut:
        with connected(cut.address, HASTE) as client:
            assert upload(Repository(client, "cut/straight"), blob, content, None, lambda count: None)
        assert cut.cuts == 1
        assert cut.up < SIZE * 1.5 + HASTE.chunk + OVER
    assert registry.blob(blob.digest).read_bytes() == content


def test_a_push_that_was_cut_sends_no_finished_file_again(bench: Bench, versions: tuple[Path, Path]) -> None:
    with line(bench.address, "up", WEIGHTS // 2, cuts=99) as cut:
        with pytest.raises(EdgeKitError):
            replace(bench, address=cut.address).push(versions[0])
        assert cut.cuts < 20  # what never gets further is given up
        cut.left = 0
        again = replace(bench, address=cut.address).push(versions[0])
    assert again.there >= 2
    bench.pull()
    assert same(versions[0], bench.folder / "out")


def test_a_registry_that_stays_away_is_given_up(bench: Bench, versions: tuple[Path, Path]) -> None:
    bench.push(versions[0])
    waits: list[float] = []
    access = replace(HASTE, tries=4, pause=waits.append)
    blob = next(one.descriptor for one in pack(versions[0]).layers if one.descriptor.size == WEIGHTS)
    name, other = parse_reference(bench.url()).repository, Blobs(bench.folder / "other")
    with line(bench.address, "down", 1) as cut, connected(cut.address, access) as client:
        cut.left = 10**6
        with pytest.raises(EdgeKitError, match="cut"):
            download(Repository(client, name), blob, other, lambda count: None)
    assert len(waits) == 3
    assert waits[0] <= 0.5 <= waits[-1] <= 2.0


def test_nothing_listens_there(tmp_path: Path) -> None:
    from tests.registry_server import free_port

    with (
        pytest.raises(EdgeKitError, match="no registry answers") as caught,
        connected(f"127.0.0.1:{free_port()}", Access(pause=lambda seconds: None)),
    ):
        pass
    assert "network" in caught.value.hint

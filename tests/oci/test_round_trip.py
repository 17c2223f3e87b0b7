"""Bundles go to Debian's docker-registry and come back, whole, once, and only where they may be."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgekit_runtime.bundle import describe, open_bundle
from edgekit_runtime.errors import EdgeKitError

from edgekit.oci.image import pack
from edgekit.oci.layout import read_layout, write_layout
from edgekit.oci.manifest import files_of, parse_image
from edgekit.oci.reference import parse_reference
from tests.commands import edgekit
from tests.oci.making import WEIGHTS, Bench
from tests.registry_server import Registry

pytestmark = pytest.mark.slow

Versions = tuple[Path, Path]


def same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files."""
    left, right = ({p.relative_to(f): describe(p) for p in f.rglob("*") if p.is_file()} for f in (a, b))
    return left == right


def test_a_bundle_comes_back_as_it_went(bench: Bench, versions: Versions) -> None:
    sent = bench.push(versions[0])
    found = bench.pull()
    assert same(versions[0], bench.folder / "out")
    assert open_bundle(bench.folder / "out").manifest.version == "1"
    assert found.digest == sent.digest == pack(versions[0]).descriptor.digest
    assert found.fetched_bytes == found.bytes == sent.bytes
    assert sent.sent == found.files + 1


def test_the_same_bundle_has_the_same_digest_wherever_it_lies(versions: Versions, tmp_path: Path) -> None:
    shutil.copytree(versions[0], tmp_path / "copy")
    assert pack(tmp_path / "copy").descriptor == pack(versions[0]).descriptor
    assert pack(versions[1]).descriptor != pack(versions[0]).descriptor


def test_what_is_there_is_not_sent_again(bench: Bench, versions: Versions) -> None:
    first = bench.push(versions[0])
    again = bench.push(versions[0])
    assert (again.sent, again.sent_bytes, again.there) == (0, 0, first.sent)
    assert bench.push(versions[1], "2").sent_bytes < WEIGHTS + 20_000


def test_what_is_here_is_not_fetched_again(bench: Bench, versions: Versions) -> None:
    bench.push(versions[0])
    bench.pull()
    again = bench.pull(out="again")
    assert (again.fetched_bytes, again.here) == (0, again.files)
    based = bench.pull(base=versions[0], cache="other", out="based")
    assert (based.fetched_bytes, based.here) == (0, based.files)
    assert same(versions[0], bench.folder / "based")


def test_blobs_of_another_repository_are_mounted(bench: Bench, versions: Versions) -> None:
    sent = bench.push(versions[0])
    mine = parse_reference(bench.url()).repository
    done = edgekit(
        "push", versions[0], bench.url(repository=f"{mine}/next"), "--delta-from", bench.url(), "--json", "--quiet",
        "--cache", bench.folder,
    )  # fmt: skip
    assert done.code == 0, done.err
    facts = done.json()
    assert (facts["mounted"], facts["sent"], facts["sent_bytes"], facts["there"]) == (sent.sent, 0, 0, 0)


def test_a_layout_holds_the_image_and_is_pushed_like_a_bundle(bench: Bench, versions: Versions) -> None:
    done = edgekit("pack", versions[0], "--out", bench.folder / "tiny.oci", "--json")
    assert done.code == 0, done.err
    facts = done.json()
    assert facts["digest"] == pack(versions[0]).descriptor.digest
    assert facts["annotations"]["io.edgekit.target"] == "here"
    assert facts["annotations"]["io.edgekit.accuracy"] == "0.91"
    assert json.loads((bench.folder / "tiny.oci" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert bench.push(bench.folder / "tiny.oci").digest == facts["digest"]
    bench.pull()
    assert same(versions[0], bench.folder / "out")


def test_packing_replaces_a_layout_and_nothing_else(versions: Versions, tmp_path: Path) -> None:
    for version in versions:
        write_layout(pack(version), tmp_path / "x.oci")
    assert read_layout(tmp_path / "x.oci").descriptor == pack(versions[1]).descriptor
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary").write_text("dear")
    with pytest.raises(EdgeKitError, match="not an OCI layout"):
        write_layout(pack(versions[0]), tmp_path / "mine")
    assert (tmp_path / "mine" / "diary").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "x.oci"]


def test_what_a_killed_packing_left_goes_with_the_next(versions: Versions, tmp_path: Path) -> None:
    code = "import os, sys\nfrom pathlib import Path\nfrom edgekit.oci import image, layout\n"
    code += "layout.sync = lambda path: os.kill(os.getpid(), 9)\n"
    code += "layout.write_layout(image.pack(Path(sys.argv[1])), Path(sys.argv[2]))"
    killed = subprocess.run([sys.executable, "-c", code, versions[0], tmp_path / "x.oci"], timeout=120)
    assert killed.returncode == -9
    assert not (tmp_path / "x.oci").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".x.oci.building"]
    write_layout(pack(versions[0]), tmp_path / "x.oci")
    assert read_layout(tmp_path / "x.oci").descriptor == pack(versions[0]).descriptor
    assert [path.name for path in tmp_path.iterdir()] == ["x.oci"]


def test_a_dry_run_sends_and_writes_nothing(bench: Bench, versions: Versions) -> None:
    done = edgekit("push", versions[0], bench.url(), "--dry-run", "--json", "--quiet", "--cache", bench.folder)
    assert done.json()["sent"] > 3
    with pytest.raises(EdgeKitError, match="there is no oci://"):
        bench.pull()
    bench.push(versions[0])
    told = edgekit(
        "pull", bench.url(), "--out", bench.folder / "new", "--dry-run", "--json", "--quiet", "--cache", bench.folder
    )
    assert told.json()["fetched_bytes"] > WEIGHTS
    assert not (bench.folder / "new").exists()
    made = edgekit("pack", versions[0], "--out", bench.folder / "new.oci", "--dry-run", "--quiet")
    assert made.code == 0
    assert not (bench.folder / "new.oci").exists()


def test_the_command_line_says_what_went_and_what_came(bench: Bench, versions: Versions) -> None:
    pushed = edgekit("push", versions[0], bench.url(), "--cache", bench.folder)
    assert pushed.code == 0
    assert "sending extra.bin: 3.15 MB" in pushed.err
    assert pack(versions[0]).descriptor.digest in pushed.out
    pulled = edgekit("pull", bench.url(), "--out", bench.folder / "new", "--cache", bench.folder)
    assert "fetching extra.bin" in pulled.err
    assert "is whole" in pulled.out


def test_nothing_is_pulled_over_what_is_no_bundle(bench: Bench, versions: Versions) -> None:
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / "diary").write_text("dear")
    with pytest.raises(EdgeKitError, match="is not a bundle"):
        bench.pull()


def test_a_touched_bundle_is_not_pushed(bench: Bench, versions: Versions) -> None:
    shutil.copytree(versions[0], bench.folder / "touched")
    (bench.folder / "touched" / "extra.bin").write_bytes(b"no")
    with pytest.raises(EdgeKitError, match="was touched"):
        bench.push(bench.folder / "touched")


def test_a_layout_that_was_touched_is_not_taken_by_the_registry(bench: Bench, versions: Versions) -> None:
    packed = pack(versions[0])
    write_layout(packed, bench.folder / "x.oci")
    blob = bench.folder / "x.oci" / "blobs" / "sha256" / packed.layers[2].descriptor.digest.removeprefix("sha256:")
    raw = bytearray(blob.read_bytes())
    raw[0] ^= 1
    blob.write_bytes(raw)
    with pytest.raises(EdgeKitError, match=packed.layers[2].descriptor.digest):
        bench.push(bench.folder / "x.oci")


def test_a_blob_that_the_registry_lost_is_told(bench: Bench, versions: Versions, registry: Registry) -> None:
    (versions[1] / "model.onnx").stat()
    bench.push(versions[1], "lost")
    image = parse_image(pack(versions[1]).manifest)
    gone = files_of(image)["extra.bin"].digest
    kept = registry.blob(gone).read_bytes()
    registry.blob(gone).unlink()
    try:
        with pytest.raises(EdgeKitError, match="404"):
            bench.pull("lost")
        assert not (bench.folder / "out").exists()
    finally:
        registry.blob(gone).write_bytes(kept)


def test_a_tag_that_is_not_there_is_told(bench: Bench) -> None:
    with pytest.raises(EdgeKitError, match="there is no oci://") as caught:
        bench.pull("never")
    assert "tag" in caught.value.hint


def test_an_empty_file_goes_and_comes(bench: Bench, tmp_path: Path) -> None:
    from edgekit_runtime.bundle import read_manifest

    from tests.runtime.bundles import listed, make_bundle

    bundle = make_bundle(tmp_path / "hollow")
    (bundle / "notes.txt").write_bytes(b"")
    listed(bundle, read_manifest(bundle))
    bench.push(bundle)
    bench.pull()
    assert same(bundle, bench.folder / "out")

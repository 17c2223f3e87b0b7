"""What a build, an encryption and a packing say of keys and places, before and after."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import FileEntry

from edgekit import keys
from edgekit.encrypting import read_device
from edgekit.ordering import parse_expiry
from edgekit.sbom import sbom
from tests.commands import edgekit
from tests.runtime.bundles import make_bundle


@pytest.mark.parametrize("text", ["2127-12-31T10:00+02:00", "2127-12-31 10:00", "2127-12-31T23:59:59"])
def test_a_bundle_expires_at_the_end_of_a_day_in_utc_and_no_hour_is_misread(text):
    assert datetime.fromtimestamp(parse_expiry("2127-12-31"), UTC) == datetime(2128, 1, 1, tzinfo=UTC)
    with pytest.raises(EdgeKitError, match="no day"):
        parse_expiry(text)


def test_a_device_key_that_is_none_is_named_and_not_read_without_end(tmp_path):
    for place in (Path("/dev/zero"), tmp_path, tmp_path / "none"):
        with pytest.raises(EdgeKitError, match=str(place)) as caught:
            read_device(place)
        assert "--for" in caught.value.hint


@pytest.mark.parametrize("verb", ["pack", "encrypt"])
def test_an_out_below_a_file_is_an_error_in_words(tmp_path, verb):
    bundle, home = make_bundle(tmp_path / "tiny"), tmp_path / "keys"
    keys.new(home, "main")
    (tmp_path / "file").write_text("mine")
    more = [] if verb == "pack" else ["--for", home / "main.pub", "--keys", home]
    done = edgekit(verb, bundle, "--out", tmp_path / "file" / "x" / "y", *more)
    assert f"{tmp_path / 'file'} is no folder" in done.error()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", ["pack", "encrypt"])
def test_the_root_of_all_folders_is_not_replaced(tmp_path, verb):
    bundle, home = make_bundle(tmp_path / "tiny"), tmp_path / "keys"
    keys.new(home, "main")
    more = [] if verb == "pack" else ["--for", home / "main.pub", "--keys", home]
    assert "exists and is not" in edgekit(verb, bundle, "--out", "/", *more).error()


@pytest.mark.slow
def test_the_first_build_says_which_keys_it_made_and_the_next_does_not(shelf, desk):
    words = ("build", shelf / "digits.onnx", "--target", "x86-64-v3", "--precision", "float32", "--keys", desk / "keys")
    words += ("--cache", shelf / "cache", "--out", desk / "out", "--quiet")
    first = edgekit(*words)
    assert first.code == 0, first.err
    assert f"made {desk / 'keys'}" in first.err
    assert "root.key" in first.err
    assert "made" not in edgekit(*words).err


def test_what_only_went_into_the_build_is_not_told_as_in_the_bundle(tmp_path):
    from edgekit_runtime.bundle import read_manifest

    manifest = read_manifest(make_bundle(tmp_path / "tiny"))
    data = {"evaluation": {"sha256": "0" * 64, "n": 3}}
    facts = {"edgekit": "1", "sentence": "a model", "tools": {"torch": "2"}, "data": data}
    bill = sbom(manifest, facts, {"model.onnx": FileEntry("0" * 64, 1)}, "2026-01-01T00:00:00Z")
    scopes = {one["name"]: one.get("scope") for one in bill["components"]}
    assert scopes == {"model.onnx": None, "evaluation data": "excluded", "torch": "excluded"}

"""Who signed a bundle is told by the trust that lies here; what nobody vouches for is never called trusted."""

import shutil
from pathlib import Path

import pytest
from edgekit_runtime.bundle import MANIFEST
from edgekit_runtime.errors import NotFound, Untrusted
from edgekit_runtime.signature import SIGNATURE

from edgekit import keys
from edgekit.vouching import Signer, signer_of
from tests.commands import edgekit
from tests.runtime.bundles import make_bundle
from tests.runtime.signing import sign_folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    keys.new(tmp_path / "keys", "main")
    return tmp_path / "keys"


@pytest.fixture
def bundle(tmp_path: Path, home: Path) -> Path:
    return sign_folder(make_bundle(tmp_path / "tiny"), keys.signing_key(home))


def test_a_key_that_is_trusted_is_named(bundle, home):
    by = signer_of(bundle, home)
    assert by == Signer(keys.listed(home)[1].fingerprint, "main")
    assert by.words.startswith("signed by main (")


def test_a_stranger_and_nobody_are_told_as_such(bundle, home, tmp_path):
    keys.new(tmp_path / "others", "main")
    for place in (tmp_path / "others", tmp_path / "none"):
        by = signer_of(bundle, place)
        assert (by.key, by.name) == (keys.listed(home)[1].fingerprint, None)
        assert "nobody here vouches for" in by.words
    (bundle / SIGNATURE).unlink()
    assert signer_of(bundle, home) == Signer()
    assert signer_of(bundle, home).words == "not signed"


def test_a_key_that_was_revoked_is_refused_and_a_rotated_one_is_not(bundle, home):
    old = keys.listed(home)[1]
    keys.rotate(home, "main")
    assert signer_of(bundle, home).name == f"main-{old.fingerprint[:12]}"
    keys.revoke(home, old.fingerprint, "left on a train")
    with pytest.raises(Untrusted, match="left on a train") as caught:
        signer_of(bundle, home)
    assert caught.value.reason == "revoked"


@pytest.mark.parametrize("act", ["touched", "added", "removed", "another's", "torn", "manifest"])
def test_a_signature_that_is_not_over_these_files_is_refused(bundle, home, tmp_path, act):
    other = sign_folder(make_bundle(tmp_path / "other", version="2"), keys.signing_key(home))
    if act == "touched":
        (bundle / "labels.txt").write_text("touched\n")
    elif act == "added":
        (bundle / "more.txt").write_text("more\n")
    elif act == "removed":
        (bundle / "labels.txt").unlink()
    elif act == "manifest":
        shutil.copyfile(other / MANIFEST, bundle / MANIFEST)
    elif act == "torn":
        (bundle / SIGNATURE).write_bytes((bundle / SIGNATURE).read_bytes()[:-10])
    else:
        shutil.copyfile(other / SIGNATURE, bundle / SIGNATURE)
    with pytest.raises(Untrusted):
        signer_of(bundle, home)


def test_inspect_names_the_key_by_the_folder_of_keys(bundle, home, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "not" in edgekit("inspect", bundle, "--device", tmp_path / "none").out  # there is no folder of keys yet
    (tmp_path / "edgekit").mkdir()
    home.rename(keys.default_home())
    key = keys.listed(keys.default_home())[1]
    assert edgekit("inspect", bundle, "--json").json()["signed"]["state"] == "trusted"
    assert f"by main ({key.fingerprint[:12]}): trusted here" in edgekit("inspect", bundle).out
    keys.new(keys.default_home(), "next")
    keys.revoke(keys.default_home(), "main", "left on a train")
    assert "REVOKED: left on a train" in edgekit("inspect", bundle).out


def test_where_no_bundle_is_it_is_said(home, tmp_path):
    with pytest.raises(NotFound, match="no bundle at"):
        signer_of(tmp_path / "nothing", home)


@pytest.fixture
def device(tmp_path: Path, home: Path) -> Path:
    made = keys.new(tmp_path / "device", "device")
    assert made.private is not None
    return made.private.with_suffix(".pub")


def test_what_a_stranger_made_is_not_signed_by_us_without_a_word(bundle, home, device, tmp_path):
    words = ("encrypt", bundle, "--for", device, "--out", tmp_path / "for-device", "--keys")
    assert "warning" not in edgekit(*words, home).err
    keys.new(tmp_path / "mine", "main")
    done = edgekit(*words, tmp_path / "mine")
    assert done.code == 0
    assert "nobody here vouches for" in done.err
    (bundle / SIGNATURE).unlink()
    assert "not signed" in edgekit(*words, tmp_path / "mine").err


def test_what_a_revoked_key_signed_is_not_signed_anew(bundle, home, device, tmp_path):
    old = keys.listed(home)[1]
    keys.rotate(home, "main")
    keys.revoke(home, old.fingerprint, "left on a train")
    done = edgekit("encrypt", bundle, "--for", device, "--out", tmp_path / "for-device", "--keys", home)
    assert "left on a train" in done.error()
    assert not (tmp_path / "for-device").exists()


def test_nothing_is_made_for_a_bundle_that_is_not_there(device, tmp_path):
    done = edgekit("encrypt", tmp_path / "no", "--for", device, "--keys", tmp_path / "fresh")
    assert "no bundle at" in done.error()
    assert not (tmp_path / "fresh").exists()

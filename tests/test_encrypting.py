"""Encrypting a bundle: what is loaded can be read on one device alone, and a bundle it stays, signed as it lies."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from edgekit_runtime import encrypted
from edgekit_runtime.__main__ import main as runtime
from edgekit_runtime.bundle import MANIFEST, open_bundle
from edgekit_runtime.encrypted import CHUNK
from edgekit_runtime.errors import BadBundle, EdgeKitError, NotFound
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.signature import SIGNATURE, parse_signature

from edgekit import keys
from edgekit.cli_encrypt import encrypt
from edgekit.encrypting import READABLE, encrypt_bundle, read_device
from tests.runtime.bundles import add_baseline, add_shadow, listed, make_bundle

DEVICE, SIGNER = new_private_key(), new_private_key()
LOADED = {"model.onnx", "float.onnx", "labels.txt", "golden.npz", "baseline.json"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with all that one can have; the vocabulary stands for a file that only preprocessing names."""
    folder = add_shadow(add_baseline(make_bundle(tmp_path / "tiny.edgekit"), 50))
    for name in sorted(READABLE):
        (folder / name).write_text(f"the text of {name}")
    (folder / "vocab.txt").write_text("[UNK]\n")
    return listed(folder, open_manifest(folder))


def open_manifest(folder: Path) -> Any:
    from edgekit_runtime.bundle import read_manifest

    return read_manifest(folder)


def raw_manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def encrypted_one(bundle: Path, device: bytes = DEVICE) -> Path:
    place = bundle.with_name("locked.edgekit")
    encrypt_bundle(bundle, public_of(device), place, SIGNER)
    return place


def test_all_that_is_loaded_is_encrypted_and_comes_back_on_the_device(bundle: Path) -> None:
    place = encrypted_one(bundle)
    raw = raw_manifest(place)
    field = encrypted.parse(raw["encrypted"])
    encrypted.check(field, {name: entry["size"] for name, entry in raw["files"].items()})
    assert set(field.files) == LOADED | {"vocab.txt"}
    key = encrypted.unwrap(field, DEVICE, raw["name"], raw["version"])
    for name, plain in field.files.items():
        stored = (place / name).read_bytes()
        assert b"".join(encrypted.decrypt(key, name, plain, [stored])) == (bundle / name).read_bytes()


def test_nothing_of_what_is_encrypted_can_be_read(bundle: Path) -> None:
    place = encrypted_one(bundle)
    everything = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    for name in LOADED:
        content = (bundle / name).read_bytes()
        assert content[:16] not in everything, name
        assert content[-16:] not in everything, name


def test_reports_stay_readable_and_the_rest_of_the_manifest_as_it_was(bundle: Path) -> None:
    place = encrypted_one(bundle)
    for name in READABLE:
        assert (place / name).read_text() == f"the text of {name}"
    before, after = raw_manifest(bundle), raw_manifest(place)
    assert {**after, "files": None, "encrypted": None} == {**before, "files": None, "encrypted": None}


def test_the_manifest_lists_and_the_signature_covers_what_lies_there(bundle: Path) -> None:
    place = encrypted_one(bundle)
    lying = {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in place.rglob("*")
        if path.is_file() and path.name != SIGNATURE
    }
    signed = parse_signature((place / SIGNATURE).read_bytes()).proven(public_of(SIGNER))
    assert signed.files == lying
    del lying[MANIFEST]
    assert {name: entry["sha256"] for name, entry in raw_manifest(place)["files"].items()} == lying


def test_external_data_and_folders_are_encrypted_too(bundle: Path) -> None:
    (bundle / "model.onnx.data").write_bytes(bytes(2 * CHUNK))
    (bundle / "empty.bin").write_bytes(b"")
    listed(bundle, open_manifest(bundle))
    place = encrypted_one(bundle)
    field = encrypted.parse(raw_manifest(place)["encrypted"])
    key = encrypted.unwrap(field, DEVICE, "tiny", "1")
    for name in ("model.onnx.data", "empty.bin"):
        pieces = encrypted.decrypt(key, name, field.files[name], [(place / name).read_bytes()])
        assert b"".join(pieces) == (bundle / name).read_bytes()


def test_two_devices_get_bundles_of_which_each_opens_its_own_alone(bundle: Path) -> None:
    other, place = new_private_key(), encrypted_one(bundle)
    second = bundle.with_name("second.edgekit")
    encrypt_bundle(bundle, public_of(other), second, SIGNER)
    mine, theirs = (encrypted.parse(raw_manifest(one)["encrypted"]) for one in (place, second))
    with pytest.raises(BadBundle, match="for the device"):
        encrypted.unwrap(theirs, DEVICE, "tiny", "1")
    key = encrypted.unwrap(mine, DEVICE, "tiny", "1")
    with pytest.raises(BadBundle, match="does not decrypt"):
        list(encrypted.decrypt(key, "model.onnx", theirs.files["model.onnx"], [(second / "model.onnx").read_bytes()]))


def test_a_bundle_that_is_encrypted_already_is_refused(bundle: Path) -> None:
    place = encrypted_one(bundle)
    with pytest.raises(EdgeKitError, match="is encrypted already"):
        encrypt_bundle(place, public_of(DEVICE), bundle.with_name("twice.edgekit"), SIGNER)
    assert not bundle.with_name("twice.edgekit").exists()


def test_a_touched_bundle_is_refused_and_nothing_is_made(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("others")
    with pytest.raises(BadBundle, match="was touched"):
        encrypted_one(bundle)
    assert not bundle.with_name("locked.edgekit").exists()


def test_the_readable_bundle_is_never_replaced_by_the_encrypted_one(bundle: Path) -> None:
    with pytest.raises(EdgeKitError, match="is the bundle itself"):
        encrypt_bundle(bundle, public_of(DEVICE), bundle, SIGNER)
    open_bundle(bundle)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no bundle"):
        encrypt_bundle(tmp_path, public_of(DEVICE), tmp_path / "out", None)
    (tmp_path / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(BadBundle, match="is not JSON"):
        encrypt_bundle(tmp_path, public_of(DEVICE), tmp_path / "out", None)


@pytest.mark.parametrize(
    ("raw", "words"),
    [(None, "no key at"), (b"words", "no public key"), (DEVICE, "is a private key"), (b"", "no public key")],
)
def test_what_is_no_devices_key_is_refused(tmp_path: Path, raw: bytes | None, words: str) -> None:
    if raw is not None:
        (tmp_path / "device.pub").write_bytes(raw)
    with pytest.raises(EdgeKitError, match=words):
        read_device(tmp_path / "device.pub")


def test_the_command_makes_a_signed_bundle_and_tells_what_stays_readable(bundle: Path, tmp_path: Path) -> None:
    device, home, place = tmp_path / "pi.pub", tmp_path / "keys", tmp_path / "out.edgekit"
    device.write_bytes(public_of(DEVICE).pem)
    keys.new(home, "main")
    words = [str(bundle), "--for", str(device), "--out", str(place), "--keys", str(home)]
    done = CliRunner().invoke(encrypt, words, catch_exceptions=False)
    assert done.exit_code == 0
    encrypted_line, readable_line = done.output.splitlines()[-2:]
    assert "model.onnx" in encrypted_line
    assert "manifest.json" in readable_line
    assert "report.json" in readable_line
    signer = public_of(keys.signing_key(home))
    assert "model.onnx" in parse_signature((place / SIGNATURE).read_bytes()).proven(signer).files
    facts = json.loads(CliRunner().invoke(encrypt, [*words, "--json"], catch_exceptions=False).stdout)
    assert facts["for"] == public_of(DEVICE).fingerprint
    assert set(facts["encrypted"]) == LOADED | {"vocab.txt"}


def test_what_stays_readable_of_an_encrypted_bundle_is_shown(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    device, home, place = tmp_path / "pi.pub", tmp_path / "keys", tmp_path / "out.edgekit"
    device.write_bytes(public_of(DEVICE).pem)
    keys.new(home, "main")
    words = [str(bundle), "--for", str(device), "--out", str(place), "--keys", str(home)]
    assert CliRunner().invoke(encrypt, words, catch_exceptions=False).exit_code == 0
    assert runtime(["inspect", str(place), "--trust", str(home / keys.TRUST)]) == 0
    page = capsys.readouterr().out
    assert "signed      by main" in page
    assert "labels      encrypted" in page

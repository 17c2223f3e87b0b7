"""Who signed a bundle is told by a trust document, and nothing that was not proven is called trusted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from edgekit_runtime.__main__ import main
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.signature import SIGNATURE
from edgekit_runtime.signed_by import Signer, signer_here, signer_of
from edgekit_runtime.trust import Revoked, Trust, made_trust

from tests.runtime.bundles import make_bundle
from tests.runtime.signing import NOW, sign_folder, trusting

ROOT, BENCH = new_private_key(), new_private_key()
FINGERPRINT = public_of(BENCH).fingerprint
TRUST = trusting(ROOT, bench=BENCH)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return sign_folder(make_bundle(tmp_path / "tiny"), BENCH)


def told(bundle: Path, trust: Trust | None = TRUST) -> Signer:
    return signer_of(open_bundle(bundle), trust, NOW)


def test_a_trusted_key_is_told_by_its_name(bundle: Path) -> None:
    assert told(bundle) == Signer("trusted", FINGERPRINT, "bench")
    assert told(bundle).words == f"by bench ({FINGERPRINT[:12]}): trusted here"


def test_a_revoked_key_an_expired_one_and_a_strangers_are_told_as_what_they_are(bundle: Path) -> None:
    gone = replace(TRUST, revoked=(Revoked(FINGERPRINT, "left on a train", 0),))
    assert told(bundle, gone).words == f"by bench ({FINGERPRINT[:12]}): REVOKED: left on a train"
    old = replace(TRUST, keys=(replace(TRUST.keys[0], until=NOW - 1),))
    assert (told(bundle, old).state, "was for use until" in told(bundle, old).words) == ("expired", True)
    for trust in (None, trusting(ROOT, other=new_private_key())):
        found = told(bundle, trust)
        assert (found.state, found.key, found.name) == ("unknown", FINGERPRINT, None)
        assert "UNKNOWN" in found.words


def test_what_is_not_signed_and_what_does_not_read_is_told(bundle: Path) -> None:
    whole = (bundle / SIGNATURE).read_bytes()
    for raw in (whole[:-10], b"", b"{" * 100_000):
        (bundle / SIGNATURE).write_bytes(raw)
        assert (told(bundle).state, told(bundle).key) == ("broken", None)
    (bundle / SIGNATURE).unlink()
    assert told(bundle) == Signer("unsigned")
    assert told(bundle).words == "not signed"


def test_a_signature_of_other_files_or_by_another_hand_is_broken(bundle: Path, tmp_path: Path) -> None:
    other = sign_folder(make_bundle(tmp_path / "other", version="2"), BENCH)
    (bundle / SIGNATURE).write_bytes((other / SIGNATURE).read_bytes())
    assert (told(bundle).state, "other files" in told(bundle).words) == ("broken", True)
    stranger = new_private_key()
    sign_folder(bundle, stranger)
    raw = (bundle / SIGNATURE).read_bytes().replace(public_of(stranger).fingerprint.encode(), FINGERPRINT.encode())
    (bundle / SIGNATURE).write_bytes(raw)
    assert (told(bundle).state, told(bundle).name) == ("broken", "bench")


def test_a_trust_document_in_a_file_goes_before_the_devices_own(bundle: Path, tmp_path: Path) -> None:
    opened, document, device = open_bundle(bundle), tmp_path / "trust.json", tmp_path / "device"
    assert signer_here(opened, None, device, NOW).why == "nobody is trusted here yet"
    device.mkdir()
    (device / "trust.json").write_bytes(made_trust(trusting(ROOT, other=new_private_key()), ROOT))
    document.write_bytes(made_trust(TRUST, ROOT))
    assert signer_here(opened, None, device, NOW).state == "unknown"
    assert signer_here(opened, document, device, NOW).state == "trusted"
    (device / "trust.json").write_bytes(b"{}")
    assert "trust document" in signer_here(opened, None, device, NOW).words
    with pytest.raises(NotFound):
        signer_here(opened, tmp_path / "nothing", device, NOW)
    document.write_bytes(b"{}")
    with pytest.raises(EdgeKitError, match="trust document"):
        signer_here(opened, document, device, NOW)


def test_inspect_says_who_signed_it(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trust.json").write_bytes(made_trust(TRUST, ROOT))
    trust = ["--trust", str(tmp_path / "trust.json")]
    assert main(["inspect", str(bundle), *trust]) == 0
    assert f"signed      by bench ({FINGERPRINT[:12]}): trusted here\n" in capsys.readouterr().out
    assert main(["inspect", str(bundle), "--json", *trust]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["signed"]) == ("tiny", Signer("trusted", FINGERPRINT, "bench").facts())
    (bundle / SIGNATURE).unlink()
    assert main(["inspect", str(bundle), "--device", str(tmp_path)]) == 0
    assert "signed      not signed\n" in capsys.readouterr().out

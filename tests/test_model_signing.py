"""The `model_signing` command of the OpenSSF, unmodified: it verifies what we sign, and we verify what it signs."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import Untrusted
from edgekit_runtime.files import in_folder
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.signature import SIGNATURE
from edgekit_runtime.verified import open_verified

from edgekit.isolated import environment
from tests.runtime.bundles import make_bundle, some, truth
from tests.runtime.signing import relisted, rules, sign_folder, trusting

ROOT, KEY = new_private_key(), new_private_key()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command() -> Path:
    """The command, in an environment of its own."""
    python = environment("model-signing", Path(__file__).parent / "requirements-model-signing.txt", lambda _: None)
    return python.with_name("model_signing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with a folder in it and with names whose order is not that of their letters."""
    bundle = make_bundle(tmp_path / "tiny")
    for name in ("a/z.bin", "a-b.bin", "a.bin", "ü b.bin"):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_bytes(name.encode())
    return relisted(bundle)


def ask(command: Path, verb: str, folder: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run `model_signing VERB key FOLDER --signature ... WORDS`."""
    asked = [command, verb, "key", folder, "--signature", folder / SIGNATURE, *words]
    return subprocess.run(asked, capture_output=True, text=True, timeout=120)


def verify(command: Path, folder: Path, private: bytes = KEY) -> "subprocess.CompletedProcess[str]":
    public = folder.parent / "key.pub"
    public.write_bytes(public_of(private).pem)
    return ask(command, "verify", folder, "--public_key", public)


def test_it_verifies_what_we_sign(command: Path, folder: Path) -> None:
    told = verify(command, sign_folder(folder, KEY))
    assert told.returncode == 0, told.stderr
    assert "succeeded" in told.stdout


def test_it_refuses_ours_with_another_key_and_when_touched_or_joined_by_a_file(command: Path, folder: Path) -> None:
    sign_folder(folder, KEY)
    assert "mismatch" in verify(command, folder, new_private_key()).stderr
    (folder / "more.bin").write_bytes(b"x")
    assert "Extra files" in verify(command, folder).stderr
    (folder / "more.bin").unlink()
    (folder / "a" / "z.bin").write_bytes(b"x")
    assert "Hash mismatch for 'a/z.bin'" in verify(command, folder).stderr
    (folder / "a" / "z.bin").unlink()
    told = verify(command, folder)
    assert "Missing files" in told.stderr
    assert told.returncode


def test_we_verify_and_open_what_it_signs(command: Path, folder: Path) -> None:
    private = folder.parent / "key.pem"
    private.write_bytes(KEY)
    told = ask(command, "sign", folder, "--private_key", private)
    assert told.returncode == 0, told.stderr
    held = open_verified(in_folder(folder), rules(trusting(ROOT, bench=KEY)))
    try:
        assert np.allclose(held.bundle.open_model()({"x": some()})["y"], truth(some()), atol=1e-5)
    finally:
        held.close()


def test_what_it_was_told_to_leave_out_we_do_not_leave_out(command: Path, folder: Path) -> None:
    private = folder.parent / "key.pem"
    private.write_bytes(KEY)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / "more.bin").write_bytes(b"x")
    told = ask(command, "sign", folder, "--private_key", private, "--ignore-paths", folder / "more.bin")
    assert told.returncode == 0, told.stderr
    with pytest.raises(Untrusted, match=r"\.git/config, more\.bin") as raised:
        open_verified(in_folder(folder), rules(trusting(ROOT, bench=KEY)))
    assert raised.value.reason == "unlisted"

"""A pulled bundle is told with who signed it; what a revoked key signed, or is not what was signed, does not come."""

import shutil
from pathlib import Path

import pytest
from edgekit_runtime.signature import SIGNATURE

from edgekit import keys
from tests.commands import Done, edgekit
from tests.oci.making import Bench
from tests.runtime.signing import sign_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Path:
    keys.new(tmp_path / "keys", "main")
    return tmp_path / "keys"


@pytest.fixture
def signed(versions: tuple[Path, Path], tmp_path: Path, home: Path) -> Path:
    shutil.copytree(versions[0], tmp_path / "signed")
    return sign_folder(tmp_path / "signed", keys.signing_key(home))


def pulled(bench: Bench, home: Path | None, *words: str) -> Done:
    trusted = () if home is None else ("--keys", home)
    return edgekit(
        "pull", bench.url(), "--out", bench.folder / "out", "--cache", bench.folder, "--quiet", *trusted, *words
    )


def test_a_pull_names_the_key_that_you_trust(bench: Bench, signed: Path, home: Path) -> None:
    bench.push(signed)
    fingerprint = keys.listed(home)[1].fingerprint
    dry = pulled(bench, home, "--dry-run", "--json").json()
    assert (dry["key"], dry["signed_by"]) == (fingerprint, "main")
    done = pulled(bench, home)
    assert f"signed by main ({fingerprint[:12]}), a key that you trust" in done.out
    assert "warning" not in done.out


def test_a_pull_warns_of_a_stranger_and_of_nobody(
    bench: Bench, signed: Path, versions: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-keys"))
    bench.push(signed)
    done = pulled(bench, None)
    assert done.code == 0
    assert "warning: signed by" in done.out
    assert "nobody here vouches for" in done.out
    bench.push(versions[0])
    assert "warning: not signed: no device will install it" in pulled(bench, None).out


def test_a_folder_of_keys_that_was_named_must_be_one(bench: Bench, signed: Path, tmp_path: Path) -> None:
    bench.push(signed)
    assert "no keys in" in pulled(bench, tmp_path / "typo").error()
    assert not (bench.folder / "out").exists()


def test_a_pull_refuses_what_a_revoked_key_signed_before_anything_large_comes(
    bench: Bench, signed: Path, home: Path
) -> None:
    bench.push(signed)
    keys.revoke(home, "main", "left on a train")
    done = pulled(bench, home)
    assert "left on a train" in done.error()
    assert not (bench.folder / "out").exists()
    assert sum(path.stat().st_size for path in (bench.folder / "blobs").iterdir()) < 100_000


def test_an_image_whose_files_are_not_those_that_were_signed_does_not_come(
    bench: Bench, signed: Path, versions: tuple[Path, Path], home: Path
) -> None:
    """Another's files with a manifest that fits them, and a signature of ours."""
    shutil.copyfile(signed / SIGNATURE, bench.folder / "ours")
    forged = bench.folder / "forged"
    shutil.copytree(versions[1], forged)
    shutil.copyfile(bench.folder / "ours", forged / SIGNATURE)
    bench.push(forged)
    done = pulled(bench, home)
    assert "is of other files than these" in done.error()
    assert not (bench.folder / "out").exists()


def test_a_huge_signature_is_not_fetched(bench: Bench, signed: Path, home: Path) -> None:
    (signed / SIGNATURE).write_bytes(b" " * (12 * 2**20))
    bench.push(signed)
    assert "too large for a signature" in pulled(bench, home).error()


def test_a_push_says_that_nobody_signed_the_bundle(bench: Bench, signed: Path, versions: tuple[Path, Path]) -> None:
    told = [
        edgekit("push", bundle, bench.url(), "--cache", bench.folder, "--quiet").out for bundle in (signed, versions[0])
    ]
    assert ["warning: not signed" in words for words in told] == [False, True]

"""What a tired engineer types at `edgekit-runtime`: each slip is told with what to type instead, and breaks nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.serving import serving
from tests.runtime.bundles import make_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle in it."""
    made = tmp_path_factory.mktemp("bundles")
    make_bundle(made / "tiny")
    return made


def said(*words: str | Path, code: int = 1) -> str:
    """What the command says on stderr, of which it ends."""
    command = [sys.executable, "-m", "edgekit_runtime", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_folder_of_bundles_and_a_bundle_are_not_taken_for_each_other(folder: Path) -> None:
    assert f"--repository {folder}" in said("serve", folder)
    assert f"serve {folder / 'tiny'}" in said("serve", "--repository", folder / "tiny")


@pytest.mark.parametrize("words", [["--batch-delay", "5"], ["--batch-preferred", "4"], ["--batch-preferred", "4,8"]])
def test_a_batch_that_could_never_be_is_refused(folder: Path, words: list[str]) -> None:
    assert "say --batch 8" in said("serve", folder / "tiny", *words, *(["--batch", "4"] if "4,8" in words else []))


@pytest.mark.parametrize("words", [["a b=tiny"], ["a/b=tiny"], ["p=tiny", "--alias", "p=tiny"], ["p"]])
def test_an_alias_is_a_plain_word_given_once(folder: Path, words: list[str]) -> None:
    assert "hint: " in said("serve", folder / "tiny", "--alias", *words)


@pytest.mark.parametrize("host", ["0.0.0.0:80", "http://localhost", ""])
def test_a_host_is_not_a_url(folder: Path, host: str) -> None:
    assert "write --host 0.0.0.0 --port 8000" in said("serve", folder / "tiny", "--host", host, code=2)


def test_a_host_that_does_not_exist_is_not_called_one_beyond_loopback(folder: Path) -> None:
    assert "no host 'nosuch.invalid' is known here" in said("serve", folder / "tiny", "--host", "nosuch.invalid")


def test_a_number_with_a_unit_is_refused_with_how_to_write_it(folder: Path) -> None:
    assert "without a unit" in said("serve", folder / "tiny", "--max-memory", "1GB", code=2)


def test_an_unknown_option_is_told_with_the_usage_of_its_verb_and_what_was_meant(folder: Path) -> None:
    told = said("serve", folder / "tiny", "--prot", "9000", code=2)
    assert told.startswith("usage: edgekit-runtime serve")
    assert "did you mean --port?" in told
    assert "write --input before a file" in said("run", folder / "tiny", "x.npy", code=2)


def test_a_unit_that_would_serve_nothing_is_not_written() -> None:
    assert "nothing to serve" in said("unit")


def test_a_file_that_is_no_socket_is_refused_and_still_there(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "x.npy"
    precious.write_bytes(b"data")
    assert "is not a socket" in said("serve", folder / "tiny", "--port", "0", "--unix", precious)
    assert "is not a socket" in said("serve", folder / "tiny", "--port", "0", "--admin", f"unix:{precious}")
    assert precious.read_bytes() == b"data"


def test_the_socket_of_a_living_server_stays_its_own(folder: Path, tmp_path: Path) -> None:
    with serving([folder / "tiny"], "--unix", tmp_path / "s") as running:
        assert "another server listens" in said("serve", folder / "tiny", "--port", "0", "--unix", tmp_path / "s")
        assert Path(running.unix or "").is_socket()
    assert not (tmp_path / "s").exists()


def test_a_bundle_of_the_repository_that_is_passed_over_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text("{")
    with serving([folder / "tiny"], "--repository", tmp_path) as running:
        assert "torn is passed over" in running.errors.read_text()

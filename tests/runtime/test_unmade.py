"""A start that is refused leaves no folder of its own, and touches no other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.telemetry.ring import Ring
from edgekit_runtime.unmade import Tell, unmade


def refused(folder: Path, act: Callable[[Callable[[Tell], Tell]], None]) -> None:
    """A start that does something and is refused then."""

    def start() -> None:
        with unmade(folder) as begun:
            act(begun)
            raise EdgeKitError("the port is taken")

    with pytest.raises(EdgeKitError, match="the port is taken"):
        start()


def with_telemetry(folder: Path) -> None:
    """A start as a server makes it, refused."""

    def act(_: object) -> None:
        ring = Ring(folder, 2**20)
        ring.put([], 1)
        ring.close()

    refused(folder, act)


def test_a_folder_that_was_made_for_a_start_that_is_refused_goes_again(tmp_path: Path) -> None:
    with_telemetry(tmp_path / "lib" / "edgekit" / "state")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "feedback.json").write_text("{}")
    with_telemetry(tmp_path / "state")
    assert (tmp_path / "state" / "feedback.json").exists()


def test_a_parent_in_which_something_lies_stays(tmp_path: Path) -> None:
    refused(tmp_path / "lib" / "state", lambda _: (tmp_path / "lib" / "another").mkdir())
    assert [one.name for one in (tmp_path / "lib").iterdir()] == ["another"]


def test_what_a_server_kept_stays_however_it_ends(tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []
    refused(tmp_path / "state", lambda begun: begun(told.append)({"http": "there"}))
    assert told == [{"http": "there"}]
    assert (tmp_path / "state").is_dir()


def test_no_folder_and_one_that_cannot_be_made_are_for_others_to_judge(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (None, tmp_path / "file" / "under"):
        with unmade(folder):
            pass

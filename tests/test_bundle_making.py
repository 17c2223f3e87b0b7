"""A bundle is whole or absent: whatever happens while it is written."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.bundle import built_at, whole_folder
from edgekit.elsewhere import ScoredOn
from edgekit.packing import allowed


def write_bundle(place: Path, words: str = "one") -> None:
    with whole_folder(place) as scratch:
        (scratch / "manifest.json").write_text(json.dumps({"words": words}))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_build_says_when_it_was_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    said = datetime.fromisoformat(built_at())
    assert said.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - said) < timedelta(minutes=10)


def test_a_build_that_is_made_again_says_the_time_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert built_at() == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("said", ["yesterday", "-1", "1.5", "1700000000 ", "9" * 12, "٣"])
def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", said)
    with pytest.raises(EdgeKitError, match="SOURCE_DATE_EPOCH") as refused:
        built_at()
    assert "seconds since 1970" in refused.value.hint


def scored(worst: float | None) -> ScoredOn:
    return ScoredOn("cortex-a72, emulated", 16, "", worst=worst)


def test_recorded_answers_may_be_missed_by_twice_what_the_targets_own_core_missed_them_by() -> None:
    assert allowed("int8", [scored(0.03)]) == 0.06
    assert allowed("int8-weights", [scored(None), scored(0.03), scored(0.01)]) == 0.06


@pytest.mark.parametrize(("worst", "tolerance"), [(0.0, 0.02), (0.003, 0.02), (0.9, 0.2), (float("inf"), 0.2)])
def test_that_has_limits(worst: float, tolerance: float) -> None:
    assert allowed("int8", [scored(worst)]) == tolerance


@pytest.mark.parametrize("unseen", [[], [scored(None)]])
def test_where_nothing_was_scored_on_the_target_rounding_is_allowed_and_saturation_is_not(
    unseen: list[ScoredOn],
) -> None:
    assert 0.02 < allowed("int8", unseen) < 0.1


def test_float_answers_are_held_to_float_arithmetic() -> None:
    assert (allowed("float32", [scored(0.03)]), allowed("float16", [])) == (1e-3, 2e-2)


def test_a_finished_bundle_stands_alone_at_its_place(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    assert left(tmp_path) == ["b"]
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "b"):
        raise KeyboardInterrupt
    assert left(tmp_path) == []


def test_a_failure_leaves_the_older_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    with pytest.raises(ValueError, match="no"), whole_folder(tmp_path / "b"):
        raise ValueError("no")
    assert json.loads((tmp_path / "b" / "manifest.json").read_text()) == {"words": "one"}
    assert left(tmp_path) == ["b"]


def test_an_older_bundle_is_replaced(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    write_bundle(tmp_path / "b", "two")
    assert json.loads((tmp_path / "b" / "manifest.json").read_text()) == {"words": "two"}


@pytest.mark.parametrize("name", ["notes.txt", "src/main.py"])
def test_a_users_folder_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(EdgeKitError, match="is not a bundle"), whole_folder(tmp_path):
        pass
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(EdgeKitError, match="is not a bundle"), whole_folder(tmp_path / "b"):
        pass


def test_two_builds_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "b") as scratch:
        with pytest.raises(EdgeKitError, match="another build"), whole_folder(tmp_path / "b"):
            pass
        (scratch / "manifest.json").write_text("{}")
    assert left(tmp_path) == ["b"]


def test_a_killed_build_does_not_block_the_next(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from edgekit.bundle import whole_folder\n"
        "with whole_folder(Path(sys.argv[1])): print('in', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "b")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    assert left(tmp_path) == [".b.building"]
    started = time.monotonic()
    write_bundle(tmp_path / "b")
    assert left(tmp_path) == ["b"]
    assert time.monotonic() - started < 60

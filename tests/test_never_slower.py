"""What is asked for beside quality: no int8 slower than float, latency, size, memory, each class; the best; in time.

Refuses a goal that is kept by not being looked at: each is met once and missed once."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle

from tests import tiny, zoo
from tests.commands import Done, edgekit

pytestmark = pytest.mark.slow

TARGET = "x86-64-v4"
ROOMY = ("--max-drop", "3pt")
OPERATOR = r"[A-Z]\w+ \(\d+\)( stays? in float| takes [\d.]+ ms)"
"""How a reason names an operator and how many there are: HardSigmoid (6) stay in float, QLinearAdd (16) takes 1 ms."""


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(shelf: Path, *words: object) -> Done:
    return edgekit(
        "build", shelf / "digits.onnx", "--target", TARGET, "--data", shelf / "digits.npz", "--smaller",
        "--cache", shelf / "cache", "--out", "b", "--json", *words,
    )  # fmt: skip


def int8(shelf: Path, *words: object) -> Done:
    return build(shelf, "--format", "onnx", "--precision", "int8", *ROOMY, *words)


def depthwise(shelf: Path, *words: object) -> Done:
    net = zoo.fashion_depthwise()
    with np.load(net.test) as data:
        np.savez("some.npz", x=data["x"][:3000], label=data["label"][:3000])
    return edgekit(
        "build", net.factory, "--weights", net.safetensors, "--target", TARGET, "--format", "onnx",
        "--precision", "int8", "--data", "some.npz", "--calibration", net.calibration, "--max-drop", "2pt",
        "--cache", shelf / "cache", "--out", "b", "--json", *words,
    )  # fmt: skip


@pytest.mark.slow
def test_int8_slower_than_float_is_refused_with_the_operators_that_are_why(shelf: Path, desk: Path) -> None:
    done = depthwise(shelf)
    assert done.code == 3, done.err
    assert not (desk / "b").exists()
    said, (facts,) = done.error(), done.json()
    first = facts["candidates"][0]
    assert "slower than float32" in said
    assert f"({1 / first['latency']['ratio']:.2f}x its speed" in said
    assert first["latency"]["low"] > 1 / 0.97
    assert first["slow"] in said
    assert re.search(OPERATOR, first["slow"]), first["slow"]
    assert "--smaller" in done.err


@pytest.mark.slow
def test_it_is_taken_where_being_smaller_is_enough(shelf: Path, desk: Path) -> None:
    done = depthwise(shelf, "--smaller")
    assert done.code == 0, done.err
    evidence = open_bundle(desk / "b").manifest.evidence
    assert evidence["bytes"] < evidence["float_bytes"]
    assert evidence["latency"]["low"] > 1
    assert re.search(OPERATOR, evidence["slow"]), evidence["slow"]


@pytest.mark.parametrize(
    ("goal", "met", "missed"),
    [("--max-latency", "5ms", "0.1us"), ("--max-size", "1MB", "1kB"), ("--max-memory", "2GB", "20MB")],
)
def test_a_goal_is_met_or_missed(goal: str, met: str, missed: str, shelf: Path, desk: Path) -> None:
    done = int8(shelf, goal, met)
    assert done.code == 0, done.err
    evidence = open_bundle(desk / "b").manifest.evidence
    assert evidence["latency"]["p90_ms"] <= 5
    assert evidence["bytes"] <= 1e6
    assert evidence["peak_mb"] <= 2e9 / 2**20
    done = int8(shelf, goal, missed, "--out", "c")
    assert done.code == 3, done.err
    assert f"({goal})" in done.error()
    assert not (desk / "c").exists()
    assert (desk / "c.report.html").exists()


def test_no_class_may_lose_more_than_is_allowed(shelf: Path, desk: Path) -> None:
    done = build(shelf, "--format", "onnx", "--precision", "int8", "--max-class-drop", "20pt")
    assert done.code == 0, done.err
    assert len(done.json()[0]["candidates"][-1]["classes"]) == 10
    x, _ = tiny.digits()
    np.savez("bright.npz", x=x[:64] * 1000)
    ruined = ("--calibration", "bright.npz", "--out", "c", "--format", "onnx", "--precision", "int8")
    done = build(shelf, "--max-class-drop", "20pt", *ruined)
    assert done.code == 3, done.err
    assert "class " in done.error()
    assert "over 20pt" in done.error()


def test_a_class_is_named_by_its_word(shelf: Path, desk: Path) -> None:
    Path("labels.txt").write_text("\n".join(f"digit-{i}" for i in range(10)))
    x, _ = tiny.digits()
    np.savez("bright.npz", x=x[:64] * 1000)
    done = int8(shelf, "--max-class-drop", "5pt", "--labels", "labels.txt", "--calibration", "bright.npz")
    assert done.code == 3, done.err
    assert {one["class"] for one in done.json()[0]["candidates"][0]["classes"]} <= {f"digit-{i}" for i in range(10)}


def cost(one: dict[str, Any]) -> float:
    """What the build ranks by: its time beside float's, times float's, timed in turn with the other formats'."""
    return float(one["cost_ms"])


@pytest.mark.slow
def test_the_best_is_the_fastest_of_those_that_keep_the_budget(shelf: Path, desk: Path) -> None:
    done = build(shelf, "--best", *ROOMY)
    assert done.code == 0, done.err
    (facts,) = done.json()
    tried = facts["candidates"]
    (chosen,) = (one for one in tried if one["chosen"])
    good = [one for one in tried if one["verdict"] not in ("missed", "refused", "inconclusive")]
    assert len({(one["format"], one["precision"]) for one in good}) > 5
    assert chosen["verdict"] == "passed"
    for one in tried:
        assert one["why"].count("[") == one["why"].count("]"), f"an interval with one end: {one['why']}"
    assert cost(chosen) == min(map(cost, good))
    bundle = open_bundle(desk / "b")
    assert (bundle.manifest.format, bundle.manifest.precision) == (chosen["format"], chosen["precision"])
    by_threads = {int(threads): ms for threads, ms in chosen["latency_by_threads"].items()}
    assert by_threads[bundle.manifest.options.threads] == min(by_threads.values())


@pytest.mark.slow
def test_the_front_is_of_those_that_none_beats(shelf: Path, desk: Path) -> None:
    (facts,) = build(shelf, "--best", *ROOMY).json()
    known = [one for one in facts["candidates"] if one["quality"] and one["latency_by_threads"]]
    points = [(one["quality"]["drop"], cost(one)) for one in known]
    assert len(known) > 5
    for one, (drop, ms) in zip(known, points, strict=True):
        beaten = any(d <= drop and t <= ms and (d, t) != (drop, ms) for d, t in points)
        assert one["front"] is not beaten, one["title"]
    for one in facts["candidates"]:
        assert one["title"] in (desk / "b" / "report.html").read_text()


def test_when_the_time_is_over_the_best_so_far_is_given(shelf: Path, desk: Path) -> None:
    """The first is always made; with --best, what was not tried for want of time is said."""
    done = build(shelf, "--best", "--budget-time", "1s", "--max-drop", "20pt", "--cache", desk / "cache")
    (facts,) = done.json()
    assert done.code == 0, done.err
    assert facts["untried"] > 0
    assert facts["candidates"][0]["bytes"] > 0
    assert open_bundle(desk / "b").manifest.precision == facts["candidates"][0]["precision"]


def test_when_nothing_was_good_in_time_it_is_said_what_was_left(shelf: Path, desk: Path) -> None:
    x, _ = tiny.digits()
    np.savez("bright.npz", x=x[:64] * 1000)
    done = build(
        shelf, "--budget-time", "1s", "--max-drop", "0.5pt", "--calibration", "bright.npz", "--cache", desk / "cache"
    )
    (facts,) = done.json()
    assert done.code in (3, 4), done.err
    assert facts["untried"] > 0
    assert f"the time was over with {facts['untried']} candidates untried" in done.error()
    assert not (desk / "b").exists()

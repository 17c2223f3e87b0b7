"""The baseline of a bundle: made in bounded memory, read back as written, and refused where it is hostile."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.drift import Categories, Drift, Numeric, Reading, Recorder, parse_baseline, to_json
from edgekit_runtime.drift.bounds import (
    BASELINE_RISK,
    baseline_distance,
    class_evidence,
    divergence,
    field_distance,
    share_interval,
    share_limit,
)
from edgekit_runtime.drift.classes import Classes
from edgekit_runtime.errors import BadBundle


def recorder(n: int, classes: int = 10) -> Recorder:
    """`n` samples of a normal number, a constant and a class."""
    dice, made = np.random.default_rng(0), Recorder()
    for value, one in zip(dice.normal(size=n).tolist(), dice.zipf(1.3, n).tolist(), strict=True):
        made.add(Reading({"x": value, "same": 0.5}, {"class": one % classes}))
    return made


def test_a_baseline_comes_back_as_it_was_written() -> None:
    baseline = recorder(3000).baseline()
    assert parse_baseline(json.loads(json.dumps(to_json(baseline)))) == baseline
    x, same, seen = baseline.features
    assert isinstance(x, Numeric)
    assert isinstance(same, Numeric)
    assert isinstance(seen, Categories)
    assert baseline.n == sum(x.counts) == sum(same.counts) == sum(seen.counts) == 3000
    assert x.counts[0] == x.counts[-1] == 0
    assert max(x.counts) <= 1.1 * 3000 / 20
    assert seen.classes == tuple(range(10))


def test_the_same_readings_make_the_same_baseline_and_a_long_run_keeps_a_uniform_sample() -> None:
    baseline = recorder(20_000).baseline()
    assert baseline == recorder(20_000).baseline()
    x, _, seen = baseline.features
    assert (baseline.n, sum(x.counts), sum(seen.counts)) == (20_000, 8192, 20_000)
    assert isinstance(x, Numeric)
    assert x.edges[11] == pytest.approx(0, abs=0.05)


def test_a_number_that_all_samples_share_survives_another_processors_rounding() -> None:
    drift = Drift(recorder(3000).baseline())
    dice = np.random.default_rng(1)
    for number in range(500):
        near = float(np.float32(0.5) * np.float32(1 + 2e-7))
        drift.add(Reading({"x": float(dice.normal()), "same": near}, {}), float(number))
    assert not drift.state().alarm
    for number in range(500):
        drift.add(Reading({"x": float(dice.normal()), "same": 0.51}, {}), 500.0 + number)
    assert [one.name for one in drift.state().features if one.alarm] == ["same"]


def test_of_many_classes_the_most_frequent_are_picked_by_other_samples_than_are_counted() -> None:
    seen = recorder(4000, classes=1000).baseline().features[-1]
    assert isinstance(seen, Categories)
    assert seen.chosen
    assert len(seen.classes) == 63
    assert sum(seen.counts) == 2000


def test_a_few_samples_of_a_thousand_classes_raise_no_false_alarm() -> None:
    dice, made = np.random.default_rng(2), Recorder()
    for one in dice.integers(0, 1000, 40).tolist():
        made.add(Reading({}, {"class": one}))
    drift = Drift(made.baseline(), 1.0)
    for number, one in enumerate(dice.integers(0, 1000, 6000).tolist()):
        drift.add(Reading({}, {"class": one}), float(number))
    assert not drift.state().alarm


GOOD: dict[str, Any] = {
    "schema": 1,
    "n": 4,
    "features": [
        {"name": "x", "edges": [0.0, 1.0], "counts": [0, 4, 0]},
        {"name": "class", "classes": [0, 1], "counts": [2, 2, 0], "chosen": False},
    ],
}


def test_the_example_of_a_good_baseline_is_one() -> None:
    assert to_json(parse_baseline(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("feature", "key", "value"),
    [
        (None, "schema", 2), (None, "n", -1), (None, "n", True), (None, "n", 10**30), (None, "n", "4"),
        (None, "features", {}), (None, "features", [1]), (None, "features", GOOD["features"] * 200),
        (None, "features", GOOD["features"] * 2), (0, "name", ""), (0, "name", "a\n"), (0, "name", "x" * 201),
        (0, "edges", [1.0, 0.0]), (0, "edges", [0.0, 0.0]), (0, "edges", [0.0, math.nan]), (0, "edges", [0.0, "1"]),
        (0, "edges", [0.0, 10**400]), (0, "edges", [0.0]), (0, "edges", list(range(10**6))), (0, "edges", None),
        (0, "counts", [0, 0, 0]), (0, "counts", [0, -4, 8]), (0, "counts", [0, 4.0, 0]), (0, "counts", "040"),
        (1, "classes", [0, 0]), (1, "classes", [0]), (1, "classes", [0, -2]), (1, "classes", [0, 1.5]),
        (1, "chosen", 1), (1, "chosen", None),
    ],
)  # fmt: skip
def test_a_hostile_baseline_is_refused_at_once(feature: int | None, key: str, value: object) -> None:
    raw = json.loads(json.dumps(GOOD))
    (raw if feature is None else raw["features"][feature])[key] = value
    start = time.perf_counter()
    with pytest.raises(BadBundle, match="drift baseline"):
        parse_baseline(raw)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("raw", [None, [], "x", 1, {}])
def test_what_is_no_baseline_at_all_is_refused(raw: object) -> None:
    with pytest.raises(BadBundle):
        parse_baseline(raw)


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_the_bound_on_distributions_holds(n: int) -> None:
    """At a level of 20 % it is passed at most so often, and often enough to be of use."""
    dice, over = np.random.default_rng(n), 0
    limit = float(field_distance(np.array(n), 0.2))
    for _ in range(2000):
        x = np.sort(dice.random(n))
        over += max((np.arange(1, n + 1) / n - x).max(), (x - np.arange(n) / n).max()) > limit
    assert 0.02 < over / 2000 <= 0.22
    assert float(baseline_distance(np.array([n]), 1)[0]) > limit


def test_the_bound_on_shares_is_chernoffs_and_its_interval_holds_the_truth() -> None:
    low, high = share_interval(np.array([0.0, 0.1, 1.0]), 500.0, 1)
    assert low[0] == pytest.approx(0, abs=1e-9)
    assert high[2] == pytest.approx(1)
    enough = math.log(2 * 128 / BASELINE_RISK) / 500
    assert divergence(np.array(0.1), low[1]) == pytest.approx(enough, rel=1e-6)
    assert divergence(np.array(0.1), high[1]) == pytest.approx(enough, rel=1e-6)
    missing = class_evidence(np.array([0.0]), np.array([0.08]), np.array([0.12]), np.array([300.0]))
    assert missing[0] == pytest.approx(-300 * math.log(1 - 0.08))
    share = share_limit(0.08, True, float(missing[0]) / 600)
    assert share is not None
    assert divergence(np.array(share), np.array(0.08)) == pytest.approx(float(missing[0]) / 600, rel=1e-4)
    assert share_limit(0.08, True, 1.0) is None


@pytest.mark.slow
def test_the_bound_on_classes_holds() -> None:
    """Baselines and windows of one distribution: at a level of 20 % at most so many windows are beyond it."""
    dice, over = np.random.default_rng(3), 0
    chances = np.array([0.4, 0.3, 0.2, 0.08, 0.02, 0.0])
    for _ in range(300):
        counts = dice.multinomial(400, chances)
        baseline = Categories("class", (0, 1, 2, 3, 4), tuple(counts.tolist()))
        windows = dice.multinomial(200, chances, 5)
        over += int((Classes(baseline, 1).compare(windows, 0.2).certain > 1).sum())
    assert over / 1500 <= 0.2
    gone = Classes(baseline, 1).compare(np.array([[100, 100, 0, 0, 0, 0]]), 0.001)
    assert gone.certain[0] > 1
    assert gone.distance()[0] > gone.limit(0)

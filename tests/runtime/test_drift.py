"""The drift watch: it hears a shift soon, is as quiet as it says, calms down again, and neither grows nor breaks."""

import gc
import json
import random
import tracemalloc

import numpy as np
import pytest
from edgekit_runtime.drift import Baseline, Drift, Reading, Recorder, parse_baseline, sketches, to_json
from edgekit_runtime.drift.watching import PANE, WINDOWS
from edgekit_runtime.errors import EdgeKitError

NAN = float("nan")


def drawn(dice: np.random.Generator, n: int, shift: float = 0.0, classes: int = 10, gone: int = 0) -> list[Reading]:
    """`n` samples of two normal numbers, one often 0, and a class of which the first `gone` never come."""
    numbers = dice.normal(shift, 1, (n, 2))
    seen = dice.integers(gone, classes, n)
    return [
        Reading({"level": float(a), "rest": max(0.0, float(b))}, {"class": int(c)})
        for (a, b), c in zip(numbers, seen, strict=True)
    ]


def recorded(n: int = 5000, seed: int = 0) -> Baseline:
    """A baseline of `n` unshifted samples."""
    recorder = Recorder()
    for one in drawn(np.random.default_rng(seed), n):
        recorder.add(one)
    return recorder.baseline()


def until(drift: Drift, readings: list[Reading], start: float = 0.0) -> int | None:
    """Samples until the alarm, one a second."""
    for number, one in enumerate(readings):
        drift.add(one, start + number)
        if drift.state().alarm:
            return number + 1
    return None


def feed(drift: Drift, readings: list[Reading], start: float = 0.0) -> None:
    """All of them, one a second."""
    for number, one in enumerate(readings):
        drift.add(one, start + number)


@pytest.mark.parametrize(("shift", "gone"), [(1.0, 0), (0.0, 1), (0.0, 3)])
def test_a_shift_or_a_missing_class_is_heard_within_500_samples(shift: float, gone: int) -> None:
    drift, dice = Drift(recorded()), np.random.default_rng(1)
    assert until(drift, drawn(dice, 3025)) is None
    heard = until(drift, drawn(dice, 1000, shift, gone=gone), 3025)
    assert heard is not None
    assert heard <= 500
    state = drift.state()
    assert {one.name for one in state.features if one.alarm} <= ({"level", "rest"} if shift else {"class"})
    assert all(one.ks > one.limit for one in state.features if one.alarm)
    assert state.since == 3025 + heard - 1


@pytest.mark.slow
def test_alarms_begin_no_more_often_than_stated() -> None:
    """At a rate at which 35 may begin: a watch that took each window alone for the whole budget would have more."""
    rate, per_second, dice = 200.0, 2.0, np.random.default_rng(2)
    begun = looked = 0
    for seed in range(3):
        drift, before = Drift(recorded(seed=seed + 10), rate), False
        for number, one in enumerate(drawn(dice, 10_000)):
            drift.add(one, number / per_second)
            begun, before = begun + (drift.state().alarm and not before), drift.state().alarm
            looked += 1
    assert begun <= rate * looked / per_second / 86400


def test_a_trifling_shift_is_no_alarm_however_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.25 standard deviations: beyond chance with 3,000 samples, but its PSI is 0.06."""
    readings = drawn(np.random.default_rng(3), 6000, 0.25)
    assert until(Drift(recorded(8000)), readings) is None
    monkeypatch.setattr(sketches, "PSI_LIMIT", 0.01)
    assert until(Drift(recorded(8000)), readings) is not None


def test_an_alarm_ends_when_the_field_is_as_it_was_again() -> None:
    drift, dice = Drift(recorded()), np.random.default_rng(4)
    until(drift, drawn(dice, 500, 2.0))
    assert drift.state().alarm
    feed(drift, drawn(dice, 500, 2.0), 500)
    feed(drift, drawn(dice, 500), 1000)
    assert drift.state().alarm
    feed(drift, drawn(dice, 2 * WINDOWS[-1] * PANE), 1500)
    assert not drift.state().alarm
    assert drift.state().since is None


@pytest.mark.slow
@pytest.mark.parametrize("odd", [NAN, float("inf"), -float("inf")])
def test_what_is_no_number_is_counted_and_poisons_nothing(odd: float) -> None:
    drift, dice = Drift(recorded()), np.random.default_rng(5)
    assert until(drift, [Reading({"level": odd, "rest": 0.0}, {"class": -1})] * 200) is not None
    for one in drift.state().features:
        assert sum(one.now) == pytest.approx(1)
        assert np.isfinite([one.psi, one.ks, one.limit]).all()
    feed(drift, drawn(dice, 10_000), 200)
    assert not drift.state().alarm


def test_nan_in_the_baseline_is_no_alarm_when_it_comes_as_often() -> None:
    dice, recorder = random.Random(0), Recorder()
    readings = [Reading({"x": NAN if dice.random() < 0.3 else dice.random()}, {}) for _ in range(6000)]
    for one in readings[:3000]:
        recorder.add(one)
    baseline = recorder.baseline()
    assert parse_baseline(json.loads(json.dumps(to_json(baseline), allow_nan=False))) == baseline
    assert until(Drift(baseline), readings[3000:]) is None


@pytest.mark.slow
def test_nothing_grows_with_the_number_of_samples() -> None:
    readings = drawn(np.random.default_rng(6), 2000)
    tracemalloc.start()
    drift = Drift(recorded(100))
    held = []
    for turn in range(6):
        feed(drift, readings, turn * 2000)
        gc.collect()
        held.append(len(gc.get_objects()))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held[-1] - held[1] < 10
    assert size < 300_000


def test_a_state_is_a_snapshot_of_the_last_pane() -> None:
    drift, readings = Drift(recorded()), drawn(np.random.default_rng(7), PANE + 1)
    first = drift.state()
    assert (first.alarm, first.since, first.n) == (False, None, 0)
    assert [one.name for one in first.features] == ["level", "rest", "class"]
    until(drift, readings[:-2])
    assert drift.state() is first
    until(drift, readings[-2:], PANE - 1)
    level, _, seen = drift.state().features
    assert drift.state().n == level.n == PANE
    assert len(level.edges) + 1 == len(level.baseline) == len(level.now)
    assert seen.labels == (*map(str, range(10)), "others")
    assert len(seen.labels) == len(seen.now)
    assert sum(seen.baseline) == pytest.approx(1)


def test_samples_are_thinned_by_time() -> None:
    drift, readings = Drift(recorded(), per_second=2), drawn(np.random.default_rng(8), 1000)
    assert drift.wants(0.0)
    for number, one in enumerate(readings):
        drift.add(one, number / 20)
        assert not drift.wants(number / 20 + 0.01)
    assert drift.state().n == 100


def test_a_clock_that_stands_still_or_runs_back_breaks_nothing() -> None:
    drift, dice = Drift(recorded()), np.random.default_rng(9)
    for one in drawn(dice, 500):
        drift.add(one, 5.0)
    for number, one in enumerate(drawn(dice, 500, 3.0)):
        drift.add(one, -float(number))
    assert drift.state().alarm


def test_a_feature_that_is_not_told_is_not_held_against_the_model() -> None:
    drift = Drift(recorded())
    assert until(drift, [Reading({}, {})] * 5000) is None
    assert until(Drift(Baseline(0, ())), [Reading({"x": 1.0}, {})] * 200) is None


def test_ten_samples_are_too_few_a_baseline_to_alarm_by_chance() -> None:
    assert until(Drift(recorded(10), 1.0), drawn(np.random.default_rng(10), 5000)) is None


@pytest.mark.parametrize(("rate", "thinned"), [(0.0, None), (-1.0, None), (NAN, None), (0.01, -1.0)])
def test_a_rate_that_is_none_is_refused(rate: float, thinned: float | None) -> None:
    with pytest.raises(EdgeKitError, match="no number of"):
        Drift(recorded(10), rate, thinned)

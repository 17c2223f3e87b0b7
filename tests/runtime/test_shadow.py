"""The float model beside the served one: what counts as the same, and how little it takes."""

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import text
from edgekit_runtime.feedback import quality
from edgekit_runtime.shadow import MOST_TIME, NEAR, WINDOW, Shadow, agreements, families
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.runtime.bundles import make_bundle, some, truth

LABELS = ("cat", "dog", "bird")
NOTHING: dict = {"x": np.zeros((1, 1), np.float32)}


class Clock:
    """Time that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def y(*values: float) -> dict:
    return {"y": np.array([values], np.float32)}


def test_every_nth_request_is_compared_and_no_more():
    asked: list[int] = []
    shadow = Shadow(lambda feeds: asked.append(1) or y(0, 1, 0), LABELS, 0.1, Clock())
    for i in range(100):
        shadow.look(NOTHING, y(0, 1, 0) if i < 50 else y(1, 0, 0))
    assert len(asked) == 10
    assert shadow.state == quality(5, 10)


def test_none_is_compared_where_the_share_is_none():
    shadow = Shadow(lambda feeds: pytest.fail("asked"), LABELS, 0.0)
    for _ in range(100):
        shadow.look(NOTHING, y(0, 1, 0))
    assert shadow.state is None


def test_a_slow_float_model_takes_its_share_of_the_time_and_no_more():
    clock, spent = Clock(), [0.0]

    def run(feeds: dict) -> dict:
        clock.now += 0.5
        spent[0] += 0.5
        return y(0, 1, 0)

    shadow = Shadow(run, LABELS, 1.0, clock)
    for _ in range(20_000):
        clock.now += 0.05
        shadow.look(NOTHING, y(0, 1, 0))
    assert 0.9 * MOST_TIME < spent[0] / clock.now <= 1.1 * MOST_TIME


def test_what_the_time_did_not_allow_is_not_made_up_for():
    clock, asked = Clock(), []

    def run(feeds: dict) -> dict:
        asked.append(clock.now)
        clock.now += 1e-9
        return y(0, 1, 0)

    shadow = Shadow(run, LABELS, 0.5, clock)
    for _ in range(1_000):
        shadow.look(NOTHING, y(0, 1, 0))
    clock.now += 100
    before = len(asked)
    for _ in range(4):
        clock.now += 1
        shadow.look(NOTHING, y(0, 1, 0))
    assert len(asked) - before <= 3


def test_the_agreement_rolls():
    shadow = Shadow(lambda feeds: y(0, 1, 0), LABELS, 1.0, Clock())
    for i in range(WINDOW + 300):
        shadow.look(NOTHING, y(1, 0, 0) if i < 300 else y(0, 1, 0))
    assert shadow.state == quality(WINDOW, WINDOW)
    for _ in range(250):
        shadow.look(NOTHING, y(0, 0, 1))
    assert shadow.state == quality(750, WINDOW)


def test_a_batch_is_as_many_samples_as_it_has_rows():
    served = {"y": np.array([[1, 2, 3], [3, 2, 1], [1, 3, 2]], np.int8)}
    floats = {"y": np.array([[0.1, 0.2, 0.9], [0.1, 0.2, 0.9], [0, 1, 0]], np.float32)}
    assert agreements(served, floats, 3) == [True, False, True]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_agrees_with_nothing(bad):
    assert agreements(y(0, bad, 0), y(0, bad, 0), 3) == [False]
    assert agreements(y(0, bad), y(0, bad), 0) == [False]
    assert agreements(y(0, 1, 0), y(0, 1, bad), 3) == [False]


def test_without_labels_answers_agree_that_are_near():
    assert agreements(y(1.0), y(1.1), 0) == [True]
    assert agreements(y(1.0), y(1.5), 0) == [False]
    assert agreements(y(-1.0), y(1.0), 0) == [False]
    assert agreements(y(0, 0), y(0, 0), 0) == [True]
    assert agreements(y(0, 1e-9), y(0, 0), 0) == [False]
    assert agreements(y(1, 2), y(1, 2, 3), 0) == [False]
    assert agreements({}, y(1), 0) == [False]
    assert agreements({"y": np.array(["a"], object)}, {"y": np.array(["a"], object)}, 0) == [True]
    assert agreements({"y": np.array(["a"], object)}, {"y": np.array(["b"], object)}, 0) == [False]


numbers = hnp.arrays(np.float64, 5, elements=st.floats(-1e6, 1e6))


@given(numbers, numbers)
def test_near_is_a_cosine_of_99_percent_at_least(first, second):
    if agreements({"y": first}, {"y": second}, 0) == [True] and np.linalg.norm(second) > 1e-100:
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert cosine >= (1 - NEAR**2) ** 0.5 - 1e-9
        assert cosine >= 0.99 - 1e-4


@pytest.mark.parametrize("error", [EdgeKitError("it does not fit"), RuntimeError("inside"), MemoryError()])
def test_a_float_model_that_does_not_run_is_not_asked_for_ever(error, caplog):
    asked = []

    def run(feeds: dict) -> dict:
        asked.append(1)
        raise error

    shadow = Shadow(run, LABELS, 1.0, Clock())
    for _ in range(100):
        shadow.look(NOTHING, y(0, 1, 0))
    assert (len(asked), shadow.state) == (3, None)
    assert "not asked again" in caplog.text


def test_a_failure_now_and_then_does_not_end_it():
    turns = iter(range(1_000))

    def run(feeds: dict) -> dict:
        if next(turns) % 3:
            raise RuntimeError("now and then")
        return y(0, 1, 0)

    shadow = Shadow(run, LABELS, 1.0, Clock())
    for _ in range(99):
        shadow.look(NOTHING, y(0, 1, 0))
    assert shadow.state == quality(33, 33)


def test_metrics_tell_the_agreement_of_each_model():
    one, none = Shadow(lambda feeds: y(0, 1, 0), LABELS, 1.0, Clock()), Shadow(lambda feeds: y(0), LABELS, 1.0)
    for _ in range(4):
        one.look(NOTHING, y(0, 1, 0))
    told = text(families({("m", "1"): one, ("n", "1"): none}))
    assert 'edgekit_shadow_agreement{model="m",version="1"} 1\n' in told
    assert 'edgekit_shadow_samples{model="m",version="1"} 4\n' in told
    assert 'edgekit_shadow_agreement_low{model="m",version="1"} 0.51' in told
    assert 'model="n"' not in told


def test_a_real_model_agrees_with_itself_and_not_with_another(tmp_path):
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    run = bundle.open_model()
    shadow, x = Shadow(run, bundle.labels(), 1.0, Clock()), some(8)
    name, out = bundle.manifest.inputs[0].spec.name, bundle.manifest.outputs[0].spec.name
    shadow.look({name: x}, run({name: x}))
    assert shadow.state == quality(8, 8)
    shadow.look({name: x}, {out: -truth(x)})
    assert shadow.state.n == 16
    assert shadow.state.accuracy == 0.5

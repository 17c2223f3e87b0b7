"""The probation of a served model: what ends it, and that a model that does well passes."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import BadRequest, Busy, Unsupported
from edgekit_runtime.lane import Lane, LaneOptions
from edgekit_runtime.probation import FEW, Terms, shortcoming
from edgekit_runtime.served import Served, opened
from edgekit_runtime.tensors import Feeds

from tests.runtime.bundles import make_bundle, some

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return opened(open_bundle(make_bundle(tmp_path_factory.mktemp("m") / "b")))


def watched(served: Served, terms: Terms, requests: int = 0, run: Callable[[Feeds], Feeds] | None = None) -> str:
    """What came of it, while so many requests were sent to a lane that runs `run` since it was opened."""

    async def story() -> str:
        lane = Lane(served)
        if run is not None:
            lane._run = run
        trial = asyncio.ensure_future(shortcoming(lane, terms))
        for number in range(requests):
            try:
                await lane.infer({"x": some(1, number)})
            except Exception:  # what the engine raises is counted by the lane
                continue
        why = await trial
        await lane.close()
        return why

    return asyncio.run(story())


def test_a_model_that_does_well_stays(served: Served) -> None:
    assert watched(served, Terms(0.3, look=0.05), requests=20) == ""


def test_wrong_answers_end_it_at_once(served: Served) -> None:
    start = time.monotonic()
    why = watched(served, Terms(60), run=lambda feeds: {"y": served.run(feeds)["y"] + 100})
    assert "self-test failed: y is off" in why
    assert time.monotonic() - start < 60


def test_answers_that_go_wrong_later_are_found_at_the_end(served: Served) -> None:
    calls: list[int] = []

    def run(feeds: Feeds) -> Feeds:
        calls.append(1)
        answer = served.run(feeds)
        return answer if len(calls) <= 3 else {"y": np.full_like(answer["y"], np.nan)}

    assert "self-test failed" in watched(served, Terms(0.1, look=0.05), run=run)


def failing(served: Served, error: Exception) -> Callable[[Feeds], Feeds]:
    """Answers the recorded inputs, and fails for all others."""
    known = [feeds["x"].tobytes() for feeds, _ in served.bundle.golden()]

    def run(feeds: Feeds) -> Feeds:
        if feeds["x"].tobytes() in known:
            return served.run(feeds)
        raise error

    return run


@pytest.mark.parametrize("error", [Unsupported("it broke"), RuntimeError("segment not found")])
def test_an_engine_that_fails_for_requests_ends_it(served: Served, error: Exception) -> None:
    why = watched(served, Terms(60, look=0.05), requests=20, run=failing(served, error))
    assert why.startswith("the engine failed in ")


def test_what_clients_do_wrong_does_not_end_it(served: Served) -> None:
    run = failing(served, BadRequest("no such word"))
    assert watched(served, Terms(0.5, look=0.05), requests=50, run=run) == ""


def test_a_few_failures_do_not_end_it(served: Served) -> None:
    run = failing(served, Unsupported("it broke"))
    assert watched(served, Terms(0.3, look=0.05), requests=2 + FEW, run=run) == ""  # three of them are recorded ones


def test_a_drift_alarm_ends_it_where_it_is_to(served: Served) -> None:
    assert "drifted" in watched(served, Terms(60, lambda: True, look=0.05))


@pytest.mark.slow
def test_an_engine_that_hangs_ends_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_runtime.selftests.PATIENCE", 0.3)

    def run(feeds: Feeds) -> Feeds:
        time.sleep(2)
        return served.run(feeds)

    assert watched(served, Terms(60), run=run) == "it does not answer any more"


@pytest.mark.slow
def test_an_engine_that_begins_to_hang_is_found_by_its_signs_of_life(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit_runtime.probation.LIFE_SECONDS", 0.2)
    monkeypatch.setattr("edgekit_runtime.probation.PATIENCE", 0.3)
    calls: list[int] = []

    def run(feeds: Feeds) -> Feeds:
        calls.append(1)
        if len(calls) > 3:
            time.sleep(2)
        return served.run(feeds)

    assert "does not answer" in watched(served, Terms(60, look=0.05), run=run)


@pytest.mark.slow
def test_a_lane_that_is_busy_is_asked_again(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_runtime.selftests.PATIENCE", 1.0)
    monkeypatch.setattr("edgekit_runtime.probation.AGAIN_SECONDS", 0.05)
    slow = replace(served, run=lambda feeds: (time.sleep(0.05), served.run(feeds))[1])

    async def story() -> str:
        lane = Lane(slow)
        others = [asyncio.ensure_future(lane.infer({"x": some(1, number)})) for number in range(60)]
        why = await shortcoming(lane, Terms(0))
        await asyncio.gather(*others)
        await lane.close()
        return why

    assert asyncio.run(story()) == ""


def test_an_engine_that_begins_to_raise_what_is_not_ours_ends_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit_runtime.probation.LIFE_SECONDS", 0.1)
    calls: list[int] = []

    def run(feeds: Feeds) -> Feeds:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("the delegate is gone")
        return served.run(feeds)

    assert "does not answer: RuntimeError" in watched(served, Terms(60, look=0.05), run=run)


def test_a_lane_that_never_has_time_for_its_recorded_inputs_is_watched_for_failures_meanwhile(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit_runtime.probation.AGAIN_SECONDS", 0.05)
    turns: list[int] = []

    def run(feeds: Feeds) -> Feeds:
        turns.append(1)
        time.sleep(0.005)
        if len(turns) % 2:
            raise Unsupported("it broke")
        return served.run(feeds)

    async def story() -> str:
        lane = Lane(served, LaneOptions(queue=2))
        lane._run = run
        over = asyncio.Event()

        async def load(number: int) -> None:
            while not over.is_set():
                try:
                    await lane.infer({"x": some(1, number)})
                except Unsupported:
                    continue
                except Busy:
                    await asyncio.sleep(0)

        others = [asyncio.ensure_future(load(number)) for number in range(6)]
        await asyncio.sleep(0.1)
        try:
            return await asyncio.wait_for(shortcoming(lane, Terms(60)), 20)
        finally:
            over.set()
            await asyncio.gather(*others)
            await lane.close()

    assert asyncio.run(story()).startswith("the engine failed in ")


def test_a_queue_that_is_full_when_it_begins_does_not_end_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_runtime.probation.AGAIN_SECONDS", 0.05)
    slow = replace(served, run=lambda feeds: (time.sleep(0.1), served.run(feeds))[1])

    async def story() -> str:
        lane = Lane(slow, LaneOptions(queue=3))
        others = [asyncio.ensure_future(lane.infer({"x": some(1, number)})) for number in range(4)]
        await asyncio.sleep(0.05)
        others += [asyncio.ensure_future(lane.infer({"x": some(1, 9)}))]
        await asyncio.sleep(0)
        assert lane.waiting == 3
        why = await shortcoming(lane, Terms(0))
        await asyncio.gather(*others, return_exceptions=True)
        await lane.close()
        return why

    assert asyncio.run(story()) == ""

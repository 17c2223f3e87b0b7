"""Self-tests while a model is served: soon, again after a swap, told when they fail, and in nobody's way."""

import asyncio
import threading
import time

import numpy as np
import pytest
from edgekit_runtime import selftests
from edgekit_runtime.bundle import open_bundle, read_manifest, write_golden
from edgekit_runtime.errors import Busy, Unsupported
from edgekit_runtime.lane import Lane, LaneOptions
from edgekit_runtime.selftests import SelfTests
from edgekit_runtime.served import opened

from tests.runtime.bundles import listed, make_bundle, some, truth
from tests.runtime.live import pair


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return open_bundle(make_bundle(tmp_path_factory.mktemp("b") / "tiny"))


@pytest.fixture(scope="module")
def off(tmp_path_factory):
    """A bundle whose recorded answers are not those of its model."""
    folder = make_bundle(tmp_path_factory.mktemp("b") / "off", name="off", version="7")
    write_golden(folder / "golden.npz", [({"x": some(1, n)}, {"y": truth(some(1, n)) + n}) for n in range(3)])
    return open_bundle(listed(folder, read_manifest(folder)))


def running(lanes, seconds=0.3, every=100.0, look=0.01, until=None):
    """The self-tests of these lanes after so many seconds, and the counts of the first lane."""

    async def story():
        tests = SelfTests(lambda: lanes, every, look)
        task = asyncio.ensure_future(tests.run())
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and until(tests)):
            await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found = {lane: tests.result(lane) for lane in lanes}
        for lane in lanes:
            await lane.close(2)
        return tests, found

    return asyncio.run(asyncio.wait_for(story(), 120))


def test_a_model_that_answers_as_it_was_recorded_passes_soon_and_is_not_counted(good):
    lane = Lane(opened(good))
    tests, found = running([lane], 60, until=lambda tests: tests.results())
    assert found[lane].passed
    assert abs(found[lane].when_ms - time.time() * 1000) < 10_000
    assert tests.results() == {("tiny", "1"): (True, found[lane].when_ms)}
    stats = lane.stats
    assert (stats.success.count, stats.fail.count, stats.inferences, stats.executions, stats.late) == (0, 0, 0, 0, 0)


def test_a_failing_one_is_told_with_what_is_off(off, caplog):
    lane = Lane(opened(off))
    _, found = running([lane], 60, until=lambda tests: tests.results())
    assert found[lane].passed is False
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.getMessage().startswith("off 7: the self-test failed: y is off by ")


@pytest.mark.parametrize(("error", "word"), [(RuntimeError("inside"), "RuntimeError"), (Unsupported("no"), "no")])
def test_an_engine_that_fails_on_what_it_answered_once_fails_the_test_and_the_others_are_tested(
    good, caplog, error, word
):
    def fail(feeds):
        raise error

    broken, fine = Lane(opened(good)), Lane(opened(good))
    broken._run = fail
    _, found = running([broken, fine], 60, until=lambda tests: tests.result(fine))
    assert (found[broken].passed, found[fine].passed) == (False, True)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [word]


def test_a_lane_without_recordings_has_no_result():
    lane = Lane(pair(lambda feeds: {"y": feeds["x"]}))
    assert running([lane], 0.1)[1] == {lane: None}


def test_a_bundle_whose_folder_is_gone_is_told_once_and_does_not_fail_its_model(tmp_path, caplog):
    folder = make_bundle(tmp_path / "tiny")
    lane = Lane(opened(open_bundle(folder)))
    (folder / "golden.npz").unlink()
    looks = iter(range(20))  # and is looked at some times more
    assert running([lane], 60, until=lambda tests: caplog.records and next(looks, None) is None)[1] == {lane: None}
    (line,) = caplog.records
    assert "no self-test" in line.getMessage()


def test_each_is_tested_again_when_its_time_comes(good):
    lane, times = Lane(opened(good)), set()
    running([lane], 60, every=0.03, until=lambda tests: times.add(tests.result(lane)) or len(times) > 3)
    assert len(times - {None}) >= 3


def test_a_new_lane_is_tested_soon_and_an_old_one_is_forgotten(good, off):
    async def story():
        old, new = Lane(opened(good)), Lane(opened(off))
        lanes = [old]
        tests = SelfTests(lambda: lanes, 100, 0.01)
        task = asyncio.ensure_future(tests.run())
        while not tests.result(old):
            await asyncio.sleep(0.01)
        lanes[:] = [new]
        while not tests.result(new):
            await asyncio.sleep(0.01)
        task.cancel()
        await old.close(2)
        await new.close(2)
        return tests.result(old), tests.results()

    gone, left = asyncio.run(asyncio.wait_for(story(), 60))
    assert gone is None
    assert list(left) == [("off", "7")]


def test_a_busy_lane_is_left_alone_for_longer_and_longer(good, monkeypatch):
    asked = []

    async def probe(feeds, deadline=None):
        asked.append(time.monotonic())
        raise Busy("128 requests are waiting for this model")

    monkeypatch.setattr(selftests, "AGAIN_SECONDS", 0.1)
    lane = Lane(opened(good))
    lane.probe = probe
    running([lane], 60, until=lambda tests: len(asked) >= 3)
    pauses = np.diff(asked)
    assert pauses[0] >= 0.1
    assert pauses[1] >= 0.2


@pytest.mark.slow
def test_a_slow_model_has_time_for_each_of_its_inputs(good, monkeypatch):
    monkeypatch.setattr(selftests, "PATIENCE", 1.2)
    lane = Lane(opened(good))
    real = lane._run
    lane._run = lambda feeds: time.sleep(0.5) or real(feeds)
    _, found = running([lane], 60, until=lambda tests: tests.results())
    assert found[lane].passed


def test_answers_are_compared_beside_the_event_loop(good, monkeypatch):
    real, threads = selftests.judged, []
    monkeypatch.setattr(selftests, "judged", lambda *given: threads.append(threading.current_thread()) or real(*given))
    running([Lane(opened(good))], 60, until=lambda tests: tests.results())
    assert threads
    assert threading.main_thread() not in threads


def test_requests_go_between_the_recorded_inputs(good, monkeypatch):
    monkeypatch.setattr(selftests, "AGAIN_SECONDS", 0.05)  # should it find no place

    async def story():
        lane = Lane(opened(good), LaneOptions(queue=2))  # one of the test and one of the client
        real = lane._run
        lane._run = lambda feeds: time.sleep(0.05) or real(feeds)
        tests = SelfTests(lambda: [lane], 100, 0.01)
        task = asyncio.ensure_future(tests.run())
        await asyncio.sleep(0.05)
        answers = [await lane.infer({"x": some()}) for _ in range(5)]
        while not tests.result(lane):
            await asyncio.sleep(0.01)
        task.cancel()
        await lane.close(2)
        return answers, lane.stats

    answers, stats = asyncio.run(asyncio.wait_for(story(), 60))
    assert len(answers) == 5
    assert (stats.inferences, stats.rejected) == (5, 0)

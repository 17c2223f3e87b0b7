"""The lane of a model: its queue, its batches, its deadlines, and what it does for clients that leave."""

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, Busy, Late, NotFound, Unsupported
from edgekit_runtime.lane import Batching, Lane, LaneOptions
from edgekit_runtime.pace import FORGIVEN, LONG_NS, QUICK_NS, TRUST, Pace
from edgekit_runtime.served import rows_keep_apart
from edgekit_runtime.tensors import TensorSpec

from tests.runtime.live import pair


def x(*rows):
    return {"x": np.array(rows or [[1, 2]], np.float32)}


def double(feeds):
    return {"y": feeds["x"] * 2}


class Gate:
    """A model that waits until it is let go; it remembers what it was given."""

    def __init__(self):
        self.go, self.inside, self.seen = threading.Event(), threading.Event(), []

    def __call__(self, feeds):
        self.seen.append(feeds["x"].copy())
        self.inside.set()
        assert self.go.wait(20)
        return double(feeds)


async def begun(gate):
    await asyncio.to_thread(gate.inside.wait, 10)


def quick_lane():
    """A lane whose model was found to be quick; the machine may be slow at one moment or another."""
    return next(lane for _ in range(1000) if (lane := Lane(replace(pair(double), sample=x()))).quick)


def test_a_quick_model_is_run_where_it_is_asked():
    lane = quick_lane()
    answer, took = lane.now(x([3, 4]))
    assert answer["y"].tolist() == [[6, 8]]
    assert took > 0
    assert (lane.stats.executions, lane.stats.inferences) == (1, 1)


def test_a_slow_model_and_a_large_request_are_not_run_on_the_loop():
    slow = Lane(replace(pair(lambda f: time.sleep(0.003) or double(f)), sample=x()))
    assert not slow.quick
    assert slow.now(x()) is None
    assert quick_lane().now({"x": np.zeros((5000, 2), np.float32)}) is None


def test_a_model_is_quick_up_to_the_size_that_it_was_quick_for():
    pace = Pace()
    assert not pace.quick
    pace.learn(100, QUICK_NS // 2)
    assert (pace.quick, pace.fits(100), pace.fits(101)) == (True, True, False)
    pace.learn(1000, QUICK_NS + 1)
    assert not pace.fits(1000)


def test_one_hiccup_is_forgiven_and_a_model_that_gets_slow_leaves_the_loop():
    pace = Pace()
    pace.learn(100, QUICK_NS // 10)
    pace.learn(100, 5 * QUICK_NS)
    assert pace.quick
    for _ in range(20):
        pace.learn(100, 2 * QUICK_NS)
    assert not pace.quick


def test_a_run_that_was_very_long_takes_the_trust_away_the_longer_the_more_often_it_happens():
    pace = Pace()
    pace.learn(100, QUICK_NS // 10)
    for trust in (*TRUST, TRUST[-1]):
        pace.learn(100, LONG_NS + 1)
        for _ in range(trust):
            assert not pace.quick
            pace.learn(100, QUICK_NS // 10)
        assert pace.quick


def test_a_long_run_is_forgotten_in_time():
    pace = Pace()
    for _ in range(2):
        pace.learn(100, LONG_NS + 1)
        for _ in range(FORGIVEN + TRUST[0]):
            pace.learn(100, QUICK_NS // 10)
    pace.learn(100, LONG_NS + 1)
    for _ in range(TRUST[0]):
        assert not pace.quick
        pace.learn(100, QUICK_NS // 10)
    assert pace.quick


def test_requests_of_several_clients_wait_for_each_other_in_order():
    order = []

    def run(feeds):
        order.append(float(feeds["x"][0, 0]))
        time.sleep(0.002)
        return double(feeds)

    async def story():
        lane = Lane(pair(run))
        answers = await asyncio.gather(*(lane.infer(x([n, 0])) for n in range(20)))
        await lane.close()
        return [float(answer["y"][0, 0]) for answer in answers]

    assert asyncio.run(story()) == [2.0 * n for n in range(20)]
    assert order == [float(n) for n in range(20)]


def test_a_full_queue_is_said_at_once_with_when_to_come_back():
    async def story():
        gate = Gate()
        lane = Lane(pair(gate), LaneOptions(queue=2))
        first = asyncio.ensure_future(lane.infer(x()))
        await begun(gate)
        waiting = [asyncio.ensure_future(lane.infer(x())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 requests are waiting") as raised:
            await lane.infer(x())
        gate.go.set()
        await asyncio.gather(first, *waiting)
        assert (lane.stats.rejected, raised.value.retry_after) == (1, 1)
        await lane.close()

    asyncio.run(story())


def test_a_deadline_ends_the_wait_and_what_is_late_is_not_run():
    async def story():
        gate, loop = Gate(), asyncio.get_running_loop()
        lane = Lane(pair(gate))
        first = asyncio.ensure_future(lane.infer(x([1, 1])))
        await begun(gate)
        with pytest.raises(Late):
            await lane.infer(x([2, 2]), loop.time() + 0.05)
        gate.go.set()
        await first
        await lane.infer(x([3, 3]))
        assert [seen[0, 0] for seen in gate.seen] == [1, 3]
        assert lane.stats.late == 1
        await lane.close()

    asyncio.run(story())


def test_what_a_client_gave_up_is_not_run_and_frees_its_place():
    async def story():
        gate = Gate()
        lane = Lane(pair(gate), LaneOptions(queue=1))
        first = asyncio.ensure_future(lane.infer(x([1, 1])))
        await begun(gate)
        second = asyncio.ensure_future(lane.infer(x([2, 2])))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        third = asyncio.ensure_future(lane.infer(x([3, 3])))
        await asyncio.sleep(0)
        gate.go.set()
        await asyncio.gather(first, third)
        assert [seen[0, 0] for seen in gate.seen] == [1, 3]
        assert lane.stats.cancelled == 1
        await lane.close()

    asyncio.run(story())


def batched(size, delay=0.0, preferred=()):
    return LaneOptions(batching=Batching(size, delay, preferred))


def test_waiting_requests_run_together_and_each_gets_its_own_rows():
    async def story():
        gate = Gate()
        lane = Lane(pair(gate), batched(4))
        first = asyncio.ensure_future(lane.infer(x([0, 0])))
        await begun(gate)
        rows = [[[1, 1]], [[2, 2], [3, 3]], [[4, 4], [5, 5]]]
        others = [asyncio.ensure_future(lane.infer(x(*some))) for some in rows]
        await asyncio.sleep(0)
        gate.go.set()
        answers = await asyncio.gather(first, *others)
        assert [answer["y"].tolist() for answer in answers[1:]] == [(2 * np.array(some)).tolist() for some in rows]
        assert [len(seen) for seen in gate.seen] == [1, 3, 2]
        assert sorted(lane.stats.batches) == [1, 2, 3]
        await lane.close()

    asyncio.run(story())


def test_requests_of_other_shapes_are_not_batched_together():
    free = TensorSpec("x", "float32", (None, None))
    served = replace(pair(double), inputs=(free,), outputs=(replace(free, name="y"),))

    async def story():
        gate = Gate()
        lane = Lane(replace(served, run=gate), batched(8))
        first = asyncio.ensure_future(lane.infer(x([0, 0])))
        await begun(gate)
        others = [asyncio.ensure_future(lane.infer(x(row))) for row in ([1, 1], [2, 2], [3, 3, 3], [4, 4, 4])]
        await asyncio.sleep(0)
        gate.go.set()
        await asyncio.gather(first, *others)
        assert [seen.shape for seen in gate.seen] == [(1, 2), (2, 2), (2, 3)]
        await lane.close()

    asyncio.run(story())


def test_a_batch_waits_for_more_only_as_long_as_it_was_told():
    async def story(delay, preferred):
        seen = []
        lane = Lane(pair(lambda f: seen.append(len(f["x"])) or double(f)), batched(8, delay, preferred))
        start = time.perf_counter()
        await asyncio.gather(*(lane.infer(x([n, n])) for n in range(4)))
        took = time.perf_counter() - start
        await lane.close()
        return seen, took

    seen, took = asyncio.run(story(0.2, ()))
    assert (seen, took > 0.19) == ([4], True)
    seen, took = asyncio.run(story(60.0, (4,)))
    assert (seen, took < 30) == ([4], True)


def test_one_bad_request_in_a_batch_spoils_no_other():
    async def story():
        gate = Gate()

        def run(feeds):
            if len(gate.seen) and (feeds["x"] < 0).any():
                raise Unsupported("node 3")
            return gate(feeds)

        lane = Lane(pair(run), batched(4))
        first = asyncio.ensure_future(lane.infer(x([0, 0])))
        await begun(gate)
        others = [asyncio.ensure_future(lane.infer(x(row))) for row in ([1, 1], [-1, 0], [2, 2])]
        await asyncio.sleep(0)
        gate.go.set()
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        assert isinstance(answers[2], Unsupported)
        assert [answers[n]["y"].tolist() for n in (1, 3)] == [[[2, 2]], [[4, 4]]]
        await lane.close()

    asyncio.run(story())


def test_a_model_that_mixes_its_samples_is_not_batched():
    sampled = replace(pair(double), sample=x())
    assert rows_keep_apart(sampled)
    assert not rows_keep_apart(replace(sampled, run=lambda f: {"y": f["x"] - f["x"].mean(axis=0)}))


def test_an_engine_that_raises_anything_leaves_the_lane_alive():
    async def story():
        lane = Lane(pair(lambda f: {}[1] if f["x"][0, 0] < 0 else double(f)))
        with pytest.raises(KeyError):
            await lane.infer(x([-1, 0]))
        assert (await lane.infer(x([1, 0])))["y"].tolist() == [[2, 0]]
        await lane.close()

    asyncio.run(story())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_passed_on_unless_the_server_refuses_it(bad):
    async def story(refuse):
        lane = Lane(pair(double), LaneOptions(refuse_nan=refuse))
        try:
            return await lane.infer(x([bad, 0]))
        finally:
            await lane.close()

    assert not np.isfinite(asyncio.run(story(False))["y"][0, 0])
    with pytest.raises(BadRequest, match="x: holds NaN or Infinity"):
        asyncio.run(story(True))


def test_a_lane_that_closes_answers_what_it_took_and_lets_go_of_the_engine():
    async def story():
        gate = Gate()
        lane = Lane(pair(gate))
        taken = [asyncio.ensure_future(lane.infer(x())) for _ in range(3)]
        await begun(gate)
        closing = asyncio.ensure_future(lane.close())
        gate.go.set()
        assert len(await asyncio.gather(*taken)) == 3
        await closing
        with pytest.raises(NotFound):
            lane.served.run(x())

    asyncio.run(story())

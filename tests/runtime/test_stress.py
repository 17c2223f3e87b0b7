"""Many clients at once who leave when they like, while models are swapped: every answer is right, none is lost."""

import asyncio
import contextlib
import json
import random
import shutil
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from edgekit_runtime import inferring, parsing
from edgekit_runtime.errors import Busy, Late
from edgekit_runtime.lane import Batching, Lane, LaneOptions
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.service import Policy, Service, open_service

from tests.runtime.bundles import make_bundle, some, truth
from tests.runtime.live import live, pair, post, two
from tests.waiting import until

pytestmark = pytest.mark.slow


def double(feeds):
    return {"y": feeds["x"] * 2}


def slowly(feeds):
    time.sleep(0.001 * len(feeds["x"]))
    return double(feeds)


async def client(lane, dice, seconds, told):
    """Ask until the time is up, with rows of its own; give up some, give others little time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        rows = np.array([[dice.random(), dice.random()] for _ in range(dice.choice((1, 1, 2, 3)))], np.float32)
        deadline = loop.time() + dice.choice((0.001, 0.01, 5.0))
        task = asyncio.ensure_future(lane.infer({"x": rows}, deadline))
        if dice.random() < 0.2:
            loop.call_later(dice.random() * 0.01, task.cancel)
        try:
            answer = await task
        except (Busy, Late, asyncio.CancelledError) as error:
            told[type(error).__name__] = told.get(type(error).__name__, 0) + 1
            await asyncio.sleep(0.002)
        else:
            assert np.array_equal(answer["y"], rows * 2)
            told["right"] = told.get("right", 0) + 1


@pytest.mark.parametrize("batching", [Batching(), Batching(8, 0.002, (4,))], ids=["one by one", "batched"])
def test_whoever_waits_whoever_leaves_each_gets_its_own_rows(batching):
    async def story():
        lane, told = Lane(pair(slowly), LaneOptions(queue=16, batching=batching)), {}
        clients = [client(lane, random.Random(seed), 1.5, told) for seed in range(40)]
        await asyncio.wait_for(asyncio.gather(*clients), 60)
        assert lane.waiting == 0
        await asyncio.wait_for(lane.close(), 30)
        return told, lane.stats

    told, stats = asyncio.run(story())
    assert min(told.get(word, 0) for word in ("right", "Busy", "Late", "CancelledError")) > 0, told
    assert (stats.rejected, stats.late) == (told["Busy"], told["Late"])


def test_a_quick_model_is_never_run_by_two_threads_at_once():
    inside, twice, calls = threading.Lock(), [], [0]

    def run(feeds):
        if not inside.acquire(blocking=False):
            twice.append(1)
            return double(feeds)
        calls[0] += 1
        inside.release()
        return double(feeds)

    async def story():
        lane, feeds = (
            Lane(replace(pair(run), sample={"x": np.ones((1, 2), np.float32)})),
            {"x": np.ones((1, 2), np.float32)},
        )
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            queued = asyncio.ensure_future(lane.infer(feeds))  # as the watchdog asks
            await asyncio.sleep(0)
            for _ in range(20):
                lane.now(feeds)
            await queued
        await lane.close()

    asyncio.run(story())
    assert calls[0] > 100
    assert not twice


def test_a_body_that_is_read_while_its_model_is_unloaded_is_answered():
    async def story():
        lane = Lane(pair(slowly))
        asked = Asked({"x": np.ones((1, 2), np.float32)}, lambda outputs: outputs["y"].tolist())
        light = asyncio.ensure_future(inferring.infer(lane, lambda: asked, False, 5.0))
        heavy = asyncio.ensure_future(inferring.infer(lane, lambda: time.sleep(0.3) or asked, True, 2.0))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(lane.close(), 10)
        return await asyncio.gather(light, heavy)

    assert asyncio.run(story()) == [[[2, 2]]] * 2


@pytest.mark.parametrize("limit", [None, 100], ids=["beside", "one after the other"])
def test_swaps_under_load_lose_no_request(tmp_path, limit):
    """Old and new are the same model: what matters is that somebody answers, and rightly."""

    def put(version):
        bundle = make_bundle(tmp_path / f".{version}", version=version)
        raw = json.loads((bundle / "manifest.json").read_text())
        raw["evidence"]["peak_mb"] = 60
        (bundle / "manifest.json").write_text(json.dumps(raw))
        bundle.rename(tmp_path / f"tiny-{version}")

    def given(asked, seconds):
        time.sleep(seconds)
        return asked

    async def ask(one, dice, stop):
        count = 0
        while not stop.is_set():
            x = some(dice.choice((1, 2)), dice.randrange(1000))
            asked = Asked({"x": x}, lambda outputs: outputs["y"])
            heavy = dice.random() < 0.3
            read = partial(given, asked, 0.01 if heavy else 0.0)
            found = inferring.answer(one.find("tiny"), read, inferring.HEAVY + 1 if heavy else 0, 5.0)
            task = None if isinstance(found, np.ndarray) else asyncio.ensure_future(found)
            if task is not None and dice.random() < 0.1:
                asyncio.get_running_loop().call_later(dice.random() * 0.02, task.cancel)
            try:
                answer = found if task is None else await task
            except asyncio.CancelledError:
                continue
            assert np.allclose(answer, truth(x), atol=1e-5)
            count += 1
            await asyncio.sleep(0)
        return count

    async def story():
        one, stop = open_service([], None, Policy(tmp_path, limit)), asyncio.Event()
        clients = [asyncio.ensure_future(ask(one, random.Random(seed), stop)) for seed in range(20)]
        for version in range(2, 8):
            await asyncio.to_thread(put, str(version))
            asked = asyncio.ensure_future(one.load("tiny"))
            await asyncio.sleep(0.002 * version)
            if version % 2:
                asked.cancel()  # whoever asked for it has left: it is made whole all the same
            await asyncio.gather(asked, return_exceptions=True)
            await asyncio.sleep(0.05)
            shutil.rmtree(tmp_path / f"tiny-{version - 1}", ignore_errors=version % 2 == 0)
        await one.load("tiny")
        stop.set()
        counts = await asyncio.wait_for(asyncio.gather(*clients), 60)
        versions = one.versions("tiny")
        await asyncio.wait_for(one.close(), 60)
        return sum(counts), versions

    put("1")
    count, versions = asyncio.run(story())
    assert (versions, count > 100) == (["7"], True)


REQUESTS = (
    post("/v2/models/m/infer", two(), close=False),
    post("/v2/models/m/infer", two(), close=True),
    post("/v2/models/m/infer", b"{", close=False),
    post("/v2/models/none/infer", two(), close=False),
    b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/health/live HTTP/1.1\r\n\r\n",
    b"GET /v2 HTTP/1.0\r\n\r\n",
    b"\r\n",
    b"\x00\x01\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
)


async def caller(address, dice, rounds):
    """Send requests and garbage, whole or cut, in packets of any size; read the answers or leave."""
    for _ in range(rounds):
        reader, writer = await asyncio.open_connection(*address)
        sent = b"".join(dice.choices(REQUESTS, k=dice.randrange(1, 6)))
        sent = sent[: dice.choice((len(sent), len(sent), dice.randrange(1, len(sent) + 1)))]
        while sent and not writer.transport.is_closing():
            size = dice.choice((len(sent), 1 + dice.randrange(len(sent))))
            writer.write(sent[:size])
            sent = sent[size:]
            await asyncio.sleep(dice.choice((0, 0, 0.002)))
        if dice.random() < 0.3:
            writer.transport.abort()
        elif dice.random() < 0.5:
            writer.close()
        else:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(reader.read(1000), 2)
            writer.close()


@pytest.mark.parametrize("library", ["httptools", "h11"])
@pytest.mark.parametrize("model", [double, slowly])
def test_every_request_that_began_was_answered_or_its_client_is_gone(library, model, monkeypatch):
    made = {"httptools": parsing.make_parser, "h11": parsing._H11}[library]
    monkeypatch.setattr("edgekit_runtime.http1.make_parser", made)
    served = replace(pair(model), sample={"x": np.ones((1, 2), np.float32)})
    limits = Limits(header_seconds=0.5, body_seconds=0.5, idle_seconds=0.5, queue=4)
    with live(Service([served], policy=Policy(lane=LaneOptions(queue=4), limits=limits))) as one:

        async def story():
            await asyncio.gather(*(caller(one.address, random.Random(seed), 6) for seed in range(30)))

        asyncio.run(story())
        edge = one.server.edges[0]
        until(lambda: not edge.connections)
        total = one.server.counters.total
        begun, answered = total("edgekit_http_requests_begun_total"), total("edgekit_http_requests_total")
        assert begun > 100
        assert begun == answered + total("edgekit_clients_gone_total")
        assert (edge.buffered, dict(edge.addresses), len(edge.connections)) == (0, {}, 0)
        assert one.counted("edgekit_refused_total", "bug") == 0


def test_a_server_told_to_end_under_load_ends_soon_and_cuts_nobody_off():
    cut, answered = [], []

    async def ask(address, stop):
        while not stop.is_set():
            try:
                reader, writer = await asyncio.open_connection(*address)
            except OSError:
                return  # it takes no more: as it should
            writer.write(post("/v2/models/m/infer", two()))
            try:
                got = await reader.read(100_000)
            except OSError:
                got = b""
            (answered if got.startswith(b"HTTP/1.1 200") else cut).append(got)
            writer.close()

    def load(address, stop):
        async def story():
            await asyncio.gather(*(ask(address, stop) for _ in range(8)))

        asyncio.run(story())

    stop = threading.Event()
    with live(Service([pair(slowly)])) as one:
        clients = threading.Thread(target=load, args=(one.address, stop))
        clients.start()
        until(lambda: len(answered) > 50)
        begin = time.monotonic()
    took = time.monotonic() - begin
    stop.set()
    clients.join(30)
    assert took < 15
    assert len([got for got in cut if got]) == 0, cut[:3]

"""Telemetry of a running server: measured on the event loop alone, kept, told how it fares, and ended in time."""

import asyncio
import sqlite3
import threading
import time

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family, Sample, text
from edgekit_runtime.limits import MIB
from edgekit_runtime.service import Service
from edgekit_runtime.telemetering import Telemetry, Wanted
from edgekit_runtime.telemetry.ring import Ring
from edgekit_runtime.watching import Watch, Watching

from tests.runtime.live import live, pair, two

FAMILY = Family("edgekit_test", "gauge", "A number.", (Sample(7),))


def events(folder):
    """What happened, the first first: (when_ms, kind, facts)."""
    ring = Ring(folder, MIB)
    found = ring.events(100)
    ring.close()
    return found[::-1]


def test_what_happened_is_kept_at_its_own_time_where_it_has_one(tmp_path):
    one = Telemetry(Wanted(tmp_path, MIB))
    asyncio.run(measured(one))
    now = time.time_ns() // 1_000_000
    (_, kind, facts), (when, model, about) = events(tmp_path)
    assert (kind, facts) == ("started", {"models": ["m"]})
    assert (model, about) == ("model", {"model": "m", "what": "loaded"})
    assert when == pytest.approx(now - 5000, abs=3000)


async def measured(one, seconds=0.3):
    """Run it for a while; the threads that measured."""
    threads = []

    def measure():
        threads.append(threading.current_thread())
        return [FAMILY]

    one.start(measure, asyncio.get_running_loop())
    one.event("started", models=["m"])
    one.event("model", when_ms=time.time_ns() // 1_000_000 - 5000, model="m", what="loaded")
    await asyncio.sleep(seconds)
    await asyncio.to_thread(one.close)
    return threads


def test_it_measures_on_the_event_loop_alone_and_once_more_at_the_end(tmp_path):
    threads = asyncio.run(measured(Telemetry(Wanted(tmp_path, MIB))))
    assert set(threads) == {threading.main_thread()}
    assert len(threads) == 2
    with sqlite3.connect(f"file:{next(tmp_path.glob('*.db*'))}?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*) FROM slots").fetchone()[0] >= 1


@pytest.mark.slow
def test_an_event_loop_that_hangs_does_not_hold_up_its_end(tmp_path, caplog):
    async def story():
        one = Telemetry(Wanted(tmp_path, MIB))
        one.start(lambda: [FAMILY], asyncio.get_running_loop())
        await asyncio.sleep(0.1)
        ending = threading.Thread(target=one.close)
        begun = time.monotonic()
        ending.start()
        ending.join(8)  # nothing runs on the loop meanwhile
        assert not ending.is_alive()
        return time.monotonic() - begun

    assert asyncio.run(story()) < 5


@pytest.mark.parametrize("wanted", [{"otlp": "ftp://a"}, {"remote_write": "nonsense"}])
def test_an_address_that_is_none_is_refused_and_the_folder_let_go(tmp_path, wanted):
    with pytest.raises(EdgeKitError) as refused:
        Telemetry(Wanted(tmp_path, MIB, **wanted))
    assert "say http" in refused.value.hint
    Telemetry(Wanted(tmp_path, MIB)).close()


def test_a_collector_is_named_by_its_base_or_whole(tmp_path):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra [otlp]")
    for url in ("http://c:4318", "http://c:4318/", "http://c:4318/v1/metrics"):
        one = Telemetry(Wanted(tmp_path, MIB, url, "http://u:secret@p:9090/api/v1/write"))
        told = text(one.families())
        one.close()
        assert 'destination="otlp http://c:4318/v1/metrics"' in told
        assert "http://p:9090/api/v1/write" in told
        assert "secret" not in told


def test_a_server_is_measured_while_it_answers(tmp_path, monkeypatch):
    threads, real = [], Watching.measured

    def measured(self):
        threads.append(threading.current_thread())
        return real(self)

    monkeypatch.setattr(Watching, "measured", measured)
    watch = Watch(state=tmp_path, telemetry=Telemetry(Wanted(tmp_path, MIB)))
    with live(Service([pair(lambda feeds: {"y": feeds["x"]})]), watch=watch) as one:
        before = threading.enumerate()
        for _ in range(50):
            assert one.ask("/v2/models/m/infer", two())[0] == 200
        loop = next(thread for thread in before if thread.name.startswith("Thread-") and thread in threads)
    assert set(threads) == {loop}
    names = {series.name if hasattr(series, "name") else series.family for series in slots(tmp_path)[-1].series}
    assert any(name.startswith("edgekit_request_duration_seconds") for name in names)
    assert any(name.startswith("edgekit_machine") for name in names)
    assert events(tmp_path)[0][1] == "started"


def slots(folder):
    ring = Ring(folder, MIB)
    found = ring.read(0, 100)
    ring.close()
    return found

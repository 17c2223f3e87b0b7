"""A device offline for a simulated week, killed twice: what it had committed arrives, once, at its original times.

The device and its sender are real processes, ended by SIGKILL at random moments; the receivers are Debian's Prometheus
and a web server that decodes OTLP with OpenTelemetry's own messages. Only the clock is not real: a week is put in a
minute, one put standing for `STEP_MS`."""

import gzip
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.telemetry.boots import Boot
from edgekit_runtime.telemetry.otlp import otlp
from edgekit_runtime.telemetry.posting import address
from edgekit_runtime.telemetry.remote_write import remote_write
from edgekit_runtime.telemetry.ring import Ring
from edgekit_runtime.telemetry.sending import Sender

from tests.prometheus_server import Prometheus, program, until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MB = 2**20
WEEK_MS = 7 * 86_400_000
STEP_MS = 5000
SLOT_MS = 10_000
BOUNDS = (0.1, 1.0, math.inf)


def measured(when_ms: int) -> list[Family]:
    """What is measured at a time: it can be told again from the time alone."""
    count = when_ms // 1000 % 10**7
    below = [float(count // 4), float(count // 2), float(count)]
    buckets = [
        Sample(n, (("le", "+Inf" if b == math.inf else str(b)),), "_bucket") for n, b in zip(below, BOUNDS, strict=True)
    ]
    whole = (Sample(count / 3, (), "_sum"), Sample(float(count), (), "_count"))
    heat = (Sample(math.sin(when_ms / 1e6) * at, (("sensor", str(at)),)) for at in (40.0, 50.0))
    return [
        Family("requests_total", "counter", "How many.", (Sample(float(count)),)),
        Family("heat_celsius", "gauge", "How hot.", tuple(heat)),
        Family("took_seconds", "histogram", "How long.", (*buckets, *whole)),
    ]


def flat(when_ms: int) -> dict[str, float]:
    """The same by series."""
    return {
        f"{family.name}{one.suffix}{dict(one.labels)}": one.value
        for family in measured(when_ms)
        for one in family.samples
    }


def device(folder: str, ledger: str, first_ms: str, last_ms: str) -> None:
    """The child that measures: a boot of its own, a put each step, and a line in the ledger once it is committed."""
    when = int(first_ms)
    ring = Ring(Path(folder), 64 * MB, boot=Boot(f"boot at {when}", lambda: when - int(first_ms)))
    told = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while when < int(last_ms):
        assert ring.put(measured(when), when)
        os.write(told, b"%d\n" % when)
        when += STEP_MS
    ring.close()


def send(folder: str, wire: str, url: str, seconds: str) -> None:
    """The child that sends: until everything is there, or for so many seconds."""
    ring = Ring(Path(folder), 64 * MB)
    labels = {"job": "edgekit", "instance": "pi"}
    to = remote_write(address(url), labels) if wire == "remote_write" else otlp(address(url), labels)
    sender = Sender(ring, to, per_second=1e9)
    end = time.monotonic() + float(seconds)
    while ring.unsent(to.name, 1) and time.monotonic() < end:
        time.sleep(min(0.2, sender.step()))
    ring.close()


def child(act: Callable[..., None], *words: object) -> "subprocess.Popen[bytes]":
    """One of the two above, as a process."""
    run = f"import sys; from tests.test_telemetry_survives import {act.__name__} as act; act(*sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", run, *map(str, words)], cwd=ROOT)


def slots_of(puts: list[int]) -> set[int]:
    """The times of the slots that these puts of one run make: the last one in each."""
    return set({(when - puts[0]) // SLOT_MS: when for when in puts}.values())


@dataclass(frozen=True)
class Week:
    """A device's file, and for each of its runs what it may hold: a killed run had its last put committed or not."""

    folder: Path
    runs: list[tuple[set[int], set[int]]]

    def judge(self, arrived: dict[int, dict[str, float]]) -> None:
        """All that was committed is there, with the numbers of its time; nothing else is."""
        rest = set(arrived)
        for told, one_more in self.runs:
            first, last = min(told), max(one_more)
            found = {when for when in rest if first <= when <= last}
            assert found in (told, one_more), f"{len(found ^ told)} slots are not what was committed"
            rest -= found
        assert not rest, f"{len(rest)} slots of times that never were"
        wrong = [when for when, values in arrived.items() if values != flat(when)]
        assert not wrong, f"{len(wrong)} slots with other numbers"


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Week:
    """The device's week: three runs, the first two killed, two minutes off after each."""
    folder = tmp_path_factory.mktemp("device")
    first = int(time.time()) * 1000 - WEEK_MS
    drawn, runs, begin = random.Random(), [], first
    for turn, share in enumerate((drawn.uniform(0.1, 0.4), drawn.uniform(0.5, 0.8), 1.0)):
        ledger = folder / f"ledger-{turn}"
        process = child(device, folder / "state", ledger, begin, first + WEEK_MS)
        lines = int((share * WEEK_MS - (begin - first)) / STEP_MS)
        while share < 1 and (not ledger.exists() or ledger.stat().st_size < lines * 14):
            assert process.poll() is None
            time.sleep(0.01)
        if share < 1:
            process.send_signal(signal.SIGKILL)
        assert process.wait(300) == (0 if share == 1 else -signal.SIGKILL)
        puts = [int(line) for line in ledger.read_text().splitlines()]
        more = [*puts, puts[-1] + STEP_MS]
        runs.append((slots_of(puts), slots_of(puts if share == 1 else more)))
        begin = puts[-1] + 120_000
    return Week(folder / "state", runs)


def test_a_week_takes_less_than_forty_megabytes(week: Week) -> None:
    assert sum(one.stat().st_size for one in week.folder.iterdir()) < 40 * MB


def back_fill(folder: Path, wire: str, url: str, arrived: Callable[[], int], wanted: int) -> int:
    """Send all; the sender is killed twice on the way. How many slots had arrived when it was."""
    killed_at = 0
    for share in (random.uniform(0.1, 0.4), random.uniform(0.5, 0.8)):
        process = child(send, folder, wire, url, 600)
        end = time.monotonic() + 300
        while arrived() < share * wanted and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert process.poll() is None, "it was too quick to be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at = arrived()
    assert child(send, folder, wire, url, 600).wait(600) == 0
    return killed_at


@dataclass
class Collector:
    """What an OTLP receiver got: by time and series, and how often something came again."""

    url: str = ""
    slots: dict[int, dict[str, float]] = field(default_factory=dict)
    again: int = 0
    contradicted: int = 0

    def take(self, when_ns: int, series: str, value: float) -> None:
        """A point."""
        values = self.slots.setdefault(when_ns // 10**6, {})
        if series in values:
            self.again += 1
            self.contradicted += values[series] != value
        values[series] = value

    def take_all(self, body: bytes) -> None:
        """A request."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        for resource in ExportMetricsServiceRequest.FromString(gzip.decompress(body)).resource_metrics:
            for metric in resource.scope_metrics[0].metrics:
                for point in (*metric.sum.data_points, *metric.gauge.data_points):
                    labels = {one.key: one.value.string_value for one in point.attributes}
                    self.take(point.time_unix_nano, f"{metric.name}{labels}", point.as_double)
                for one in metric.histogram.data_points:
                    below = 0
                    for bound, count in zip((*one.explicit_bounds, math.inf), one.bucket_counts, strict=True):
                        below += count
                        labels = {"le": "+Inf" if bound == math.inf else str(bound)}
                        self.take(one.time_unix_nano, f"{metric.name}_bucket{labels}", float(below))
                    self.take(one.time_unix_nano, f"{metric.name}_sum{{}}", one.sum)
                    self.take(one.time_unix_nano, f"{metric.name}_count{{}}", float(one.count))


@contextmanager
def collecting(port: int) -> Iterator[Collector]:
    """A real web server that decodes what it gets."""
    collector = Collector(f"http://127.0.0.1:{port}/v1/metrics")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take_all(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def receiving(folder: Path, port: int) -> Iterator[Prometheus]:
    """A real Prometheus that is written to, and takes what is as old as a device may be offline."""
    config = {"storage": {"tsdb": {"out_of_order_time_window": "35d"}}}
    (folder / "prometheus.json").write_text(json.dumps(config))  # JSON is YAML
    command = [
        program("prometheus"), "--config.file", str(folder / "prometheus.json"), "--web.enable-remote-write-receiver",
        "--storage.tsdb.path", str(folder / "data"), "--web.listen-address", f"127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            assert until(lambda: "ready to receive" in (folder / "log").read_text()), (folder / "log").read_text()
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_week_arrives_at_opentelemetry_once(week: Week, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    state, port = tmp_path / "state", free_port()
    shutil.copytree(week.folder, state)
    assert child(send, state, "otlp", f"http://127.0.0.1:{port}/v1/metrics", 2).wait(60) == 0, "nobody is there yet"
    wanted = sum(len(told) for told, _ in week.runs)
    with collecting(port) as collector:
        killed_at = back_fill(state, "otlp", collector.url, lambda: len(collector.slots), wanted)
    assert 0 < killed_at < wanted
    assert not collector.contradicted, "what came again was the same"
    assert collector.again <= 2 * 120 * 8, "only what was under way when it was killed came again"
    week.judge(collector.slots)


def test_the_week_arrives_at_prometheus_once(week: Week, tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    shutil.copytree(week.folder, state)
    url = f"http://127.0.0.1:{port}/api/v1/write"
    assert child(send, state, "remote_write", url, 2).wait(60) == 0, "nobody is there yet"
    wanted = sum(len(told) for told, _ in week.runs)
    now = str(int(time.time()) + 60)
    with receiving(tmp_path, port) as prometheus:

        def arrived() -> int:
            found = prometheus.api("query", query="count_over_time(requests_total[8d])", time=now)["result"]
            return int(found[0]["value"][1]) if found else 0

        killed_at = back_fill(state, "remote_write", url, arrived, wanted)
        found = prometheus.api("query", query='{job="edgekit",instance="pi"}[8d]', time=now)["result"]
    assert 0 < killed_at < wanted
    slots: dict[int, dict[str, float]] = {}
    for series in found:
        labels = {
            name: value for name, value in series["metric"].items() if name not in ("__name__", "job", "instance")
        }
        for when, value in series["values"]:
            values = slots.setdefault(round(when * 1000), {})
            name = f"{series['metric']['__name__']}{labels}"
            assert name not in values, "twice at one time"
            values[name] = float(value)
    week.judge(slots)

"""Sending what the ring keeps: what is on the wire, and what each answer of a receiver does."""

import base64
import gzip
import io
import logging
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.telemetry.boots import Boot
from edgekit_runtime.telemetry.otlp import otlp
from edgekit_runtime.telemetry.posting import Answer, Destination, Outcome, address, judged
from edgekit_runtime.telemetry.remote_write import remote_write, write_request
from edgekit_runtime.telemetry.ring import Ring
from edgekit_runtime.telemetry.sending import LONGEST, PLAUSIBLE_MS, SLOTS, Sender, behind
from edgekit_runtime.telemetry.snappy import framed, varint

EPOCH = 1_790_000_000_000
NOW = EPOCH / 1000 + 7 * 86_400
BUCKETS = (("0.1", 2), ("1", 5), ("+Inf", 6))
HISTOGRAM = (
    *(Sample(count, (("model", "m"), ("le", le)), "_bucket") for le, count in BUCKETS),
    Sample(3.25, (("model", "m"),), "_sum"),
    Sample(6, (("model", "m"),), "_count"),
)
FAMILIES = (
    Family("c_total", "counter", "How many.", (Sample(7.0, (("model", 'a"\\ß'),)),)),
    Family("g", "gauge", "How much.", (Sample(-1.5),)),
    Family("h_seconds", "histogram", "How long.", HISTOGRAM),
)


def filled(folder: Path, slots: int, wall: int = EPOCH) -> Ring:
    """A ring with so many closed slots, 10 s apart."""
    at = [0]
    ring = Ring(folder, 2**20, boot=Boot("a boot", lambda: at[0]))
    for _ in range(slots):
        ring.put(FAMILIES, wall + at[0])
        at[0] += 10_000
    ring.put((), wall + at[0])
    return ring


@dataclass
class Received:
    """What came to a receiver; `answers` are given in turn, then 200."""

    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)


@contextmanager
def receiver() -> Iterator[Received]:
    """A real web server on loopback."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = received.answers.pop(0) if received.answers else (200, {})
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Scripted:
    """A destination that answers as told, and remembers the cursors of what it took."""

    say: Callable[[list[int]], Answer] = lambda cursors: Answer(Outcome.TAKEN)
    taken: list[int] = field(default_factory=list)
    tries: int = 0

    def destination(self) -> Destination:
        def deliver(slots: Any) -> Answer:
            self.tries += 1
            answer = self.say([slot.cursor for slot in slots])
            if answer.outcome is Outcome.TAKEN:
                self.taken += [slot.cursor for slot in slots]
            return answer

        return Destination("there", deliver)


def sender_to(ring: Ring, to: Scripted) -> Sender:
    return Sender(ring, to.destination(), per_second=1000, now=lambda: NOW)


def dropped(ring: Ring) -> dict[str, float]:
    return {one.labels[0][1]: one.value for one in ring.families()[0].samples if one.value}


@pytest.mark.parametrize("size", [0, 1, 59, 60, 61, 255, 256, 65535, 65536, 65537, 200_000])
def test_a_real_decoder_reads_our_snappy(size: int) -> None:
    cramjam = pytest.importorskip("cramjam")
    raw = bytes(index * 7 % 256 for index in range(size))
    assert bytes(cramjam.snappy.decompress_raw(framed(raw))) == raw


def test_varints_are_protobufs() -> None:
    assert [varint(number).hex() for number in (0, 127, 128, 300, 2**63)] == [
        "00", "7f", "8001", "ac02", "80808080808080808001",
    ]  # fmt: skip


def fields(raw: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message, by a reader of our own."""

    rest, found = io.BytesIO(raw), []

    def number() -> int:
        value = shift = 0
        while True:
            (byte,) = rest.read(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while rest.tell() < len(raw):
        tag = number()
        value: Any
        if tag & 7 == 0:
            value = number()
        elif tag & 7 == 1:
            (value,) = struct.unpack("<d", rest.read(8))
        else:
            value = rest.read(number())
        found.append((tag >> 3, value))
    return found


def test_a_write_request_has_each_series_once_with_sorted_labels_and_rising_times(tmp_path: Path) -> None:
    slots = filled(tmp_path, 3).read(0, 10)
    series = {}
    for number, one in fields(write_request(slots, {"job": "edgekit", "instance": "pi", "none": ""})):
        assert number == 1
        parts = fields(one)
        labels = [tuple(value.decode() for _, value in fields(body)) for number, body in parts if number == 1]
        assert labels == sorted(labels)
        series[tuple(labels)] = [tuple(value for _, value in fields(body)) for number, body in parts if number == 2]
    assert len(series) == 7
    key = (("__name__", "c_total"), ("instance", "pi"), ("job", "edgekit"), ("model", 'a"\\ß'))
    assert series[key] == [(7.0, EPOCH), (7.0, EPOCH + 10_000), (7.0, EPOCH + 20_000)]
    assert (
        ("__name__", "h_seconds_bucket"),
        ("instance", "pi"),
        ("job", "edgekit"),
        ("le", "+Inf"),
        ("model", "m"),
    ) in series


def test_everything_is_sent_once_and_oldest_first(tmp_path: Path) -> None:
    ring, there = filled(tmp_path, 300), Scripted()
    sender = sender_to(ring, there)
    assert sender.behind_seconds() == 0
    waits = [sender.step() for _ in range(4)]
    assert there.taken == list(range(1, 301))
    assert waits == [SLOTS / 1000, SLOTS / 1000, 60 / 1000, ring.interval / 2], "back-filling is bounded"


def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path) -> None:
    ring, there = filled(tmp_path, 300), Scripted()
    sender_to(ring, there).step()
    ring.close()
    ring = Ring(tmp_path, 2**20)
    sender = sender_to(ring, there)
    for _ in range(3):
        sender.step()
    assert there.taken == list(range(1, 302)), "the last slot of the run before is closed now"


def test_while_nobody_answers_nothing_is_lost_and_the_tries_grow_rare(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = filled(tmp_path, 50)
    there = Scripted(lambda cursors: Answer(Outcome.LATER, "no route"))
    sender = sender_to(ring, there)
    with caplog.at_level(logging.INFO):
        waits = [sender.step() for _ in range(15)]
        assert all(2.0**n / 2 <= wait <= 2.0**n for n, wait in enumerate(waits[:8], 1))
        assert all(LONGEST / 2 <= wait <= LONGEST for wait in waits[9:])
        assert len(set(waits)) == 15, "with jitter"
        assert sender.behind_seconds() == NOW - EPOCH / 1000
        assert behind([sender]).samples[0].labels == (("destination", "there"),)
        there.say = lambda cursors: Answer(Outcome.TAKEN)
        sender.step()
    assert there.taken == list(range(1, 51))
    assert [record.message for record in caplog.records] == [
        "there does not take telemetry: no route", "there takes telemetry",
    ]  # fmt: skip
    sender.step()
    assert sender.behind_seconds() == 0
    assert not dropped(ring)


def test_a_receiver_that_wants_us_to_wait_is_obeyed(tmp_path: Path) -> None:
    there = Scripted(lambda cursors: Answer(Outcome.LATER, "too many", after=1234.0))
    assert sender_to(filled(tmp_path, 2), there).step() == 1234.0


def test_the_one_slot_that_is_never_taken_is_found_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = filled(tmp_path, 200)
    there = Scripted(lambda cursors: Answer(Outcome.REFUSED if 77 in cursors else Outcome.TAKEN, "bad"))
    sender = sender_to(ring, there)
    for _ in range(40):
        sender.step()
    assert there.taken == [number for number in range(1, 201) if number != 77]
    assert dropped(ring) == {"refused": 1}
    assert there.tries < 30
    assert sum("does not take" in record.message for record in caplog.records) <= 7


def test_a_wrong_password_drops_nothing(tmp_path: Path) -> None:
    ring = filled(tmp_path, 20)
    there = Scripted(lambda cursors: Answer(Outcome.BARRED, "HTTP 401"))
    sender = sender_to(ring, there)
    for _ in range(20):
        sender.step()
    assert not dropped(ring)
    there.say = lambda cursors: Answer(Outcome.TAKEN)
    sender.step()
    assert there.taken == list(range(1, 21))


def test_an_exporter_that_raises_ends_nothing(tmp_path: Path) -> None:
    def say(cursors: list[int]) -> Answer:
        raise RuntimeError("a bug of theirs")

    ring = filled(tmp_path, 3)
    sender = sender_to(ring, Scripted(say))
    assert 1 <= sender.step() <= 2
    assert len(ring.unsent("there", 10)) == 3


def test_before_the_clock_is_set_nothing_is_sent_and_what_was_never_dated_is_dropped(tmp_path: Path) -> None:
    ring, there = filled(tmp_path, 20, wall=0), Scripted()
    young = Sender(ring, there.destination(), now=lambda: 100.0)
    assert young.step() == ring.interval
    assert there.tries == 0
    ring.close()
    ring = Ring(tmp_path, 2**20, days=10**5, boot=Boot("another", lambda: 0))
    ring.put(FAMILIES, EPOCH)
    ring.close()
    ring = Ring(tmp_path, 2**20)
    sender = sender_to(ring, there)
    for _ in range(3):
        sender.step()
    assert there.taken == [22]
    assert dropped(ring) == {"clock": 21}
    assert PLAUSIBLE_MS < EPOCH


def test_two_destinations_each_get_everything(tmp_path: Path) -> None:
    ring, one, two = filled(tmp_path, 30), Scripted(), Scripted()
    Sender(ring, Destination("one", one.destination().deliver), now=lambda: NOW).step()
    Sender(ring, Destination("two", two.destination().deliver), now=lambda: NOW).step()
    assert one.taken == two.taken == list(range(1, 31))


def test_a_sender_ends_at_once_while_its_receiver_hangs(tmp_path: Path) -> None:
    ring, hangs = filled(tmp_path, 3), threading.Event()
    entered = threading.Event()

    def say(cursors: list[int]) -> Answer:
        entered.set()
        hangs.wait(10)
        return Answer(Outcome.TAKEN)

    sender = sender_to(ring, Scripted(say))
    sender.start()
    assert entered.wait(5)
    sender.stop()
    ring.close()
    hangs.set()


def test_remote_write_says_what_it_is_and_who_asks(tmp_path: Path) -> None:
    cramjam = pytest.importorskip("cramjam")
    (tmp_path / "headers").write_text("# for the proxy\nX-Tenant: 7\n\n")
    with receiver() as received:
        where = address(received.url.replace("//", "//me:s%2Fcret@") + "/api/v1/write?db=x", tmp_path / "headers")
        to = remote_write(where, {"job": "edgekit"})
        slots = filled(tmp_path / "ring", 2).read(0, 10)
        assert to.deliver(slots).outcome is Outcome.TAKEN
        assert to.deliver(slots).outcome is Outcome.TAKEN
    headers, body = received.requests[1]
    wanted = {
        "content-type": "application/x-protobuf", "content-encoding": "snappy", "x-tenant": "7",
        "x-prometheus-remote-write-version": "0.1.0",
        "authorization": "Basic " + base64.b64encode(b"me:s/cret").decode(),
    }  # fmt: skip
    assert wanted.items() <= headers.items()
    assert bytes(cramjam.snappy.decompress_raw(body)) == write_request(slots, {"job": "edgekit"})
    assert to.name == f"remote-write {received.url}/api/v1/write"
    assert "cret" not in repr(where)


@pytest.mark.parametrize("wire", ["remote_write", "otlp"])
@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "taken"), (302, "barred"), (400, "refused"), (401, "barred"), (404, "barred"), (413, "refused")],
)
def test_a_status_means_the_same_on_both_wires(tmp_path: Path, wire: str, status: int, outcome: str) -> None:
    if wire == "otlp":
        pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with receiver() as received:
        received.answers.append((status, {"Location": "/elsewhere"}))
        make = {"remote_write": remote_write, "otlp": otlp}[wire]
        to = make(address(f"{received.url}/v1/metrics"), {"service.name": "edgekit"})
        assert to.deliver(filled(tmp_path, 2).read(0, 10)).outcome.value == outcome
        to.close()
    assert len(received.requests) == 1, "no redirect is followed"


def test_nobody_there_is_no_error() -> None:
    with receiver() as received:
        pass
    answer = remote_write(address(received.url), {}).deliver([])
    assert answer.outcome is Outcome.LATER
    assert "refused" in answer.words


def test_waiting_is_bounded_and_read_as_seconds_or_as_a_date() -> None:
    assert judged(429, "17", "").after == 17
    assert judged(503, "999999999", "").after == 3600
    assert 50 < judged(503, formatdate(usegmt=True, timeval=time.time() + 60), "").after <= 60
    assert judged(503, "soon", "").after == judged(503, None, "").after == judged(503, "-5", "").after == 0
    assert judged(500, None, "a\nb\x1b[31m" + "x" * 999).words.startswith("HTTP 500: a b [31mxxx")


@pytest.mark.parametrize(
    "url",
    ["ftp://there", "there:9090", "http://", "http://a b", "http://there:99999", "http://there/\r\nX: 1", "http://ß"],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(EdgeKitError) as caught:
        address(url.replace("//", "//me:secret@"))
    assert "secret" not in caught.value.what + caught.value.hint


@pytest.mark.parametrize("line", ["no colon", "Bad Name: x", "Host: elsewhere", "X: a\x01b", "content-length: 5"])
def test_a_file_of_headers_holds_headers(tmp_path: Path, line: str) -> None:
    (tmp_path / "headers").write_text(f"Authorization: Bearer secret\n{line}\n")
    with pytest.raises(EdgeKitError, match="line 2") as caught:
        address("http://there", tmp_path / "headers")
    assert "secret" not in caught.value.what
    with pytest.raises(EdgeKitError, match="No such file"):
        address("http://there", tmp_path / "none")


def test_opentelemetry_gets_sums_gauges_and_histograms_at_their_original_times(tmp_path: Path) -> None:
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with receiver() as received:
        to = otlp(address(f"{received.url}/v1/metrics"), {"service.name": "edgekit", "service.instance.id": "pi"})
        assert to.deliver(filled(tmp_path, 2).read(0, 10)).outcome is Outcome.TAKEN
    message = service.ExportMetricsServiceRequest.FromString(gzip.decompress(received.requests[0][1]))
    (resource,) = message.resource_metrics
    assert {one.key: one.value.string_value for one in resource.resource.attributes}["service.instance.id"] == "pi"
    found = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    assert {name: metric.description for name, metric in found.items()} == {
        "c_total": "How many.", "g": "How much.", "h_seconds": "How long.",
    }  # fmt: skip
    counter = found["c_total"].sum
    assert (counter.is_monotonic, counter.aggregation_temporality) == (True, 2)
    assert [(one.start_time_unix_nano, one.time_unix_nano, one.as_double) for one in counter.data_points] == [
        (EPOCH * 10**6, EPOCH * 10**6, 7.0), (EPOCH * 10**6, (EPOCH + 10_000) * 10**6, 7.0),
    ]  # fmt: skip
    assert [one.as_double for one in found["g"].gauge.data_points] == [-1.5, -1.5]
    histogram = found["h_seconds"].histogram.data_points[0]
    assert list(histogram.bucket_counts) == [2, 3, 1]
    assert list(histogram.explicit_bounds) == [0.1, 1.0]
    assert (histogram.count, histogram.sum, histogram.HasField("min")) == (6, 3.25, False)
    assert {one.key: one.value.string_value for one in histogram.attributes} == {"model": "m"}


def test_what_opentelemetry_cannot_say_is_refused_and_not_tried_for_ever(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    ring = Ring(tmp_path, 2**20)
    ring.put([Family("h", "histogram", "", (Sample(float("nan"), (("le", "+Inf"),), "_bucket"),))], EPOCH)
    ring.close()
    slots = Ring(tmp_path, 2**20).read(0, 1)
    assert otlp(address("http://127.0.0.1:1/v1/metrics"), {}).deliver(slots).outcome is Outcome.REFUSED


def test_without_the_exporter_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(EdgeKitError) as caught:
        otlp(address("http://there"), {})
    assert "edgekit-runtime[otlp]" in caught.value.hint

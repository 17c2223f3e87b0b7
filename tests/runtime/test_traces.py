"""Traces over a real HTTP receiver that reads OpenTelemetry's protocol: whose child a span is, when its parts were."""

import asyncio
import logging
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from edgekit_runtime import traces
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.traceparent import Traceparent

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra [otlp]")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
ROUTE = re.compile(r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?/infer")


@dataclass
class Received:
    """What came in: whole requests as they were, and each span with its resource."""

    port: int = 0
    status: int = 200
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


@contextmanager
def collector(status=200, hang=None):
    found = Received(status=status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hang is not None:
                hang.wait(20)
            found.paths.append(self.path)
            found.headers.append({key.lower(): value for key, value in self.headers.items()})
            if found.status == 200:
                for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                    found.resources.append({item.key: item.value.string_value for item in one.resource.attributes})
                    for scope in one.scope_spans:
                        found.spans += scope.spans
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def tracers():
    made = []

    def make(port, share=1.0, **more):
        made.append(traces.Tracer(f"http://127.0.0.1:{port}", share, **more))
        return made[-1]

    yield make
    for tracer in made:
        tracer.close()


def counted(tracer):
    return {one.labels[0][1]: one.value for one in tracer.families()[0].samples}


def attributes(span):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_span_is_its_callers_child_with_its_parts_inside_it_in_order(tracers):
    with collector() as found:
        tracer = tracers(found.port, 0.0, service_name="door", headers={"X-Key": "k"})
        begun = tracer.begin(PARENT, "vendor=1,other=2")
        time.sleep(0.02)
        begun.timed(("birds", "3"), (1_000_000, 2_000_000, 3_000_000, 4_000_000))
        begun.http("POST", ROUTE, "/v2/models/birds/infer", 200)
        tracer.close()
    whole, parts = _sorted(found.spans)
    assert found.paths == ["/v1/traces"]
    assert found.headers[0]["x-key"] == "k"
    assert found.resources[0]["service.name"] == "door"
    assert found.resources[0]["host.name"] == socket.gethostname()
    assert (whole.trace_id.hex(), whole.parent_span_id.hex(), whole.trace_state) == (TRACE, SPAN, "vendor=1,other=2")
    assert whole.span_id.hex() not in (SPAN, "0" * 16)
    assert (whole.kind, whole.name) == (Span.SPAN_KIND_SERVER, "POST /v2/models/{name}/infer")
    assert [part.name for part in parts] == ["read", "queue", "compute", "write"]
    assert all(part.trace_id == whole.trace_id and part.parent_span_id == whole.span_id for part in parts)
    took = [part.end_time_unix_nano - part.start_time_unix_nano for part in parts]
    assert took == [1_000_000, 2_000_000, 3_000_000, 4_000_000]
    edges = [
        whole.start_time_unix_nano,
        *(edge for p in parts for edge in (p.start_time_unix_nano, p.end_time_unix_nano)),
    ]
    assert [*edges, whole.end_time_unix_nano] == sorted([*edges, whole.end_time_unix_nano])
    assert parts[0].start_time_unix_nano == whole.start_time_unix_nano
    assert 20_000_000 <= whole.end_time_unix_nano - whole.start_time_unix_nano < 5e9
    assert abs(whole.end_time_unix_nano - time.time_ns()) < 10e9
    assert attributes(whole) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{name}/infer",
        "url.path": "/v2/models/birds/infer",
        "http.response.status_code": 200,
        "edgekit.model.name": "birds",
        "edgekit.model.version": "3",
    }
    assert whole.status.code == Status.STATUS_CODE_UNSET


def test_a_call_without_a_parent_begins_a_trace_of_its_own(tracers):
    with collector() as found:
        tracer = tracers(found.port)
        for status in ("OK", "INVALID_ARGUMENT", "INTERNAL"):
            tracer.begin(None).grpc("/inference.GRPCInferenceService/ModelInfer", status)
        tracer.close()
    assert len({span.trace_id for span in found.spans}) == 3
    assert all(span.parent_span_id == b"" and any(span.trace_id) for span in found.spans)
    told = {attributes(span)["rpc.response.status_code"]: span for span in found.spans}
    assert told["OK"].name == attributes(told["OK"])["rpc.method"] == "inference.GRPCInferenceService/ModelInfer"
    codes = {status: span.status.code for status, span in told.items()}
    assert codes == {"OK": 0, "INVALID_ARGUMENT": 0, "INTERNAL": Status.STATUS_CODE_ERROR}
    assert attributes(told["INTERNAL"])["error.type"] == "INTERNAL"


@pytest.mark.parametrize(("status", "error"), [(404, None), (503, "503")])
def test_an_error_of_the_servers_own_marks_the_span_and_a_clients_does_not(tracers, status, error):
    with collector() as found:
        tracer = tracers(found.port)
        tracer.begin(None).http("GET", ROUTE, "/v2/models/m/versions/1/infer", status)
        tracer.close()
    assert attributes(found.spans[0]).get("error.type") == error
    assert (found.spans[0].status.code == Status.STATUS_CODE_ERROR) == (error is not None)
    assert found.spans[0].name == "GET /v2/models/{name}/versions/{version}/infer"


def test_times_that_do_not_fit_into_the_request_stay_inside_it(tracers):
    with collector() as found:
        tracer = tracers(found.port)
        begun = tracer.begin(None)
        begun.timed(("m", "1"), (10**12, 10**12, 10**12, 10**12))
        begun.http("POST", ROUTE, "/v2/models/m/infer", 200)
        tracer.close()
    whole, parts = _sorted(found.spans)
    for part in parts:
        assert whole.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= whole.end_time_unix_nano


@pytest.mark.slow
def test_the_callers_word_is_followed_and_a_share_of_the_others_is_taken(tracers):
    tracer = tracers(9, 0.1)
    assert all(tracer.begin(PARENT) for _ in range(100))
    assert not any(tracer.begin(PARENT[:-1] + "0") for _ in range(1000))
    for header in (None, "nonsense", f"ff{PARENT[2:]}"):
        share = sum(tracer.begin(header) is not None for _ in range(20_000)) / 20_000
        assert 0.08 < share < 0.12
    assert tracer.begin(PARENT, "vendor=1,=").parent == Traceparent(TRACE, SPAN, True)
    assert not any(tracers(9, 0.0).begin(None) for _ in range(1000))


@pytest.mark.slow
def test_what_is_not_sampled_costs_a_request_little(tracers):
    tracer = tracers(9, 0.0)
    for header in (None, PARENT[:-1] + "0"):
        best = min(_spent(lambda header=header: tracer.begin(header)) for _ in range(5))
        assert best < 5e-6


@pytest.mark.slow
def test_a_flood_of_sampled_requests_is_bounded_and_counted(tracers):
    with collector() as found:
        tracer = tracers(found.port)
        before = time.process_time()
        for _ in range(5000):
            tracer.begin(PARENT).http("POST", ROUTE, "/v2/models/m/infer", 200)
        tracer.close()
        spent = time.process_time() - before
    count = counted(tracer)
    assert count["sent"] + count["dropped"] == 5000
    assert 500 <= count["sent"] <= 700
    assert len(found.spans) == count["sent"]
    assert spent < 2


@pytest.mark.slow
def test_a_collector_that_is_gone_costs_no_request_and_is_told_once(tracers, caplog):
    tracer = tracers(9)
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(100):
            tracer.begin(PARENT).http("POST", ROUTE, "/v2/models/m/infer", 200)
        assert time.perf_counter() - start < 0.1
        time.sleep(1.2)
    start = time.monotonic()
    tracer.close()
    assert time.monotonic() - start < 2.5
    assert _told(caplog) in ([], ["traces do not get through to their collector"])
    assert counted(tracer)["sent"] == 0


@pytest.mark.slow
def test_a_collector_that_refuses_is_told_once_and_so_is_that_it_is_back(tracers, caplog):
    with collector(400) as found:
        tracer = tracers(found.port)
        for status, sent in ((400, 0), (400, 0), (200, 1)):
            found.status = status
            before = len(found.paths)
            tracer.begin(None).http("POST", ROUTE, "/v2/models/m/infer", 200)
            _until(lambda before=before: len(found.paths) > before)
            _until(lambda sent=sent: counted(tracer)["sent"] == sent)
            time.sleep(0.05)
    assert _told(caplog) == ["traces do not get through to their collector", "traces get through again"]
    assert counted(tracer) == {"sent": 1, "failed": 2, "dropped": 0}


@pytest.mark.slow
def test_a_collector_that_hangs_holds_up_the_end_for_two_seconds_at_most(tracers):
    hang = threading.Event()
    with collector(hang=hang) as found:
        tracer = tracers(found.port)
        tracer.begin(None).http("POST", ROUTE, "/v2/models/m/infer", 200)
        start = time.monotonic()
        tracer.close()
        took = time.monotonic() - start
        hang.set()
    assert 1.5 < took < 2.5
    tracer.begin(None).http("POST", ROUTE, "/v2/models/m/infer", 200)
    assert counted(tracer)["dropped"] == 1


def test_a_span_from_an_event_loop_takes_no_turn_of_it(tracers):
    """It is queued without a lock that the sender holds."""

    async def main(tracer):
        start = asyncio.get_running_loop().time()
        for _ in range(200):
            tracer.begin(PARENT).http("POST", ROUTE, "/v2/models/m/infer", 200)
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time() - start

    with collector() as found:
        tracer = tracers(found.port)
        assert asyncio.run(main(tracer)) < 1
        tracer.close()
    assert len(found.spans) == 200


@pytest.mark.parametrize(
    "url", ["", "collector:4318", "ftp://c/", "http://", "http://c:notaport", "http://c:99999", "http://[::1", "//c"]
)
def test_a_url_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(EdgeKitError, match="does not read") as error:
        traces.Tracer(url, 1.0)
    assert "--otlp" in error.value.hint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/", "https://c/otlp/v1/traces"),
        ("https://c/v1/traces", "https://c/v1/traces"),
        ("https://u:p@c/?a=b#x", "https://u:p@c/v1/traces?a=b"),
    ],
)
def test_the_path_of_traces_is_added_where_it_is_not_said(url, endpoint):
    assert traces._endpoint(url) == endpoint


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(EdgeKitError, match="no share"):
        traces.Tracer("http://c", share)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v2/models/infer/infer", "/v2/models/{name}/infer"),
        ("/v2/models/a/versions/versions/infer", "/v2/models/{name}/versions/{version}/infer"),
        ("/elsewhere", "/elsewhere"),
    ],
)
def test_a_route_is_told_by_the_names_of_its_parts(path, known):
    assert traces.template(ROUTE, path) == known


def _sorted(spans):
    """The server's span, and its parts by time."""
    (whole,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    parts = [span for span in spans if span is not whole]
    return whole, sorted(parts, key=lambda part: (part.start_time_unix_nano, part.end_time_unix_nano))


def _spent(work, count=20_000):
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) / count


def _told(caplog):
    """Our own words; pytest hears the library's as well, which are kept from the log."""
    assert not logging.getLogger("opentelemetry").propagate
    return [one.message for one in caplog.records if one.name.startswith("edgekit_runtime")]


def _until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)

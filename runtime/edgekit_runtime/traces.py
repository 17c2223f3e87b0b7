"""OpenTelemetry traces: a span for each inference that is sampled, sent to a collector from a thread. Needs [otlp].

Refuses to keep a request waiting: a span is one append to a bounded queue, and what does not fit there is counted."""

import logging
import random
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime import traceparent
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.traceparent import Traceparent

log = logging.getLogger("edgekit_runtime.traces")

QUEUE = 512
BATCH = 50
EVERY_SECONDS = 1.0
"""One batch goes out so often. It is the library that is slow, 0.2 ms a request, and any caller may say that it is
sampled: more would take from the inferences."""
SEND_SECONDS = 5.0
LAST_SECONDS = 2.0
"""How long a server that ends waits for its last spans to be sent."""
PATH = "/v1/traces"
PARTS = ("read", "queue", "compute", "write")

OUR_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""The statuses of gRPC that make a server's span an error, by the semantic conventions."""

Attributes = Mapping[str, str | int | float | bool]
Part = tuple[str, int, int]
"""A name, and when it began and ended, in nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class _Span:
    parent: Traceparent | None
    name: str
    start: int
    end: int
    attributes: Attributes
    parts: Sequence[Part]
    error: str | None


@dataclass(slots=True)
class Begun:
    """A sampled request that is under way; `tracer` gets its span when `end` is called."""

    tracer: "Tracer"
    parent: Traceparent | None
    start: int = field(default_factory=time.time_ns)
    began: int = field(default_factory=time.perf_counter_ns)
    parts: list[Part] = field(default_factory=list)
    model: tuple[str, str] | None = None

    def timed(self, model: tuple[str, str], spent: tuple[int, int, int, int]) -> None:
        """The inference is answered, by the model of that name and version: what it took to read, wait, compute and
        write, in nanoseconds. Writing ended now; the rest went on from the start."""
        self.model, now = model, self._now()
        at = self.start
        for name, took in zip(PARTS[:3], spent, strict=False):
            until = min(at + took, now)
            self.parts.append((name, at, until))
            at = until
        self.parts.append((PARTS[3], max(at, now - spent[3]), now))

    def http(self, verb: str, route: re.Pattern[str], path: str, status: int) -> None:
        """The request for `path`, which `route` matches, is answered over HTTP."""
        known = template(route, path)
        told: Attributes = {
            "http.request.method": verb,
            "http.route": known,
            "url.path": path,
            "http.response.status_code": status,
        }
        self.end(f"{verb} {known}", told, str(status) if status >= 500 else None)

    def grpc(self, path: str, status: str) -> None:
        """The call of the method at `path` is answered; `status` is its name, such as "OK"."""
        method = path.removeprefix("/")
        told: Attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": status}
        self.end(method, told, status if status in OUR_FAULTS else None)

    def end(self, name: str, attributes: Attributes, error: str | None = None) -> None:
        """The answer is there: queue the span. `error` is a kind of error, not its words."""
        if self.model is not None:
            attributes = {**attributes, "edgekit.model.name": self.model[0], "edgekit.model.version": self.model[1]}
        self.tracer.span(self.parent, name, self.start, self._now(), attributes, self.parts, error)

    def _now(self) -> int:
        return self.start + time.perf_counter_ns() - self.began


class Tracer:
    """Sends spans to the collector at `url` (its base, or whole with /v1/traces). A request whose caller has decided
    whether it is recorded is so; of the others, `share` are.

    Raises:
        EdgeKitError: the extra is not installed, or `url` or `share` is none.
    """

    def __init__(
        self, url: str, share: float, service_name: str = "edgekit-runtime", headers: Mapping[str, str] | None = None
    ) -> None:
        if not 0 <= share <= 1:
            raise EdgeKitError(f"--traces {share:g} is no share", hint="say --traces 0.01 for one request in a hundred")
        self._share = share
        self._send = _sender(_endpoint(url), service_name, headers or {})
        self._queue: deque[_Span] = deque()
        self._sent = self._failed = self._dropped = 0
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def begin(self, parent: str | None, state: str = "") -> Begun | None:
        """The span of a request with these headers, `traceparent` and `tracestate`; None where it is not sampled."""
        if parent is None:
            return Begun(self, None) if random.random() < self._share else None
        context = traceparent.parse(parent, "")
        if context is None:
            return Begun(self, None) if random.random() < self._share else None
        if not context.sampled:
            return None
        return Begun(self, traceparent.parse(parent, state) if state else context)

    def span(
        self,
        parent: Traceparent | None,
        name: str,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        parts: Sequence[Part] = (),
        error: str | None = None,
    ) -> None:
        """Queue a span of a server, `parts` as spans inside it; dropped and counted where the queue is full."""
        if len(self._queue) >= QUEUE or self._closing:
            self._dropped += 1
            return
        self._queue.append(_Span(parent, name, start_ns, end_ns, attributes, parts, error))

    def families(self) -> list[Family]:
        """What became of the spans."""
        words = "Spans of sampled requests, by what became of them."
        counts = (("sent", self._sent), ("failed", self._failed), ("dropped", self._dropped))
        samples = tuple(Sample(count, (("outcome", name),)) for name, count in counts)
        return [Family("edgekit_trace_spans_total", "counter", words, samples)]

    def close(self) -> None:
        """Send what is queued; what is not sent in time is lost. To be called in a thread."""
        self._closing = True
        self._wake.set()
        self._thread.join(LAST_SECONDS)

    def _work(self) -> None:
        """The thread: everything of OpenTelemetry's is done here."""
        through = True
        while True:
            self._wake.wait(EVERY_SECONDS)
            last = self._closing
            batch = [self._queue.popleft() for _ in range(min(QUEUE if last else BATCH, len(self._queue)))]
            if batch:
                done = self._send(batch)
                self._sent += len(batch) if done else 0
                self._failed += 0 if done else len(batch)
                if done != through:
                    through = done
                    log.warning("traces %s", "get through again" if done else "do not get through to their collector")
            if last:
                return


def template(route: re.Pattern[str], path: str) -> str:
    """`path` with the names of the route's groups in place of what they match: /v2/models/{name}/infer."""
    match = route.fullmatch(path)
    groups = {} if match is None else match.groupdict()
    for name in sorted(groups, key=lambda name: match.start(name) if match else 0, reverse=True):
        if match is not None and match[name] is not None:
            path = f"{path[: match.start(name)]}{{{name}}}{path[match.end(name) :]}"
    return path


def _endpoint(url: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:  # the URL is not quoted: it may hold a password
        raise EdgeKitError("the collector's URL does not read", hint="write --otlp http://collector:4318")
    path = parts.path.rstrip("/").removesuffix("/v1/metrics")
    return urlunsplit(parts._replace(path=path if path.endswith(PATH) else path + PATH, fragment=""))


def _sender(endpoint: str, service_name: str, headers: Mapping[str, str]) -> Callable[[Sequence[_Span]], bool]:
    """What sends a batch, and says whether it got through."""
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ModuleNotFoundError as error:
        raise EdgeKitError(
            f"traces need {error.name}, which is not installed",
            hint="install edgekit-runtime with its [otlp] extra: pip install './runtime[otlp]'",
        ) from error
    from edgekit_runtime.version import __version__

    quiet = logging.getLogger("opentelemetry")  # its lines name the collector, and come with every batch that fails
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    kept = InMemorySpanExporter()
    about = {"service.name": service_name, "service.version": __version__, "host.name": socket.gethostname()}
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource(about), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("edgekit_runtime", __version__)
    redirected: list[bool] = []
    session = requests.Session()
    session.trust_env = False  # no password out of ~/.netrc, no proxy: what is sent is what the operator gave
    session.hooks["response"].append(lambda answer, *_, **__: redirected.append(answer.status_code >= 300))
    exporter = OTLPSpanExporter(endpoint, headers=dict(headers), timeout=SEND_SECONDS, session=session)

    def send(batch: Sequence[_Span]) -> bool:
        redirected.clear()
        try:
            for span in batch:
                _record(tracer, span)
            done = exporter.export(kept.get_finished_spans()) is SpanExportResult.SUCCESS
            return done and not redirected[-1]  # to the library, a redirect that is not followed is a success
        except Exception:  # whatever the library raises costs these spans, not the thread
            return False
        finally:
            kept.clear()

    return send


def _record(tracer: Any, span: _Span) -> None:
    """Make the span and its parts as OpenTelemetry's own."""
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

    around = None
    if span.parent is not None:
        ids = int(span.parent.trace_id, 16), int(span.parent.span_id, 16)
        state = TraceState(list(span.parent.state))
        remote = SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(span.parent.sampled), trace_state=state)
        around = trace.set_span_in_context(NonRecordingSpan(remote))
    made = tracer.start_span(span.name, around, SpanKind.SERVER, span.attributes, start_time=span.start)
    inside = trace.set_span_in_context(made)
    for name, start, end in span.parts:
        tracer.start_span(name, inside, SpanKind.INTERNAL, start_time=start).end(end)
    if span.error is not None:
        made.set_attribute("error.type", span.error)
        made.set_status(Status(StatusCode.ERROR))
    made.end(span.end)

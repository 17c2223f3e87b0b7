"""The routes that belong to no protocol: who is here, what it counts, what it can be asked.

Refuses nothing."""

import re
from collections.abc import Callable

from edgekit_runtime import __version__
from edgekit_runtime.counters import Counters
from edgekit_runtime.exchange import Request, Response, json_response
from edgekit_runtime.lane import Lane
from edgekit_runtime.routes import Parts, Route
from edgekit_runtime.service import Service

HELP = {
    "edgekit_http_requests_begun_total": ("counter", "HTTP requests of which at least one byte came.", ""),
    "edgekit_http_requests_total": ("counter", "HTTP answers sent, by status.", "code"),
    "edgekit_refused_total": ("counter", "What was refused, by reason.", "reason"),
    "edgekit_connections_total": ("counter", "Connections taken.", ""),
    "edgekit_clients_gone_total": ("counter", "Requests whose client left before the answer.", ""),
    "edgekit_grpc_requests_total": ("counter", "gRPC calls answered, by status code.", "code"),
}


def alive(service: Service, request: Request, parts: Parts) -> Response:
    """What KServe's client asks for first."""
    return json_response({"status": "alive"})


def openapi(service: Service, request: Request, parts: Parts) -> Response:
    """The OpenAPI document."""
    from edgekit_runtime.openapi import document

    return json_response(document(__version__, service.names()))


def routes(counters: Counters, connections: Callable[[], int]) -> list[Route]:
    """The routes, with one that tells `counters`; the connections are counted as they are then."""

    def metrics(service: Service, request: Request, parts: Parts) -> Response:
        text = exposition(service, counters, connections())
        return Response(200, text.encode(), [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])

    return [
        Route("GET", re.compile("/"), "open", tell=alive),
        Route("OPTIONS", re.compile("/"), "infer", tell=openapi),
        Route("GET", re.compile("/v2/openapi.json|/openapi.json"), "infer", tell=openapi),
        Route("GET", re.compile("/metrics"), "metrics", tell=metrics),
    ]


def exposition(service: Service, counters: Counters, connections: int) -> str:
    """The counters in Prometheus' text format."""
    lines = []
    for name, (kind, words, label) in HELP.items():
        lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
        found = sorted((value, count) for (known, value), count in list(counters.counts.items()) if known == name)
        if label:
            lines += [f'{name}{{{label}="{value}"}} {count}' for value, count in found]
        else:
            lines.append(f"{name} {sum(count for _, count in found)}")
    lines += ["# HELP edgekit_connections Connections now.", "# TYPE edgekit_connections gauge"]
    lines.append(f"edgekit_connections {connections}")
    for name, words, kind, value in MODEL:
        lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
        for lane in service.lanes():
            labels = f'model="{lane.served.name}",version="{lane.served.version}"'
            lines.append(f"{name}{{{labels}}} {value(lane)}")
    return "\n".join(lines) + "\n"


MODEL: tuple[tuple[str, str, str, Callable[[Lane], float]], ...] = (
    ("edgekit_inferences_total", "Samples answered.", "counter", lambda lane: lane.stats.inferences),
    ("edgekit_executions_total", "Runs of the engine.", "counter", lambda lane: lane.stats.executions),
    ("edgekit_requests_answered_total", "Requests answered.", "counter", lambda lane: lane.stats.success.count),
    ("edgekit_requests_failed_total", "Requests that failed.", "counter", lambda lane: lane.stats.fail.count),
    ("edgekit_requests_rejected_total", "Found the queue full.", "counter", lambda lane: lane.stats.rejected),
    ("edgekit_requests_late_total", "Met their deadline.", "counter", lambda lane: lane.stats.late),
    ("edgekit_requests_cancelled_total", "Given up by their client.", "counter", lambda lane: lane.stats.cancelled),
    ("edgekit_queue_seconds_total", "Time spent waiting.", "counter", lambda lane: lane.stats.queue.ns / 1e9),
    ("edgekit_infer_seconds_total", "Time in the engine.", "counter", lambda lane: lane.stats.infer.ns / 1e9),
    ("edgekit_waiting_requests", "Requests in the queue now.", "gauge", lambda lane: lane.waiting),
)

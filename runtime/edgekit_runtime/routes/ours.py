"""The routes that belong to no protocol: who is here, what it counts, what it can be asked.

Refuses nothing."""

import re
from collections.abc import Callable, Iterable

from edgekit_runtime import __version__
from edgekit_runtime.counters import Counters
from edgekit_runtime.exchange import Request, Response, json_response
from edgekit_runtime.families import CONTENT_TYPE, Family, text
from edgekit_runtime.metrics import Selftests, families
from edgekit_runtime.routes import Parts, Route
from edgekit_runtime.service import Service


def alive(service: Service, request: Request, parts: Parts) -> Response:
    """What KServe's client asks for first."""
    return json_response({"status": "alive"})


def openapi(service: Service, request: Request, parts: Parts) -> Response:
    """The OpenAPI document."""
    from edgekit_runtime.openapi import document

    return json_response(document(__version__, service.names()))


def routes(
    counters: Counters,
    connections: Callable[[], int],
    more: Callable[[], Iterable[Family]] = tuple,
    selftests: Callable[[], Selftests] = dict,
    triton: bool = False,
) -> list[Route]:
    """The routes, with one that tells `counters`, the models and `more`; `triton`: the models under Triton's names too.

    The functions are called for each scrape, on the event loop.
    """

    def metrics(service: Service, request: Request, parts: Parts) -> Response:
        told = families(service, counters, connections(), more(), selftests(), triton)
        return Response(200, text(told).encode(), [(b"content-type", CONTENT_TYPE)])

    return [
        Route("GET", re.compile("/"), "open", tell=alive),
        Route("OPTIONS", re.compile("/"), "infer", tell=openapi),
        Route("GET", re.compile("/v2/openapi.json|/openapi.json"), "infer", tell=openapi),
        Route("GET", re.compile("/metrics"), "metrics", tell=metrics),
    ]

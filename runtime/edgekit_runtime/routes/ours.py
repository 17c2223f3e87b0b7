"""The routes that belong to no protocol: who is here, what it counts, what it can be asked.

Refuses nothing."""

import re
from collections.abc import Callable, Iterable

from edgekit_runtime import __version__
from edgekit_runtime.exchange import Request, Response, json_response
from edgekit_runtime.families import CONTENT_TYPE, Family, text
from edgekit_runtime.routes import Parts, Route
from edgekit_runtime.service import Service


def alive(service: Service, request: Request, parts: Parts) -> Response:
    """What KServe's client asks for first."""
    return json_response({"status": "alive"})


def openapi(service: Service, request: Request, parts: Parts) -> Response:
    """The OpenAPI document."""
    from edgekit_runtime.openapi import document

    return json_response(document(__version__, service.names()))


def routes(measure: Callable[[], Iterable[Family]]) -> list[Route]:
    """The routes; `measure` gives what each scrape is told."""

    def metrics(service: Service, request: Request, parts: Parts) -> Response:
        return Response(200, text(measure()).encode(), [(b"content-type", CONTENT_TYPE)])

    return [
        Route("GET", re.compile("/"), "open", tell=alive),
        Route("OPTIONS", re.compile("/"), "infer", tell=openapi),
        Route("GET", re.compile("/v2/openapi.json|/openapi.json"), "infer", tell=openapi),
        Route("GET", re.compile("/metrics"), "metrics", tell=metrics),
    ]

"""TorchServe's routes: /ping, /predictions and the models as its management API lists them, read only.

Refuses to register, scale or remove models: nothing is ever fetched from an address that a request names."""

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from edgekit_runtime.answer import top
from edgekit_runtime.errors import BadRequest, EdgeKitError, Forbidden, NotOffered
from edgekit_runtime.exchange import JSON, Request, Response, json_response
from edgekit_runtime.preprocess import apply
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.torchserve import Facts, description, models, refusal, reply
from edgekit_runtime.protocols.torchserve_bodies import Takes, read
from edgekit_runtime.routes import Parts, Route
from edgekit_runtime.tensors import Feeds

if TYPE_CHECKING:
    from edgekit_runtime.lane import Lane
    from edgekit_runtime.served import Served
    from edgekit_runtime.service import Service

BEST = 5
MODEL = r"/(?P<name>[^/]+)(?:/(?P<version>[^/]+))?/?"


def _ping(service: "Service", request: Request, parts: Parts) -> Response:
    return json_response({"status": "Healthy" if service.ready else "Unhealthy"}, 200 if service.ready else 500)


def _predict(lane: "Lane", request: Request) -> Asked:
    served, count = lane.served, _whole(request, "top_k", BEST)
    if count < 1:
        raise BadRequest("top_k must be 1 or more", hint=f"leave it out for {BEST}")
    takes = _takes(served)
    sent = read(request.body, request.headers.get(b"content-type", b""), takes, lane.options.limits)

    def best(outputs: Feeds) -> dict[str, float]:
        found: dict[str, float] = {}
        for label, score in top(outputs, served.labels, count):
            found.setdefault(label, score)  # a word that two classes share keeps the better score
        return found

    def write(outputs: Feeds) -> Response:
        return Response(200, reply(outputs, served.outputs, best, sent.wrapped), [JSON])

    return Asked(sent.feeds(takes), write)


def _takes(served: "Served") -> Takes:
    preprocess = served.preprocess
    if preprocess is None:
        return Takes(served.inputs)
    return Takes(served.inputs, preprocess.kind, preprocess.input, lambda data: apply(preprocess, data))


def _models(service: "Service", request: Request, parts: Parts) -> Response:
    limit, start = _whole(request, "limit", 100), _whole(request, "next_page_token", 0)
    return json_response(models(service.names(), limit, start))


def _describe(service: "Service", request: Request, parts: Parts) -> Response:
    name, version = str(parts["name"]), parts["version"]
    lane = service.find(name, None if version == "all" else version)
    served = lane.served
    lanes = [service.find(served.name, one) for one in service.versions(served.name)] if version == "all" else [lane]
    return json_response([description(_facts(one, service.policy.limits.deadline)) for one in lanes])


def _facts(lane: "Lane", seconds: float) -> Facts:
    served, options = lane.served, lane.options
    batching = options.batching
    delay = round(batching.delay * 1000)
    return Facts(served.name, served.version, served.engine, batching.size, delay, options.queue, lane.waiting, seconds)


def _explain(service: "Service", request: Request, parts: Parts) -> Response:
    service.find(str(parts["name"]), parts["version"])
    raise NotOffered("this server does not explain its answers", hint="ask /predictions")


def _closed(service: "Service", request: Request, parts: Parts) -> Response:
    raise Forbidden(
        "models are not registered, scaled or removed over TorchServe's API",
        hint="put bundles into the folder of --repository and POST /v2/repository/models/NAME/load",
    )


def _error(error: EdgeKitError, status: int, parts: Parts) -> Response:
    return json_response(refusal(error, status, parts.get("name") or "", parts.get("version")), status)


def _whole(request: Request, key: str, default: int) -> int:
    """A whole number of the query."""
    try:
        found = parse_qs(request.query, keep_blank_values=True, max_num_fields=64).get(key)
    except ValueError as error:
        raise BadRequest("the query does not read", hint=f"say ?{key}=N") from error
    if found is None:
        return default
    if len(found) != 1 or not re.fullmatch(r"[0-9]{1,9}", found[0]):
        raise BadRequest(f"{key} must be a whole number", hint=f"say ?{key}={default}")
    return int(found[0])


def _route(verb: str, path: str, **more: object) -> Route:
    return Route(verb, re.compile(path), **{"scope": "infer", "error": _error, **more})  # type: ignore[arg-type]


ROUTES = [
    _route("GET", "/ping", scope="open", tell=_ping),
    _route("POST", "/predictions" + MODEL, read=_predict),
    _route("PUT", "/predictions" + MODEL, read=_predict),
    _route("POST", "/explanations" + MODEL, tell=_explain),
    _route("PUT", "/explanations" + MODEL, tell=_explain),
    _route("GET", "/models/?", tell=_models),
    _route("GET", "/models" + MODEL, tell=_describe),
    _route("POST", "/models/?", scope="admin", tell=_closed),
    _route("PUT", "/models" + MODEL, scope="admin", tell=_closed),
    _route("DELETE", "/models" + MODEL, scope="admin", tell=_closed),
    _route("PUT", r"/models/(?P<name>[^/]+)/(?P<version>[^/]+)/set-default", scope="admin", tell=_closed),
]

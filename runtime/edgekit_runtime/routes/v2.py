"""The Open Inference Protocol v2 over HTTP: inference, health, metadata, statistics, settings, the repository.

Refuses shared memory, models that come in a request, and the parts of Triton's protocol that only
language models have."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekit_runtime import __version__
from edgekit_runtime.answer import top
from edgekit_runtime.errors import BadRequest, Forbidden, NotFound, NotOffered
from edgekit_runtime.exchange import JSON, Request, Response
from edgekit_runtime.facts import facts
from edgekit_runtime.preprocess import apply
from edgekit_runtime.protocols import jsons, v2, v2_about
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.v2_settings import trace_json
from edgekit_runtime.routes import Parts, Route
from edgekit_runtime.tensors import Feeds

if TYPE_CHECKING:
    from edgekit_runtime.lane import Lane
    from edgekit_runtime.served import Served
    from edgekit_runtime.service import Service

NAME = "edgekit-runtime"
HEADER_LENGTH = b"inference-header-content-length"
BINARY = (b"content-type", b"application/octet-stream")
TOP_K = re.compile(r"(?:^|&)top_k=([^&]*)")
LABELS = 5
MOST_LABELS = 1000


def read_infer(lane: "Lane", request: Request) -> Asked:
    """A request for an inference: JSON, JSON with binary tensors, one raw tensor, or a photo as it is."""
    headers = request.headers
    known = lane.known(_known)
    kind = headers.get(b"content-type", b"")
    if kind[:5].lower() in (b"image", b"audio", b"text/") and HEADER_LENGTH not in headers:
        encoded = _encoded(lane.served, known, request)
        if encoded is not None:
            return encoded
    said = headers.get(HEADER_LENGTH)
    feeds, call = v2.read_request(request.body, None if said is None else _length(said), known, lane.options.limits)

    def write(outputs: Feeds) -> Response:
        text, length = v2.write_response(known, call, outputs)
        if length is None:
            return Response(200, text, [JSON])
        return Response(200, text, [BINARY, (HEADER_LENGTH, b"%d" % length)])

    return Asked(feeds, write, call.timeout, call.id)


def _known(served: "Served") -> v2.Model:
    return v2.model(served.name, served.version, (served.inputs, served.outputs), served.labels)


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise BadRequest(
            "Inference-Header-Content-Length is not a number of bytes",
            hint="give the number of bytes of the JSON, 0 for a raw tensor",
        )
    return int(value)


def _encoded(served: "Served", known: v2.Model, request: Request) -> Asked | None:
    """EdgeKit's own short cut: a photo (or what else the bundle prepares) as the whole body, labels in the reply.

    None where a text is no input of its own: some clients call their JSON text/plain.
    """
    kind, wanted = request.content_type().split(b"/")[0].decode("latin-1"), served.preprocess
    if kind == "text" and (wanted is None or wanted.kind != "text"):
        return None
    if wanted is None or wanted.kind != kind or set(wanted.inputs) != known.inputs.keys():
        raise BadRequest(f"this model does not take a body of type {kind}", hint="send tensors")
    count = _top_k(request.query)
    call = v2.Call(outputs=tuple([v2.Wanted(name) for name in known.outputs]))

    def write(outputs: Feeds) -> Response:
        best = [{"label": label, "score": score} for label, score in top(outputs, served.labels, count)]
        text, _ = v2.write_response(known, call, outputs, {"top": best} if best else None)
        return Response(200, text, [JSON])

    return Asked(lambda: apply(wanted, request.body), write, source=request.body)


def _top_k(query: str) -> int:
    said = TOP_K.search(query)
    if said is None:
        return LABELS
    if not re.fullmatch(r"[0-9]{1,6}", said[1]) or not 1 <= int(said[1]) <= MOST_LABELS:
        raise BadRequest(f"top_k must be a number from 1 to {MOST_LABELS}", hint="write ?top_k=5")
    return int(said[1])


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, jsons.write(value), [JSON])


def _server(service: "Service", request: Request, parts: Parts) -> Response:
    return _json(v2_about.server(NAME, __version__))


def _live(service: "Service", request: Request, parts: Parts) -> Response:
    return _json({"live": True, "ready": service.ready, "name": NAME})


def _ready(service: "Service", request: Request, parts: Parts) -> Response:
    return _json({"live": True, "ready": service.ready, "name": NAME}, 200 if service.ready else 503)


def _models(service: "Service", request: Request, parts: Parts) -> Response:
    return _json({"models": service.names()})


def _model_ready(service: "Service", request: Request, parts: Parts) -> Response:
    _lane(service, parts)
    return _json({"name": parts["name"], "ready": True})


def _model(service: "Service", request: Request, parts: Parts) -> Response:
    served = _lane(service, parts).served
    versions = service.versions(served.name)
    told = v2_about.metadata(served.name, versions, v2_about.platform(served.engine), (served.inputs, served.outputs))
    return _json(told)


def _config(service: "Service", request: Request, parts: Parts) -> Response:
    return _json(v2_about.config(facts(_lane(service, parts))))


def _stats(service: "Service", request: Request, parts: Parts) -> Response:
    if parts.get("name") is None:
        lanes = service.lanes()
    else:
        asked = _lane(service, parts)
        whole = [lane for lane in service.lanes() if lane.served.name == asked.served.name]
        lanes = whole if parts.get("version") is None else [asked]
    told = [v2_about.statistics(lane.served.name, lane.served.version, lane.stats) for lane in lanes]
    return _json({"model_stats": told})


def _index(service: "Service", request: Request, parts: Parts) -> Response:
    ready = _object(service, request).get("ready", False)
    if not isinstance(ready, bool):
        raise BadRequest("ready must be true or false")
    return _json(v2_about.index(service.index(), ready))


async def _load(service: "Service", request: Request, parts: Parts) -> Response:
    said = _changing(service, request, parts)
    if any(key == "config" or key.startswith("file:") for key in said):
        raise Forbidden("models are not taken from a request", hint="put the bundle into the repository, then load it")
    await service.load(parts["name"] or "")
    return _json({})


async def _unload(service: "Service", request: Request, parts: Parts) -> Response:
    if not isinstance(_changing(service, request, parts).get("unload_dependents", False), bool):
        raise BadRequest("unload_dependents must be true or false")
    await service.unload(parts["name"] or "")
    return _json({})


def _changing(service: "Service", request: Request, parts: Parts) -> Mapping[str, Any]:
    """The parameters of a load or unload."""
    if parts.get("repository") is not None:
        raise NotOffered("this server has one repository, without a name", hint="leave its name out of the path")
    said = _object(service, request).get("parameters", {})
    if not isinstance(said, dict):
        raise BadRequest("parameters must be an object")
    return said


def _trace(service: "Service", request: Request, parts: Parts) -> Response:
    return _json(trace_json(service.settings.trace(_traced(service, parts))))


def _set_trace(service: "Service", request: Request, parts: Parts) -> Response:
    model = _traced(service, parts)
    return _json(trace_json(service.settings.set_trace(_object(service, request), model)))


def _traced(service: "Service", parts: Parts) -> str:
    return "" if parts.get("name") is None else _lane(service, parts).served.name


def _logging(service: "Service", request: Request, parts: Parts) -> Response:
    return _json(service.settings.logging())


def _set_logging(service: "Service", request: Request, parts: Parts) -> Response:
    return _json(service.settings.set_logging(_object(service, request)))


def _shared(service: "Service", request: Request, parts: Parts) -> Response:
    if parts.get("region") is not None:
        raise NotFound("no such shared memory region: shared memory is off here", hint="send the data in the request")
    return _json([])


def _register(service: "Service", request: Request, parts: Parts) -> Response:
    raise NotOffered("shared memory is off here", hint="send the data in the request")


def _unregister(service: "Service", request: Request, parts: Parts) -> Response:
    return _json({})  # nothing is registered, so nothing is left


def _generate(service: "Service", request: Request, parts: Parts) -> Response:
    _lane(service, parts)
    raise NotOffered("this server does not generate text", hint="POST /v2/models/NAME/infer")


def _lane(service: "Service", parts: Parts) -> "Lane":
    return service.find(parts["name"] or "", parts.get("version"))


def _object(service: "Service", request: Request) -> Mapping[str, Any]:
    """The JSON object in the body; an empty body is an empty one."""
    if not request.body.strip():
        return {}
    said = jsons.read(request.body, service.policy.limits)
    if not isinstance(said, dict):
        raise BadRequest("the body is not a JSON object", hint="send {} or nothing")
    return said


MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
REPOSITORY = r"/v2/repository(?:/(?P<repository>[^/]+))?"
MEMORY = r"/v2/(?:system|cuda)sharedmemory(?:/region/(?P<region>[^/]+))?"


def _route(verb: str, path: str, scope: str, tell: Any) -> Route:
    return Route(verb, re.compile(path), scope, tell=tell)


ROUTES = [
    Route("POST", re.compile(MODEL + "/infer"), "infer", read=read_infer),
    _route("GET", "/v2/health/live", "open", _live),
    _route("GET", "/v2/health/ready", "open", _ready),
    _route("GET", "/v2/?", "infer", _server),
    _route("GET", "/v2/models/?", "infer", _models),
    _route("GET", "/v2/models/stats", "infer", _stats),
    _route("GET", MODEL + "/?", "infer", _model),
    _route("GET", MODEL + "/ready", "infer", _model_ready),
    _route("GET", MODEL + "/config", "infer", _config),
    _route("GET", MODEL + "/stats", "infer", _stats),
    _route("POST", MODEL + "/generate(?:_stream)?", "infer", _generate),
    _route("POST", REPOSITORY + "/index", "admin", _index),
    _route("POST", REPOSITORY + "/models/(?P<name>[^/]+)/load", "admin", _load),
    _route("POST", REPOSITORY + "/models/(?P<name>[^/]+)/unload", "admin", _unload),
    _route("GET", "/v2(?:/models/(?P<name>[^/]+))?/trace/setting", "infer", _trace),
    _route("POST", "/v2(?:/models/(?P<name>[^/]+))?/trace/setting", "admin", _set_trace),
    _route("GET", "/v2/logging", "infer", _logging),
    _route("POST", "/v2/logging", "admin", _set_logging),
    _route("GET", MEMORY + "/status", "infer", _shared),
    _route("POST", MEMORY + "/register", "infer", _register),
    _route("POST", MEMORY + "/unregister", "infer", _unregister),
]

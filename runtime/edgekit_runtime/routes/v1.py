"""The /v1/models routes: TensorFlow Serving's and KServe V1's, which share their paths; replies serve both.

Refuses what is not served in TensorFlow Serving's words, and explanations."""

import re
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.exchange import Request, Response, json_response
from edgekit_runtime.facts import available, signature
from edgekit_runtime.protocols import kserve_v1, tfserving, tfserving_examples, tfserving_status
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.routes import Parts, Route

if TYPE_CHECKING:
    from edgekit_runtime.lane import Lane
    from edgekit_runtime.service import Service

MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"


def _models(service: "Service", request: Request, parts: Parts) -> Response:
    return json_response(kserve_v1.models(service.names()))


def _model(service: "Service", request: Request, parts: Parts) -> Response:
    name, asked = str(parts["name"]), parts["version"] or parts["label"]
    lane = _lane(service, parts)
    versions = available(service, lane, "" if asked else name)
    said = tfserving_status.status(versions)
    return json_response(kserve_v1.readiness(name, service.ready) | said)


def _metadata(service: "Service", request: Request, parts: Parts) -> Response:
    lane = _lane(service, parts)
    return json_response(tfserving_status.metadata(lane.served.name, service.number(lane.served), signature(lane)))


def _explain(service: "Service", request: Request, parts: Parts) -> Response:
    _lane(service, parts)
    raise kserve_v1.explain()


def _predict(lane: "Lane", request: Request) -> Asked:
    return tfserving.read_predict(request.body, signature(lane))


def _classify(lane: "Lane", request: Request) -> Asked:
    return tfserving_examples.read_classify(request.body, signature(lane))


def _regress(lane: "Lane", request: Request) -> Asked:
    return tfserving_examples.read_regress(request.body, signature(lane))


def _lane(service: "Service", parts: Parts) -> "Lane":
    return service.find(str(parts["name"]), parts["version"] or parts["label"])


def _told(error: EdgeKitError, status: int, parts: Parts) -> Response:
    what = error.what
    if isinstance(error, NotFound):
        what = tfserving_status.unserved(str(parts["name"]), parts["version"] or parts["label"])
    return json_response({"error": what, "hint": error.hint} if error.hint else {"error": what}, status)


ROUTES = [
    Route("GET", re.compile(r"/v1/models/?"), "infer", tell=_models),
    Route("GET", re.compile(MODEL), "infer", tell=_model, error=_told),
    Route("GET", re.compile(MODEL + "/metadata"), "infer", tell=_metadata, error=_told),
    Route("POST", re.compile(MODEL + ":predict"), "infer", read=_predict, error=_told),
    Route("POST", re.compile(MODEL + ":classify"), "infer", read=_classify, error=_told),
    Route("POST", re.compile(MODEL + ":regress"), "infer", read=_regress, error=_told),
    Route("POST", re.compile(MODEL + ":explain"), "infer", tell=_explain, error=_told),
]

"""TensorFlow Serving's gRPC services: PredictionService and ModelService, over the service.

Refuses models, versions and signatures that are not served, and to take a path from a request: models come from the
server's own repository."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import BadRequest, Forbidden, NotFound, NotOffered
from edgekit_runtime.facts import available, signature
from edgekit_runtime.inferring import answer
from edgekit_runtime.messages import classes
from edgekit_runtime.protocols import tfserving_grpc as protocol
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.tfserving import Signature
from edgekit_runtime.protocols.tfserving_status import unserved
from edgekit_runtime.rpc import Context, Method

if TYPE_CHECKING:
    from edgekit_runtime.lane import Lane
    from edgekit_runtime.service import Service

Message = Any
Read = Callable[[Message, Signature, protocol.Named], Asked]


async def _predict(service: "Service", request: Message, context: Context) -> Message:
    return await _infer(service, request, request.model_spec, protocol.read_predict, context)


async def _classify(service: "Service", request: Message, context: Context) -> Message:
    return await _infer(service, request, request.model_spec, protocol.read_classify, context)


async def _regress(service: "Service", request: Message, context: Context) -> Message:
    return await _infer(service, request, request.model_spec, protocol.read_regress, context)


async def _multi(service: "Service", request: Message, context: Context) -> Message:
    if not request.tasks:
        raise BadRequest("there are no tasks", hint="send at least one")
    return await _infer(service, request, request.tasks[0].model_spec, protocol.read_multi, context)


async def _metadata(service: "Service", request: Message, context: Context) -> Message:
    if not request.metadata_field:
        raise BadRequest("GetModelMetadataRequest must specify at least one metadata_field", hint="ask signature_def")
    for name in request.metadata_field:
        if name != "signature_def":
            raise BadRequest(f"Metadata field {name[:100]} is not supported", hint="ask signature_def")
    lane = _lane(service, request.model_spec)
    return protocol.metadata(signature(lane), (lane.served.name, service.number(lane.served)))


async def _status(service: "Service", request: Message, context: Context) -> Message:
    spec = request.model_spec
    whole = spec.WhichOneof("version_choice") is None
    return protocol.status(available(service, _lane(service, spec), spec.name if whole else ""))


async def _reload(service: "Service", request: Message, context: Context) -> Message:
    """Serve the models that are named, and no others: as TensorFlow Serving reads its configuration."""
    if request.config.WhichOneof("config") != "model_config_list":
        raise BadRequest("ServerModelConfig type not supported", hint="send a model_config_list")
    names = []
    for config in request.config.model_config_list.config:
        if config.base_path:
            raise Forbidden("base_path is never taken from a request", hint="name a model of the server's repository")
        if config.version_labels or config.HasField("model_version_policy"):
            raise NotOffered(
                "version labels and policies are not set by requests", hint="start the server with --alias"
            )
        if not config.name or config.name in names:
            raise BadRequest("a model has no name, or one that another has too", hint="name each once")
        names.append(config.name)
    for name in names:
        await service.load(name)
    for name in service.names():
        if name not in names:
            await service.unload(name)
    response = protocol.message("ReloadConfigResponse")
    response.status.SetInParent()
    return response


async def _infer(service: "Service", request: Message, spec: Message, read: Read, context: Context) -> Message:
    lane = _lane(service, spec)
    named = (lane.served.name, service.number(lane.served))

    def asked() -> Asked:
        made = read(request, signature(lane), named)
        made.traced = context.traced
        made.id = None if context.identify is None else context.identify(None)
        return made

    reply = answer(lane, asked, request.ByteSize(), context.timeout)
    return await reply if isinstance(reply, Awaitable) else reply


def _lane(service: "Service", spec: Message) -> "Lane":
    """The lane that a ModelSpec names, by the number of its version, by a label, or the newest."""
    if not spec.name:
        raise BadRequest("ModelSpec has no name specified.")
    kind = spec.WhichOneof("version_choice")
    try:
        newest = service.find(spec.name)
    except NotFound as error:
        wanted = str(spec.version.value) if kind == "version" else None
        raise NotFound(unserved(spec.name, wanted), hint=error.hint) from error
    if kind is None:
        return newest
    if kind == "version_label":
        try:
            return service.find(spec.name, spec.version_label)
        except NotFound as error:
            raise BadRequest(f"Unrecognized servable version label: {spec.version_label[:100]}") from error
    try:
        return service.find(spec.name, str(spec.version.value))
    except NotFound as error:
        raise NotFound(unserved(spec.name, str(spec.version.value))) from error


def _method(service: str, name: str, asks: str, gets: str, scope: str, call: Any) -> Method:
    known = classes("tensorflow_serving")
    path = f"/tensorflow.serving.{service}/{name}"
    return Method(path, known[f"tensorflow.serving.{asks}"], known[f"tensorflow.serving.{gets}"], scope, call)


METHODS = [
    _method("PredictionService", "Predict", "PredictRequest", "PredictResponse", "infer", _predict),
    _method("PredictionService", "Classify", "ClassificationRequest", "ClassificationResponse", "infer", _classify),
    _method("PredictionService", "Regress", "RegressionRequest", "RegressionResponse", "infer", _regress),
    _method("PredictionService", "MultiInference", "MultiInferenceRequest", "MultiInferenceResponse", "infer", _multi),
    _method(
        "PredictionService",
        "GetModelMetadata",
        "GetModelMetadataRequest",
        "GetModelMetadataResponse",
        "infer",
        _metadata,
    ),
    _method("ModelService", "GetModelStatus", "GetModelStatusRequest", "GetModelStatusResponse", "infer", _status),
    _method(
        "ModelService", "HandleReloadConfigRequest", "ReloadConfigRequest", "ReloadConfigResponse", "admin", _reload
    ),
]

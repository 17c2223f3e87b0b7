"""The Open Inference Protocol's gRPC service, inference.GRPCInferenceService, with Triton's extensions.

Refuses models and versions that are not served, shared memory, models that come in a request, and changes of what is
served or set on any but the admin address."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgekit_runtime import __version__
from edgekit_runtime.errors import EdgeKitError, Forbidden, NotFound, NotOffered
from edgekit_runtime.inferring import answer
from edgekit_runtime.messages import classes
from edgekit_runtime.protocols import v2_about
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.v2_grpc import Model, model, read_request, write_response
from edgekit_runtime.protocols.v2_settings import trace_json
from edgekit_runtime.rpc import Answer, Context, Method, Stream
from edgekit_runtime.rpc.v2_models import config, metadata, statistics

if TYPE_CHECKING:
    from edgekit_runtime.lane import Lane
    from edgekit_runtime.served import Served
    from edgekit_runtime.service import Service

Message = Any

log = logging.getLogger("edgekit_runtime.rpc.v2")

KNOWN = classes("inference")
REPLY = KNOWN["inference.ModelInferResponse"]
STREAMED = KNOWN["inference.ModelStreamInferResponse"]
IN_FLIGHT = 16
"""Requests of one stream that are under way or answered and not yet read; more wait in the connection."""


def _make(kind: str, /, **fields: Any) -> Message:
    return KNOWN[f"inference.{kind}"](**fields)


async def _live(service: "Service", message: Message, context: Context) -> Message:
    return _make("ServerLiveResponse", live=True)


async def _ready(service: "Service", message: Message, context: Context) -> Message:
    return _make("ServerReadyResponse", ready=service.ready)


async def _model_ready(service: "Service", message: Message, context: Context) -> Message:
    try:
        _lane(service, message.name, message.version)
    except NotFound:  # clients ask in a loop until it is there
        return _make("ModelReadyResponse", ready=False)
    return _make("ModelReadyResponse", ready=service.ready)


async def _server_metadata(service: "Service", message: Message, context: Context) -> Message:
    return _make("ServerMetadataResponse", **v2_about.server("edgekit-runtime", __version__))


async def _model_metadata(service: "Service", message: Message, context: Context) -> Message:
    served = _lane(service, message.name, message.version).served
    return metadata(served, service.versions(served.name))


async def _model_config(service: "Service", message: Message, context: Context) -> Message:
    return _make("ModelConfigResponse", config=config(_lane(service, message.name, message.version)))


async def _model_statistics(service: "Service", message: Message, context: Context) -> Message:
    lanes = service.lanes()
    if message.name:
        asked = _lane(service, message.name, message.version)
        name = asked.served.name
        lanes = [asked] if message.version else [lane for lane in lanes if lane.served.name == name]
    return _make("ModelStatisticsResponse", model_stats=[statistics(lane) for lane in lanes])


async def _infer(service: "Service", message: Message, context: Context) -> Message:
    lane = _lane(service, message.model_name, message.model_version)
    found = answer(lane, lambda: _asked(lane, message, context), message.ByteSize(), context.timeout)
    return found if isinstance(found, REPLY) else await found


async def _stream_infer(service: "Service", messages: AsyncIterator[Message], context: Context) -> AsyncIterator[Any]:
    """Answers in the order of the requests. An error is one of the answers, and does not end the stream: unless the
    client sends the header triton_grpc_error: true, which asks for a status instead."""
    strict = str(context.metadata.get("triton_grpc_error", "")).lower() == "true"
    coming: asyncio.Queue[asyncio.Future[Message] | None] = asyncio.Queue(IN_FLIGHT)

    async def take() -> None:
        try:
            async for message in messages:
                await coming.put(asyncio.create_task(_one(service, message, context, strict)))
        except asyncio.CancelledError:
            if not context.stopping.is_set():
                raise
        except Exception as error:  # not swallowed: it is told in its place, behind the answers to what came before
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            await coming.put(failed)
        await coming.put(None)

    reader = asyncio.create_task(take())
    ending = asyncio.create_task(context.stopping.wait())
    ending.add_done_callback(lambda task: None if task.cancelled() else reader.cancel())
    try:
        while (task := await coming.get()) is not None:
            yield await task
    finally:
        reader.cancel()
        ending.cancel()
        while not coming.empty():
            _drop(coming.get_nowait())


async def _one(service: "Service", message: Message, context: Context, strict: bool) -> Message:
    """One answer of a stream; `triton_final_response` says that a request gets no more than this one."""
    try:
        with context.trace() as traced:
            reply = await _infer(service, message, context if traced is None else replace(context, traced=traced))
        reply.parameters["triton_final_response"].bool_param = True
        return STREAMED(infer_response=reply)
    except EdgeKitError as error:
        if strict:
            raise
        return STREAMED(error_message=error.what, infer_response=REPLY(id=message.id))
    except Exception:  # a bug in one answer; the edge does the same where there is no stream
        if strict:
            raise
        log.exception("unexpected error")
        return STREAMED(error_message="internal error", infer_response=REPLY(id=message.id))


def _drop(task: "asyncio.Future[Message] | None") -> None:
    """Nobody waits for it any more."""
    if task is not None and not task.cancel() and not task.cancelled():
        task.exception()


async def _index(service: "Service", message: Message, context: Context) -> Message:
    _refuse_repository(message.repository_name)
    return _make("RepositoryIndexResponse", models=v2_about.index(service.index(), message.ready))


async def _load(service: "Service", message: Message, context: Context) -> Message:
    _refuse_repository(message.repository_name)
    if any(key == "config" or key.startswith("file:") for key in message.parameters):
        raise Forbidden("models are not taken from a request", hint="put the bundle into the repository, then load it")
    await service.load(message.model_name)
    return _make("RepositoryModelLoadResponse")


async def _unload(service: "Service", message: Message, context: Context) -> Message:
    _refuse_repository(message.repository_name)
    await service.unload(message.model_name)
    return _make("RepositoryModelUnloadResponse")


async def _trace(service: "Service", message: Message, context: Context) -> Message:
    model = _lane(service, message.model_name, "").served.name if message.model_name else ""
    if message.settings:
        context.allow("admin")
        service.settings.set_trace({key: _trace_value(value.value) for key, value in message.settings.items()}, model)
    made = _make("TraceSettingResponse")
    for key, value in trace_json(service.settings.trace(model)).items():
        made.settings[key].value.extend(value if isinstance(value, list) else [value])
    return made


async def _log(service: "Service", message: Message, context: Context) -> Message:
    if message.settings:
        context.allow("admin")
        service.settings.set_logging({key: _log_value(value) for key, value in message.settings.items()})
    made = _make("LogSettingsResponse")
    for key, value in service.settings.logging().items():
        field = (
            "bool_param" if isinstance(value, bool) else "uint32_param" if isinstance(value, int) else "string_param"
        )
        setattr(made.settings[key], field, value)
    return made


def _trace_value(values: Any) -> Any:
    """None where there are none: back to the default."""
    return values[0] if len(values) == 1 else list(values) or None


def _log_value(value: Any) -> Any:
    chosen = value.WhichOneof("parameter_choice")
    return getattr(value, chosen) if chosen else None


def _region_status(reply: str, kind: str) -> Answer:
    async def status(service: "Service", message: Message, context: Context) -> Message:
        if message.name:
            raise NotFound(f"no {kind} shared memory region {message.name[:100]!r}", hint="there are none here")
        return _make(reply)

    return status


async def _register(service: "Service", message: Message, context: Context) -> Message:
    raise NotOffered("shared memory is not offered here", hint="send the tensors in the message")


def _unregister(reply: str) -> Answer:
    async def unregister(service: "Service", message: Message, context: Context) -> Message:
        return _make(reply)

    return unregister


def _asked(lane: "Lane", message: Message, context: Context) -> Asked:
    known = lane.known(_known)
    request, id = read_request(message, known), message.id or None
    if context.identify is not None:  # told in the reply too, as KServe and MLServer do: clients see no metadata
        id = context.identify(id)
        request = replace(request, id=id)
    write = partial(write_response, REPLY, known, request)
    return Asked(request.feeds, write, request.timeout, id, traced=context.traced)


def _known(served: "Served") -> Model:
    return model(served.name, served.version, (served.inputs, served.outputs), served.labels)


def _lane(service: "Service", name: str, version: str) -> "Lane":
    return service.find(name, version or None)


def _refuse_repository(name: str) -> None:
    if name:
        raise NotOffered("this server has one repository, without a name", hint="leave repository_name out")


def _method(name: str, scope: str, call: Answer | None = None, stream: Stream | None = None) -> Method:
    asks, gets = KNOWN[f"inference.{ASKS.get(name, name)}Request"], KNOWN[f"inference.{name}Response"]
    return Method(f"/inference.GRPCInferenceService/{name}", asks, gets, scope, call, stream)


ASKS = {"ModelStreamInfer": "ModelInfer"}
METHODS = [
    _method("ServerLive", "open", _live),
    _method("ServerReady", "open", _ready),
    _method("ModelReady", "open", _model_ready),
    _method("ServerMetadata", "infer", _server_metadata),
    _method("ModelMetadata", "infer", _model_metadata),
    _method("ModelInfer", "infer", _infer),
    _method("ModelStreamInfer", "infer", stream=_stream_infer),
    _method("ModelConfig", "infer", _model_config),
    _method("ModelStatistics", "infer", _model_statistics),
    _method("RepositoryIndex", "admin", _index),
    _method("RepositoryModelLoad", "admin", _load),
    _method("RepositoryModelUnload", "admin", _unload),
    _method("SystemSharedMemoryStatus", "infer", _region_status("SystemSharedMemoryStatusResponse", "system")),
    _method("SystemSharedMemoryRegister", "infer", _register),
    _method("SystemSharedMemoryUnregister", "infer", _unregister("SystemSharedMemoryUnregisterResponse")),
    _method("CudaSharedMemoryStatus", "infer", _region_status("CudaSharedMemoryStatusResponse", "CUDA")),
    _method("CudaSharedMemoryRegister", "infer", _register),
    _method("CudaSharedMemoryUnregister", "infer", _unregister("CudaSharedMemoryUnregisterResponse")),
    _method("TraceSetting", "infer", _trace),
    _method("LogSettings", "infer", _log),
]

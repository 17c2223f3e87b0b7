"""The HTTP edge: a plain ASGI app over a `Service`, and the server that runs it.

Refuses bodies beyond the cap before buffering them, slow bodies, more requests than it can hold, unknown paths."""

import asyncio
import json
import logging
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from edgekit_runtime import __version__
from edgekit_runtime.answer import top
from edgekit_runtime.bodies import Gone, read_body, unpacked
from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound, Refused, Unsupported
from edgekit_runtime.preprocess import apply
from edgekit_runtime.protocols import v2
from edgekit_runtime.service import Served, Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]

log = logging.getLogger("edgekit_runtime.http")

MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
ROUTES = [
    (re.compile(r"/v2/?"), "GET", "server"),
    (re.compile(r"/v2/health/(?:live|ready)"), "GET", "health"),
    (re.compile(r"/v2/models/?"), "GET", "models"),
    (re.compile(MODEL + "/?"), "GET", "model"),
    (re.compile(MODEL + "/ready"), "GET", "ready"),
    (re.compile(MODEL + "/infer"), "POST", "infer"),
]
EXTENSIONS = ["binary_tensor_data", "classification", "parameters"]
PHOTOS = (b"image/jpeg", b"image/png")
HEADER_LENGTH = b"inference-header-content-length"
STATUS: dict[type[EdgeKitError], int] = {NotFound: 404, BadRequest: 400, Unsupported: 400}


@dataclass(frozen=True)
class Limits:
    """What a client may take: bytes of a body (also unpacked), seconds to send it, requests under way at once."""

    body: int = 64 * 2**20
    seconds: float = 30.0
    requests: int = 64


def app(service: Service, limits: Limits | None = None) -> App:
    """The ASGI application. Health and metadata answer from the event loop; each model runs in a thread of its own."""
    lanes = {key: ThreadPoolExecutor(1, thread_name_prefix=key[0]) for key in service.models}
    bounds = limits or Limits()
    under_way = 0

    async def infer(served: Served, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        nonlocal under_way
        if under_way >= bounds.requests:
            raise Refused(503, "too many requests under way", "try again in a second", {"retry-after": "1"})
        under_way += 1
        try:
            body = await read_body(headers, receive, bounds.body, bounds.seconds)
            lane = lanes[served.name, served.version]
            return await asyncio.get_running_loop().run_in_executor(lane, _infer, served, headers, body, bounds.body)
        finally:
            under_way -= 1

    async def answer(scope: Scope, receive: Receive) -> Answer:
        what, name, version = _route(scope["path"], scope["method"])
        if what == "infer":
            return await infer(service.find(name, version), dict(scope["headers"]), receive)
        return _json(200, _tell(service, what, name, version))

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, headers, body = await answer(scope, receive)
        except Gone:
            return
        except EdgeKitError as error:
            status, headers, body = _refusal(error)
        except (
            Exception
        ):  # a bug of ours or of an engine: told whole to the log, not to the client; the server lives on
            log.exception("unexpected error answering %s %r", scope["method"], scope["path"][:200])
            status, headers, body = _json(500, {"error": "internal error", "hint": "look into the server's log"})
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return call


def serve(
    service: Service, host: str, port: int, limits: Limits | None = None, tell: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; `tell` gets the address once it is taken (port 0 takes a free one).

    Raises:
        EdgeKitError: uvicorn is not installed, or the address cannot be had.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise EdgeKitError(
            "serving needs uvicorn, which is not installed",
            hint="install edgekit-runtime with its [http] extra: pip install './runtime[http]'",
        ) from error
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise EdgeKitError(f"cannot listen on {host} port {port}: {error}", hint="choose another --port") from error
    config = uvicorn.Config(
        app(service, limits),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
    )
    with listening:
        shown = f"[{host}]" if ":" in host else host
        if tell is not None:
            tell(f"http://{shown}:{listening.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listening])


def _route(path: str, verb: str) -> tuple[str, str, str | None]:
    """What is asked, of which model and version ("" and None where the path names none)."""
    allowed = ""
    for pattern, wanted, what in ROUTES:
        if match := pattern.fullmatch(path):
            if verb == wanted:
                parts = match.groupdict()
                return what, parts.get("name") or "", parts.get("version")
            allowed = wanted
    if allowed:
        raise Refused(405, f"{verb} is not allowed here", f"use {allowed}", {"allow": allowed})
    raise NotFound("no such path", hint="GET /v2/models lists the models, POST /v2/models/NAME/infer runs one")


def _tell(service: Service, what: str, name: str, version: str | None) -> Any:
    """The answer to a GET."""
    if what == "server":
        return {"name": "edgekit-runtime", "version": __version__, "extensions": EXTENSIONS}
    if what == "health":
        return {"live": True, "ready": True}
    if what == "models":
        return {"models": service.names()}
    served = service.find(name, version)
    if what == "ready":
        return {"name": name, "ready": True}
    return v2.metadata(name, service.versions(name), f"edgekit_{served.engine}", (served.inputs, served.outputs))


def _infer(served: Served, headers: dict[bytes, bytes], body: bytes, limit: int) -> Answer:
    """One request through its model, in the model's own thread."""
    body = unpacked(body, headers.get(b"content-encoding", b""), limit)
    photo = headers.get(b"content-type", b"").split(b";")[0].strip().lower() in PHOTOS
    if photo:
        request = _photo(served, body)
    else:
        request = v2.read_request(body, _header_length(headers), served.inputs, served.outputs)
    try:
        outputs = served.infer(request.feeds)
    except Unsupported as error:
        log.warning("%s: %s", served.name, error.what)
        raise BadRequest("the model cannot run these inputs", hint="check that their sizes fit each other") from error
    best = [{"label": label, "score": score} for label, score in top(outputs, served.labels, 5)] if photo else []
    reply = v2.Reply(served.name, served.version, served.labels, {"top": best} if best else None)
    text, length = v2.write_response(reply, request, outputs)
    if length is None:
        return 200, [(b"content-type", b"application/json")], text
    return 200, [(b"content-type", b"application/octet-stream"), (HEADER_LENGTH, str(length).encode())], text


def _photo(served: Served, body: bytes) -> v2.Request:
    """EdgeKit's own short cut: a photo as the whole body, the labels in the reply."""
    if served.preprocess is None or {served.preprocess.input} != {spec.name for spec in served.inputs}:
        raise BadRequest("this model does not take photos", hint="send tensors")
    return v2.Request(apply(served.preprocess, body), tuple(v2.Wanted(spec.name) for spec in served.outputs))


def _header_length(headers: dict[bytes, bytes]) -> int | None:
    value = headers.get(HEADER_LENGTH)
    if value is None:
        return None
    if not re.fullmatch(rb"\d{1,18}", value):
        raise BadRequest("Inference-Header-Content-Length is not a number of bytes")
    return int(value)


def _refusal(error: EdgeKitError) -> Answer:
    said = {"error": error.what, "hint": error.hint} if error.hint else {"error": error.what}
    if isinstance(error, Refused):
        return _json(error.status, said, [(key.encode(), value.encode()) for key, value in error.headers.items()])
    return _json(next((STATUS[kind] for kind in STATUS if isinstance(error, kind)), 500), said)


def _json(status: int, value: Any, headers: Headers | None = None) -> Answer:
    return status, [(b"content-type", b"application/json"), *(headers or [])], json.dumps(value).encode()

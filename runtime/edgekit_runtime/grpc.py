"""The gRPC edge: calls to methods, errors to statuses; tokens, deadlines, limits. Needs the extra [grpc].

Refuses callers without the right token, admin methods where they are not offered, messages beyond the limits, and an
address that another server has."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from edgekit_runtime.addresses import bind_unix, parse_address
from edgekit_runtime.counters import Counters
from edgekit_runtime.errors import (
    BadRequest,
    Busy,
    EdgeKitError,
    Exceeded,
    Forbidden,
    Late,
    NotFound,
    NotOffered,
    Unauthenticated,
    Unsupported,
)
from edgekit_runtime.inferring import HEAVY
from edgekit_runtime.limits import Limits
from edgekit_runtime.messages import read
from edgekit_runtime.protocols.asking import PLAIN_ID, REQUEST_ID, request_id
from edgekit_runtime.rpc import MODULES, UNTRACED, Context, Method, Timed, health
from edgekit_runtime.service import Service
from edgekit_runtime.threads import in_thread
from edgekit_runtime.tls import Pem

if TYPE_CHECKING:
    from edgekit_runtime.traces import Begun

log = logging.getLogger("edgekit_runtime.grpc")

Allow = Callable[[str | bytes | None, str], None]
"""Given an authorization header and a scope; raises Unauthenticated or Forbidden."""

STATUSES: dict[type[EdgeKitError], str] = {
    NotFound: "NOT_FOUND",
    BadRequest: "INVALID_ARGUMENT",
    Unsupported: "INVALID_ARGUMENT",
    NotOffered: "UNIMPLEMENTED",
    Unauthenticated: "UNAUTHENTICATED",
    Forbidden: "PERMISSION_DENIED",
    Busy: "UNAVAILABLE",
    Late: "DEADLINE_EXCEEDED",
}
INFERENCES = {"ModelInfer", "ModelStreamInfer", "Predict", "Classify", "Regress"}
"""The methods whose requests are traced, where anything is."""
WATCHERS = 64
"""Calls at once that are open to anybody and have no end."""
STREAMS = 128
"""Calls at once on one connection."""
PING_SECONDS = 60
LONGEST_DETAILS = 1000


class Running:
    """An open listener."""

    def __init__(self, server: Any, stopping: asyncio.Event) -> None:
        self._server, self._stopping = server, stopping

    async def stop(self, grace: float | None = None) -> None:
        """Take no more calls; end those under way when they are answered, or after `grace` seconds."""
        self._stopping.set()
        await self._server.stop(grace)


async def start(
    service: Service,
    address: str,
    counters: Counters,
    allow: Allow | None = None,
    pem: Pem | None = None,
    admin: bool = False,
) -> tuple[Running, int]:
    """Listen on `address` (HOST:PORT or unix:PATH); the listener, and its port (0 for a Unix socket).

    `allow` checks tokens, None asks for none; `pem` makes it TLS; `admin` offers the admin methods.

    Raises:
        EdgeKitError: the address cannot be had.
    """
    limits = service.policy.limits
    stopping = asyncio.Event()
    desk = _Desk(service, counters, allow, admin, stopping)
    server = grpc.aio.server(options=_options(limits), maximum_concurrent_rpcs=limits.connections)
    server.add_generic_rpc_handlers(desk.handlers())
    port = _bind(server, address, pem)
    await server.start()
    return Running(server, stopping), port


class _Desk:
    """Answers the calls of one listener."""

    def __init__(
        self, service: Service, counters: Counters, allow: Allow | None, admin: bool, stopping: asyncio.Event
    ) -> None:
        self.service, self.counters, self.allow, self.admin, self.stopping = service, counters, allow, admin, stopping
        self.limits = service.policy.limits
        self._watching = self._held = 0

    def handlers(self) -> list[Any]:
        """gRPC's handlers for all methods: they get and give bytes, so that reading is ours."""
        methods = [method for name in MODULES for method in import_module(name).METHODS]
        services = {method.path.split("/")[1] for method in methods}
        methods += health.methods(services)
        made: dict[str, dict[str, Any]] = {}
        for method in methods:
            _, name, call = method.path.split("/")
            one = (
                grpc.stream_unary_rpc_method_handler(self._unary(method))
                if method.answer is not None
                else grpc.stream_stream_rpc_method_handler(self._stream(method))
            )
            made.setdefault(name, {})[call] = one
        return [grpc.method_handlers_generic_handler(name, calls) for name, calls in made.items()]

    def _unary(self, method: Method) -> Callable[[Any, Any], Any]:
        """Its one message is waited for here: gRPC itself would wait for ever, and ask for the token only then."""
        answer, kind = method.answer, method.request
        assert answer is not None

        async def call(coming: AsyncIterator[bytes], context: Any) -> bytes:
            size = 0
            try:
                metadata = _metadata(context)
                with self._traced(method, metadata) as timed:
                    known = self._admit(method, context, metadata, timed)
                    data = await self._first(coming)
                    if self._held + len(data) > self.limits.buffered:
                        raise Busy("too many bytes are under way", "try again in a second")
                    size = len(data)
                    self._held += size
                    reply = await answer(self.service, await self._read(kind, data), known)
                    packed: bytes = reply.SerializeToString()
            except EdgeKitError as error:
                await self._refuse(context, error)
            except Exception as error:  # the edge: a bug is told to the log, and the server lives on
                await self._fail(context, error)
            finally:
                self._held -= size
            self.counters.add("edgekit_grpc_requests_total", "OK")
            return packed

        return call

    def _stream(self, method: Method) -> Callable[[Any, Any], AsyncIterator[bytes]]:
        stream, kind = method.stream, method.request
        assert stream is not None

        async def messages(coming: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for data in coming:
                yield await self._read(kind, data)

        endless = method.scope == "open"

        async def call(coming: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            self._watching += endless
            try:
                if endless and self._watching > WATCHERS:
                    raise Busy("too many watch this server", "ask once in a while instead")
                known = self._admit(method, context, _metadata(context))
                async for reply in stream(self.service, messages(coming), known):
                    yield reply.SerializeToString()
            except EdgeKitError as error:
                await self._refuse(context, error)
            except Exception as error:  # the edge: a bug is told to the log, and the server lives on
                await self._fail(context, error)
            finally:
                self._watching -= endless
            self.counters.add("edgekit_grpc_requests_total", "OK")

        return call

    async def _first(self, coming: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                return await anext(coming)
        except TimeoutError as error:
            raise Late(f"the message did not come within {self.limits.body_seconds:g} seconds") from error
        except StopAsyncIteration as error:
            raise BadRequest("there is no message in this call") from error

    def _traced(self, method: Method, metadata: Mapping[str, Any]) -> AbstractContextManager[Timed | None]:
        """Around a request: its span, where it is an inference and sampled."""
        if self.service.tracer is None or method.path.rpartition("/")[2] not in INFERENCES:
            return UNTRACED
        begun = self.service.tracer.begin(metadata.get("traceparent"), metadata.get("tracestate", ""))
        return UNTRACED if begun is None else _span(begun, method.path)

    def _admit(self, method: Method, context: Any, metadata: Mapping[str, Any], timed: Timed | None = None) -> Context:
        header = metadata.get("authorization")

        def allow(scope: str) -> None:
            if scope == "admin" and not self.admin:
                raise Forbidden("this is switched off here", hint="serve with --admin-grpc ADDRESS and ask there")
            if self.allow is not None:
                self.allow(header, scope)

        if method.scope != "open":
            allow(method.scope)
        timeout = self.limits.deadline or None
        left = context.time_remaining()
        if left is not None and method.answer is not None:
            timeout = left if timeout is None else min(left, timeout)
        trace = partial(self._traced, method, metadata)
        identify = _own if method.answer is None else partial(_told, context, metadata)
        return Context(timeout, metadata, allow, self.stopping, timed, trace, identify if self.service.ids else None)

    async def _read(self, kind: type[Any], data: bytes) -> Any:
        if len(data) > HEAVY:
            return await in_thread(lambda: read(kind, data, self.limits.body))
        return read(kind, data, self.limits.body)

    async def _refuse(self, context: Any, error: EdgeKitError) -> NoReturn:
        self.counters.add("edgekit_refused_total", error.reason)
        details = f"{error.what}; {error.hint}" if error.hint else error.what
        trailers = (("retry-after", str(error.retry_after)),) if isinstance(error, Busy) else ()
        await self._abort(context, _status(error), details, trailers)

    async def _fail(self, context: Any, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        log.error("unexpected error", exc_info=error)
        self.counters.add("edgekit_refused_total", "bug")
        await self._abort(context, "INTERNAL", "internal error; look into the server's log")

    async def _abort(self, context: Any, status: str, details: str, trailers: Any = ()) -> NoReturn:
        self.counters.add("edgekit_grpc_requests_total", status)
        await context.abort(getattr(grpc.StatusCode, status), details[:LONGEST_DETAILS], trailers)
        raise AssertionError("abort() raises")


@contextmanager
def _span(begun: "Begun", path: str) -> Iterator[Timed]:
    """The span of what is done inside, which says how that ended."""
    status = "INTERNAL"
    try:
        yield begun.timed
        status = "OK"
    except EdgeKitError as error:
        status = _status(error)
        raise
    except asyncio.CancelledError:
        status = "CANCELLED"
        raise
    finally:
        begun.grpc(path, status)


def _metadata(context: Any) -> dict[str, Any]:
    return dict(context.invocation_metadata())


def _told(context: Any, metadata: Mapping[str, Any], own: str | None) -> str:
    """The id of a call's request, which the answer's metadata tell."""
    known = request_id(own, str(metadata.get(REQUEST_ID, "")))
    if PLAIN_ID.fullmatch(known):
        context.set_trailing_metadata(((REQUEST_ID, known),))
    return known


def _own(own: str | None) -> str:
    """The id of a request in a stream, whose metadata are not its own."""
    return request_id(own, "")


def _status(error: EdgeKitError) -> str:
    if isinstance(error, Exceeded):
        return "RESOURCE_EXHAUSTED"
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), "INTERNAL")


def _options(limits: Limits) -> list[tuple[str, int]]:
    """Every limit that gRPC itself holds. Messages are measured unpacked; a peer that is gone is found by pings."""
    return [
        ("grpc.max_receive_message_length", limits.body),
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", round(limits.header_seconds * 1000)),
        ("grpc.max_connection_idle_ms", round(limits.idle_seconds * 1000)),
        ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 0),
    ]


def _bind(server: Any, address: str, pem: Pem | None) -> int:
    path = parse_address(address).path
    try:
        if path is None:
            return _add(server, address, pem)
        bind_unix(path).close()  # refuses a path that somebody listens on: gRPC itself takes it from them
        before = os.umask(0o117)  # the socket's mode has to be right from its first moment on
        try:
            _add(server, address, pem)
        finally:
            os.umask(before)
        return 0
    except RuntimeError as error:
        raise EdgeKitError(f"cannot listen on {address}", hint="choose another address or port") from error


def _add(server: Any, address: str, pem: Pem | None) -> int:
    if pem is None:
        port: int = server.add_insecure_port(address)
        return port
    mutual = pem.client_ca is not None
    credentials = grpc.ssl_server_credentials([(pem.key, pem.cert)], pem.client_ca, mutual)
    secured: int = server.add_secure_port(address, credentials)
    return secured

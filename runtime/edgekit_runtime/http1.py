"""HTTP/1.1 on a socket: bytes to `Request`, `Response` to bytes, within every limit. Knows no models and no routes.

Refuses what is no HTTP, what is too large, too much or too slow, each with its status; never holds more than it may."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import cast
from urllib.parse import unquote_to_bytes

from edgekit_runtime.counters import Counters
from edgekit_runtime.exchange import Refused, Request, Response
from edgekit_runtime.limits import Limits
from edgekit_runtime.parsing import Malformed, Parser, make_parser

PIPELINED = 1024
"""Requests that may be read ahead of the answer under way."""
AHEAD = 65_536
"""Bytes that are kept unread while an answer is under way; then the socket is left alone. And what may come without
the end of a header, a chunk or a body."""
JOINED = 65_536
"""Bodies up to this size go out in one write with their head."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 64 * 2**20
"""After a refusal the rest of the body is taken and thrown away, within these bounds: a client that is still
sending would not see the answer."""
GRACE_SECONDS = 0.5
"""How long after a client closed its side an answer may still come; then it is given up."""
WRITE_SECONDS = 30.0
TURNED_AWAY = 64
"""Connections beyond the limits that hear why, at once; more are closed without a word."""
SWEEP_SECONDS = 0.5
REASONS = {
    100: "Continue", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 411: "Length Required", 413: "Content Too Large",
    414: "URI Too Long", 415: "Unsupported Media Type", 417: "Expectation Failed", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}  # fmt: skip
HEADS = {code: f"HTTP/1.1 {code} {reason}\r\n".encode() for code, reason in REASONS.items()}
ONCE = (b"host", b"content-length", b"authorization", b"content-type", b"content-encoding", b"transfer-encoding",
        b"inference-header-content-length")  # fmt: skip
"""Headers that may not come twice: two readers could take them differently."""

UNNAMED = b"HTTP/1.1 500 Internal Server Error\r\n"
IDLE, HEAD, BODY = "nothing", "head", "body"

Answer = Response | Awaitable[Response]


@dataclass(slots=True)
class Edge:
    """What all connections of one listener share.

    `begin` is asked when the head of a request is there, before its body: it raises what refuses it, and gives
    who will answer the whole. `refuse` turns any exception into an answer.
    """

    begin: Callable[[Request], Callable[[Request], Answer]]
    refuse: Callable[[BaseException], Response]
    limits: Limits
    counters: Counters
    connections: set["Connection"] = field(default_factory=set)
    turned_away: set["Connection"] = field(default_factory=set)
    addresses: dict[str, int] = field(default_factory=dict)
    buffered: int = 0
    date: bytes = b""
    now: float = 0.0
    closing: bool = False

    def protocol(self) -> "Connection":
        """A new connection's."""
        return Connection(self)

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Count so many more bytes as under way.

        Raises:
            Refused: they are too many with the others.
        """
        if self.buffered + size > self.limits.buffered:
            raise _full()
        self.buffered += size
        try:
            yield
        finally:
            self.buffered -= size

    async def sweep(self) -> None:
        """Close what is overdue, until cancelled: one timer for all connections."""
        loop = asyncio.get_running_loop()
        while True:
            self.tick(loop.time())
            await asyncio.sleep(SWEEP_SECONDS)

    def tick(self, now: float) -> None:
        """One round of `sweep`."""
        self.now = now
        self.date = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode()
        for connection in [one for one in (*self.connections, *self.turned_away) if one.deadline < now]:
            connection.overdue()

    async def close(self, seconds: float) -> None:
        """End idle connections now, the others after their answer or `seconds`."""
        self.closing = True
        for connection in list(self.connections):
            connection.leave()
        end = asyncio.get_running_loop().time() + seconds
        while self.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        for connection in (*self.connections, *self.turned_away):
            connection.abort()


class Connection(asyncio.Protocol):
    """One client. `_stage` is what it is waited for: nothing, the rest of a head or body, or our own answer."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.deadline = 0.0
        self._transport = cast(asyncio.Transport, None)
        self._parser: Parser = make_parser(self)
        self._address = ""
        self._stage = IDLE
        self._ready: deque[_Turn] = deque()
        self._task: asyncio.Task[Response] | None = None
        self._ahead = bytearray()
        self._paused = self._stuck = self._last = self._left = self._cut = False
        self._deaf = self._owed = self._silent = 0
        self._fresh()

    def _fresh(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._count = self._named = self._bytes = self._chunks = self._size = 0
        self._pieces: list[bytes] = []
        self._turn: _Turn | None = None

    # the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        edge, limits = self.edge, self.edge.limits
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        edge.counters.add("edgekit_connections_total")
        self.deadline = edge.now + limits.header_seconds
        here = edge.addresses.get(self._address, 0)
        over = "connections" if len(edge.connections) >= limits.connections else ""
        if self._address and here >= limits.per_address:
            over = "connections_per_address"
        if not over:
            edge.connections.add(self)
            edge.addresses[self._address] = here + 1
        elif len(edge.turned_away) >= TURNED_AWAY:
            edge.counters.add("edgekit_refused_total", over)
            self.abort()
        else:  # it takes no place from who may come
            edge.turned_away.add(self)
            self._refuse(Refused(503, "too many connections", "try again later", [(b"retry-after", b"1")], over))

    def connection_lost(self, error: Exception | None) -> None:
        edge = self.edge
        edge.turned_away.discard(self)
        if self in edge.connections:
            edge.connections.discard(self)
            edge.addresses[self._address] -= 1
            if not edge.addresses[self._address]:
                del edge.addresses[self._address]
        self._forget()
        for turn in self._ready:
            edge.buffered -= len(turn.request.body)
        edge.counters.add("edgekit_clients_gone_total", count=len(self._ready) + (self._stage in (HEAD, BODY)))
        self._ready.clear()
        self._ahead.clear()
        self._stage, self._deaf = IDLE, LINGER_BYTES
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._deaf -= len(data)
            if self._deaf <= 0:
                self.abort()
        elif self._task is not None or self._stuck:
            self._ahead += data
            if len(self._ahead) > AHEAD and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        else:
            self._feed(data)

    def eof_received(self) -> bool:
        if self._task is None or self._transport.get_extra_info("sslcontext") is not None:
            return False
        self._left = True
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._give_up, self._task)
        return True

    def pause_writing(self) -> None:
        self._stuck = True
        self.deadline = self.edge.now + WRITE_SECONDS

    def resume_writing(self) -> None:
        self._stuck = False
        self.deadline = self.edge.now + self.edge.limits.idle_seconds
        self._go_on()

    # the parser's calls

    def begun(self) -> None:
        self._fresh()
        self._stage = HEAD
        self.edge.counters.add("edgekit_http_requests_begun_total")
        self._wait(self.edge.limits.header_seconds)

    def target(self, piece: bytes) -> None:
        self._url += piece
        if len(self._url) > self.edge.limits.url:
            raise Refused(414, "the URL is too long", f"use at most {self.edge.limits.url} bytes", limit="url")

    def header(self, name: bytes, value: bytes) -> None:
        limits = self.edge.limits
        self._silent = 0
        self._count += 1
        self._named += len(name) + len(value)
        if self._count > limits.headers or self._named > limits.header_bytes:
            raise _too_long()
        if self._turn is not None:  # a trailer: it is counted, and says nothing of a request that is under way
            return
        known = self._headers.get(name)
        if known is not None and name in ONCE:
            raise Refused(400, f"the header {name.decode()} comes twice", "send it once")
        self._headers[name] = value if known is None else known + b", " + value

    def headed(self, verb: str, version: str, keep_alive: bool) -> None:
        headers = self._headers
        if version not in ("1.1", "1.0"):
            raise Refused(505, "this version of HTTP is not spoken here", "use HTTP/1.1")
        if version == "1.1" and b"host" not in headers:
            raise Refused(400, "a request of HTTP/1.1 needs a Host header")
        path, _, query = _target(self._url).partition(b"?")
        request = Request(verb, _decoded(path), query.decode("latin-1"), headers)
        self._turn = _Turn(request, keep_alive, version == "1.0")
        self._stage = BODY
        self._wait(self.edge.limits.body_seconds)
        expect = headers.get(b"expect")
        length = int(headers.get(b"content-length", b"0"))
        try:
            if expect is not None and expect.lower() != b"100-continue":
                raise Refused(417, "this expectation is not met", "leave Expect out")
            self._turn.answer = self.edge.begin(request)
            self._announced(length)
        except Exception as error:  # whatever refuses the head: a body that is not too long is let pass first
            if expect is not None or length > self.edge.limits.body:
                self._owed = min(length, self.edge.limits.body + LINGER_BYTES)
                raise
            self._turn.answer = self.edge.refuse(error)
        if expect is not None and version == "1.1" and (length or b"transfer-encoding" in headers):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def chunk(self) -> None:
        self._silent = 0
        self._chunks += 1
        if self._chunks > self.edge.limits.chunks:
            raise Refused(413, "the body comes in too many chunks", "send larger ones", limit="chunks")

    def body(self, piece: bytes) -> None:
        edge, turn = self.edge, self._turn
        self._silent = 0
        if turn is None or isinstance(turn.answer, Response):
            self._bytes += len(piece)
            if self._bytes > edge.limits.body + LINGER_BYTES:
                self.abort()
            return
        self._size += len(piece)
        edge.buffered += len(piece)
        if self._size > edge.limits.body:
            raise _too_large(edge.limits)
        if edge.buffered > edge.limits.buffered:
            raise _full()
        self._pieces.append(piece)

    def ended(self) -> None:
        turn = self._turn
        assert turn is not None
        self._silent = 0
        pieces = self._pieces
        turn.request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._fresh()
        self._wait(float("inf"))
        if len(self._ready) >= PIPELINED:
            self.edge.buffered -= len(turn.request.body)
            raise Refused(503, "too many requests at once on one connection", "wait for answers", limit="pipelined")
        self._stage = IDLE
        if not turn.keep:
            self._deaf = LINGER_BYTES
        if self._task is None and not self._ready and not self._stuck:
            self._answer(turn)
        else:
            self._ready.append(turn)
        if not turn.keep:
            raise Malformed  # whatever comes behind it

    def framing(self) -> bytes:
        said = [(name, self._headers.get(name)) for name in (b"content-length", b"transfer-encoding")]
        return b"".join(b"%s: %s\r\n" % (name, value) for name, value in said if value is not None)

    # answering

    def _feed(self, data: bytes) -> None:
        self._silent += len(data)
        try:
            self._parser.feed(data)
            if self._silent > AHEAD:  # the parser gathers a header until it ends, however long it is
                raise _too_long()
        except Malformed:
            self._refuse(Refused(400, "this is no HTTP request that can be read", limit="malformed"))
        except Exception as error:  # what the calls above raise, and bugs: the edge knows what to say
            self._refuse(error)

    def _refuse(self, error: BaseException) -> None:
        """The last answer on this connection: what follows can not be told from what was refused."""
        if self._deaf:
            return
        if self._stage == IDLE:
            self.edge.counters.add("edgekit_http_requests_begun_total")
        self._forget()
        self._fresh()
        self._stage, self._deaf, self._cut = IDLE, max(LINGER_BYTES, self._owed), True
        turn = _Turn(Request("", ""), False, False, self.edge.refuse(error))
        if self._task is None and not self._ready and not self._stuck:
            self._answer(turn)
        else:
            self._ready.append(turn)

    def _answer(self, turn: "_Turn") -> None:
        if not turn.keep:
            self._last = True
        target = turn.answer
        assert target is not None
        answer: Answer
        if isinstance(target, Response):
            answer = target
        else:
            try:
                answer = target(turn.request)
            except Exception as error:  # as the edge says: an EdgeKitError is the client's, anything else a bug
                answer = self.edge.refuse(error)
        if isinstance(answer, Response):
            self._send(answer, turn)
            return
        self._task = asyncio.ensure_future(answer)
        self._task.add_done_callback(lambda task: self._done(task, turn))
        if self._left:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._give_up, self._task)

    def _done(self, task: "asyncio.Future[Response]", turn: "_Turn") -> None:
        self._task = None
        if task.cancelled():
            self.edge.buffered -= len(turn.request.body)
            self.edge.counters.add("edgekit_clients_gone_total")
            self.abort()
            return
        error = task.exception()
        self._send(task.result() if error is None else self.edge.refuse(error), turn)
        self._go_on()

    def _go_on(self) -> None:
        """Answer what waits, then read on; not while an answer is made, nor while the client does not read."""
        while self._ready and self._task is None and not self._stuck:
            self._answer(self._ready.popleft())
        if self._task is not None or self._stuck:
            return
        if self._ahead and not self._deaf and not self._last:
            data, self._ahead = bytes(self._ahead), bytearray()
            self._feed(data)
        if self._left and self._task is None and not self._ready and not self._last:
            self._transport.close()
        if self._paused and self._task is None and not self._stuck and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _send(self, response: Response, turn: "_Turn") -> None:
        edge, transport, body = self.edge, self._transport, response.body
        edge.buffered -= len(turn.request.body)
        if transport.is_closing():
            edge.counters.add("edgekit_clients_gone_total")
            return
        edge.counters.add("edgekit_http_requests_total", str(response.status))
        last = (self._last or edge.closing) and not self._ready
        head = [HEADS.get(response.status, UNNAMED), edge.date, b"content-length: %d\r\n" % len(body)]
        for pair in response.headers:
            head.append(b"%s: %s\r\n" % pair)
        if last:
            head.append(b"connection: close\r\n")
        elif turn.old:
            head.append(b"connection: keep-alive\r\n")
        head.append(b"\r\n")
        if turn.request.verb == "HEAD":
            body = b""
        if len(body) <= JOINED:
            head.append(body)
            transport.write(b"".join(head))
        else:
            transport.write(b"".join(head))
            transport.write(body)
        if last:
            self._finish()
        elif not self._stuck:
            limits = edge.limits
            waits = {IDLE: limits.idle_seconds, HEAD: limits.header_seconds, BODY: limits.body_seconds}
            self.deadline = edge.now + waits[self._stage]

    def _finish(self) -> None:
        """All is said. A client that is still sending is heard out for a while: else it would not see our answer."""
        self._last = True
        if self._cut and not self.edge.closing and self._transport.can_write_eof():
            self._transport.write_eof()
            self.deadline = self.edge.now + LINGER_SECONDS
        else:
            self._transport.close()

    def _wait(self, seconds: float) -> None:
        """The next deadline; one who does not read what was answered gets no new one."""
        if not self._stuck:
            self.deadline = self.edge.now + seconds

    def _forget(self) -> None:
        self.edge.buffered -= self._size
        self._size = 0
        self._pieces = []

    def _announced(self, length: int) -> None:
        limits = self.edge.limits
        if length > limits.body:
            raise _too_large(limits)
        if self.edge.buffered + length > limits.buffered:
            raise _full()

    # ending

    def overdue(self) -> None:
        """The deadline is over: a word to who sends too slowly, an end for who is idle or does not read."""
        if self._task is not None and not self._stuck:
            self.deadline = float("inf")  # what comes behind it has time until its answer is out
        elif self._deaf or self._stuck:
            self.abort()
        elif self._stage == IDLE:
            self.leave()
        else:
            limits, slow = self.edge.limits, self._stage
            seconds = limits.header_seconds if slow == HEAD else limits.body_seconds
            said = f"the {slow} did not come within {seconds:g} seconds"
            self._refuse(Refused(408, said, "send it faster", limit=f"{slow}_seconds"))

    def leave(self) -> None:
        """Close now if nothing is under way; else after the answer."""
        if self._task is None and not self._ready and self._stage == IDLE:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _give_up(self, task: "asyncio.Future[Response]") -> None:
        if task is self._task:
            task.cancel()


@dataclass(slots=True)
class _Turn:
    """A request on its way: who answers it (or the answer), whether the connection stays, whether it is HTTP/1.0."""

    request: Request
    keep: bool
    old: bool
    answer: Callable[[Request], Answer] | Response | None = None


def _target(url: bytes) -> bytes:
    """The path and query of a target; proxies' clients send it with scheme and host in front (RFC 9112, 3.2.2)."""
    if url[:7].lower() != b"http://" and url[:8].lower() != b"https://":
        return url
    rest = url.partition(b"//")[2]
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    return rest[cut:] if rest[cut : cut + 1] == b"/" else b"/" + rest[cut:]


def _decoded(path: bytes) -> str:
    text = unquote_to_bytes(path) if b"%" in path else path
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "the path is not UTF-8") from None


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the body is larger than {limits.body} bytes", "send less at once", limit="body")


def _too_long() -> Refused:
    return Refused(431, "too many headers, or too long ones", "send fewer", limit="headers")


def _full() -> Refused:
    retry = [(b"retry-after", b"1")]
    return Refused(503, "too many bytes are under way", "try again in a second", retry, limit="buffered")

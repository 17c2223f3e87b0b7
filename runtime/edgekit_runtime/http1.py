"""HTTP/1.1 on a socket: bytes to `Request`, `Response` to bytes, within every limit. Knows no models and no routes.

Refuses what is no HTTP, what is too large, too much or too slow, each with its status; never holds more than it may."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from edgekit_runtime.edge import Answer, Edge, full, too_large, too_long
from edgekit_runtime.exchange import Refused, Request, Response
from edgekit_runtime.http1_text import head, path_and_query
from edgekit_runtime.known_head import KnownHead, known_head
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
TARGETS = 256
"""How many targets are kept as they were read: most clients ask for few."""
TURNED_AWAY = 64
"""Connections beyond the limits that hear why, at once; more are closed without a word."""
ONCE = (b"host", b"content-length", b"authorization", b"content-type", b"content-encoding", b"transfer-encoding",
        b"inference-header-content-length")  # fmt: skip
"""Headers that may not come twice: two readers could take them differently."""

IDLE, HEAD, BODY = "nothing", "head", "body"


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
        self._known: KnownHead | None = None
        self._begun = b""
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
        edge = self.edge
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        edge.counters.add("edgekit_connections_total")
        self.deadline = edge.now + edge.limits.header_seconds
        over = edge.enter(self, self._address)
        if over and len(edge.turned_away) >= TURNED_AWAY:
            edge.counters.add("edgekit_refused_total", over)
            self.abort()
        elif over:
            edge.turned_away.add(self)
            self._refuse(Refused(503, "too many connections", "try again later", [(b"retry-after", b"1")], over))

    def connection_lost(self, error: Exception | None) -> None:
        edge = self.edge
        edge.let_go(self, self._address)
        self._parser.close()
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
        elif self._known is None or not self._again(data, self._known):
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
        self._stage = HEAD
        self.edge.counters.add("edgekit_http_requests_begun_total")
        self._wait(self.edge.limits.header_seconds)

    def target(self, piece: bytes) -> None:
        self._url += piece
        if len(self._url) > self.edge.limits.url:
            raise Refused(414, "the URL is too long", f"use at most {self.edge.limits.url} bytes", limit="url")

    def header(self, name: bytes, value: bytes) -> None:
        limits = self.edge.limits
        name, value = name.lower(), value.rstrip(b" \t")
        self._silent = 0
        self._count += 1
        self._named += len(name) + len(value)
        if self._count > limits.headers or self._named > limits.header_bytes:
            raise too_long()
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
        if b"content-length" in headers and b"transfer-encoding" in headers:  # h11 would take the chunks
            raise Refused(400, "a body comes with a Content-Length or in chunks, not both", limit="malformed")
        known = self.edge.targets.get(self._url)
        if known is None:
            known = path_and_query(self._url)
            if len(self.edge.targets) < TARGETS:
                self.edge.targets[self._url] = known
        request = Request(verb, *known, headers)
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
            raise too_large(edge.limits)
        if edge.buffered > edge.limits.buffered:
            raise full()
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
        elif self._begun:
            self._known, self._begun = known_head(self._begun, turn.request, turn.old), b""
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
        self._begun = data if self._stage == IDLE and len(data) <= JOINED else b""
        try:
            self._parser.feed(data)
            self._begun = b""
            if self._silent > AHEAD:  # the parser gathers a header until it ends, however long it is
                raise too_long()
        except Malformed:
            self._refuse(Refused(400, "this is no HTTP request that can be read", limit="malformed"))
        except Exception as error:  # what the calls above raise, and bugs: the edge knows what to say
            self._refuse(error)

    def _again(self, data: bytes, known: KnownHead) -> bool:
        """Answer a request whose head is, byte for byte, the last that came, where it came whole; False where not.

        Most clients say the same each time: their head is not parsed anew. All that a request is held against is
        asked anew, with its numbers: places, bytes under way, tokens, models."""
        if self._stage != IDLE or self._ready or len(data) != known.size or not data.startswith(known.text):
            return False
        edge, request = self.edge, known.request(data)
        turn, size = _Turn(request, True, False), len(request.body)
        edge.counters.add("edgekit_http_requests_begun_total")
        self._wait(float("inf"))
        try:
            turn.answer = edge.begin(request)
            self._announced(size)
            edge.buffered += size
        except Exception as error:  # whatever refuses the head
            request.body = b""
            turn.answer = edge.refuse(error)
        self._answer(turn)
        return True

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
        text = head(response, edge.date, b"close" if last else b"keep-alive" if turn.old else b"")
        if turn.request.verb == "HEAD":
            body = b""
        if len(body) <= JOINED:
            transport.write(text + body)
        else:
            transport.write(text)
            transport.write(body)
        if last:
            self._finish()
        elif not self._stuck:
            limits = edge.limits
            if self._stage == IDLE:
                self.deadline = edge.now + limits.idle_seconds
            else:
                self.deadline = edge.now + (limits.header_seconds if self._stage == HEAD else limits.body_seconds)

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
            raise too_large(limits)
        if self.edge.buffered + length > limits.buffered:
            raise full()

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

"""The HTTP edge: requests to routes, errors to statuses; tokens, packing, counters. What `http1` asks for answers.

Refuses unknown paths and verbs, callers without the right token, admin routes where they are not offered."""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekit_runtime.bodies import SMALLEST, chosen, packed, unpacked
from edgekit_runtime.browsers import refuse_strangers
from edgekit_runtime.counters import Counters
from edgekit_runtime.edge import Answer, Edge
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
from edgekit_runtime.exchange import Refused, Request, Response, json_response
from edgekit_runtime.inferring import HEAVY, answer
from edgekit_runtime.lane import Lane
from edgekit_runtime.logs import event
from edgekit_runtime.protocols import asking
from edgekit_runtime.protocols.asking import PLAIN_ID, Asked, request_id
from edgekit_runtime.routes import Parts, Read, Route
from edgekit_runtime.service import Service
from edgekit_runtime.tensors import Feeds
from edgekit_runtime.threads import in_thread

if TYPE_CHECKING:
    from edgekit_runtime.traces import Begun

log = logging.getLogger("edgekit_runtime.http")

Allow = Callable[[bytes | None, str], None]
"""Given an Authorization header and a scope; raises Unauthenticated or Forbidden."""

STATUSES: Mapping[type[EdgeKitError], int] = {
    NotFound: 404, BadRequest: 400, Unsupported: 400, NotOffered: 501, Unauthenticated: 401, Forbidden: 403,
    Busy: 503, Late: 504,
}  # fmt: skip
EXCEEDED = {"depth": 400, "memory": 507}
"""The status for a limit's name; 413 for all others."""
HEADER_LENGTH, REQUEST_ID = b"inference-header-content-length", asking.REQUEST_ID.encode()
CACHED = 512
BEARER = (b"www-authenticate", b'Bearer realm="edgekit"')
BASIC = (b"www-authenticate", b'Basic realm="edgekit"')
"""For a browser that opens the page: it asks its user for a name, which is ignored, and a password, which is the token.
It asks again only where this is the answer to what was typed: so it is where that token does not allow what the page
or its scripts ask for. Scripts that come without a token, or with one that is gone, are not answered so: the page
tells it by itself."""


class Desk:
    """Answers the requests of one listener; `edge` is what its connections share. `admin` says whether admin
    routes are offered there; `allow` checks tokens, None asks for none. `ids`: each inference has an id, the client's
    or one of ours, which goes back as X-Request-Id."""

    def __init__(
        self,
        service: Service,
        routes: Iterable[Route],
        counters: Counters,
        allow: Allow | None,
        admin: bool = False,
        ids: bool = False,
    ) -> None:
        self.service, self.counters = service, counters
        self._routes = [_identified(route) if ids else route for route in routes]
        self._allow, self._admin = allow, admin
        self._known: dict[tuple[str, str], tuple[Route, Parts]] = {}
        self._limits = service.policy.limits
        self.edge = Edge(self.begin, self.refuse, self._limits, counters)

    def begin(self, request: Request) -> Callable[[Request], Answer]:
        """Who answers the request, once its body is there.

        Raises:
            EdgeKitError: nobody, or not to this caller.
        """
        found = self._known.get((request.verb, request.path))
        if found is None:
            found = self._match(request.verb, request.path)
            if len(self._known) < CACHED:
                self._known[request.verb, request.path] = found
        route, parts = found
        try:
            if route.scope != "open":
                self._admit(request, route.scope)
            if route.read is not None:
                self._lane(parts)
        except EdgeKitError as error:
            if route.error is None:
                raise
            told = self._told(route, parts, error)
            return lambda request: told
        return lambda request: self._answer(route, parts, request)

    def _admit(self, request: Request, scope: str) -> None:
        headers = request.headers
        if scope == "admin" and not self._admin:
            raise Forbidden("this is switched off here", hint="serve with --admin ADDRESS and ask there")
        if scope == "admin" and b"origin" in headers:  # any page can make a browser ask
            raise Forbidden("a web page may not ask this", hint="ask from a program")
        page = scope == "page"
        if page and b"text/html" not in headers.get(b"accept", b"").lower():
            return
        if b"origin" in headers or b"user-agent" in headers:
            refuse_strangers(headers, self._allow is not None)
        if self._allow is None:
            return
        given = headers.get(b"authorization")
        try:
            self._allow(given, "metrics" if page else scope)
        except (Unauthenticated, Forbidden) as error:
            typed = given is not None and given[:6].lower() == b"basic "
            if typed if isinstance(error, Forbidden) else page:
                raise Refused(401, error.what, error.hint, [BEARER, BASIC], error.reason) from error
            raise

    def refuse(self, error: BaseException) -> Response:
        """What to say of an error; one that is no `EdgeKitError` is a bug, told whole to the log alone."""
        if not isinstance(error, EdgeKitError):
            log.error("unexpected error", exc_info=error)
            self.counters.add("edgekit_refused_total", "bug")
            return json_response({"error": "internal error", "hint": "look into the server's log"}, 500)
        status = self._counted(error)
        said = {"error": error.what, "hint": error.hint} if error.hint else {"error": error.what}
        return self._dressed(json_response(said, status), error)

    def _answer(self, route: Route, parts: Parts, request: Request) -> Answer:
        encoding = request.headers.get(b"content-encoding", b"")
        if encoding and encoding.lower() != b"identity":
            return self._unpacking(route, parts, request, encoding)
        return self._packed(self._run(route, parts, request), route, parts, request)

    def _run(self, route: Route, parts: Parts, request: Request) -> Answer:
        """The route's answer; its errors are raised, or told in its own words."""
        try:
            if route.tell is not None:
                return route.tell(self.service, request, parts)
            assert route.read is not None
            lane, read = self._lane(parts), route.read
            seconds = self._limits.deadline or None
            if self.service.tracer is not None and (begun := self.service.tracer.begin(*_context(request.headers))):
                return self._traced(begun, route, request, lane, read)
            found: Answer = answer(lane, lambda: read(lane, request), _work(request, lane), seconds)
            return found
        except EdgeKitError as error:
            if route.error is None:
                raise
            return self._told(route, parts, error)

    async def _traced(self, begun: "Begun", route: Route, request: Request, lane: Lane, read: Read) -> Response:
        """As `_run`, for the few requests whose time is written down."""

        def asked() -> Asked:
            made = read(lane, request)
            made.traced = begun.timed
            return made

        status = 500
        try:
            found = answer(lane, asked, _work(request, lane), self._limits.deadline or None)
            done: Response = found if isinstance(found, Response) else await found
            status = done.status
            return done
        except EdgeKitError as error:
            status = _status(error)
            raise
        finally:
            begun.http(request.verb, route.path, request.path, status)

    def _packed(self, found: Answer, route: Route, parts: Parts, request: Request) -> Answer:
        if not isinstance(found, Response):
            return self._later(found, route, parts, request)
        accepted = request.headers.get(b"accept-encoding")
        large = len(found.body) >= SMALLEST and found.status == 200
        if accepted is None or not large or (route.read is None and route.scope != "metrics"):
            return found  # Triton's asyncio client asks for gzip with every request, and unpacks inferences alone
        encoding = chosen(accepted)
        if not encoding:
            return found
        if len(found.body) > HEAVY:
            return in_thread(lambda: packed(found, encoding))
        return packed(found, encoding)

    async def _later(self, coming: Awaitable[Response], route: Route, parts: Parts, request: Request) -> Response:
        try:
            found = await coming
        except EdgeKitError as error:
            if route.error is None:
                raise
            found = self._told(route, parts, error)
        done = self._packed(found, route, parts, request)
        return done if isinstance(done, Response) else await done

    async def _unpacking(self, route: Route, parts: Parts, request: Request, encoding: bytes) -> Response:
        body = await in_thread(lambda: unpacked(request.body, encoding, self._limits.body))
        with self.edge.held(len(body)):
            plain = replace(request, body=body)
            done = self._packed(self._run(route, parts, plain), route, parts, plain)
            return done if isinstance(done, Response) else await done

    def _lane(self, parts: Parts) -> Lane:
        return self.service.find(parts["name"] or "", parts.get("version") or parts.get("label"))

    def _match(self, verb: str, path: str) -> tuple[Route, Parts]:
        if (verb, path) == ("OPTIONS", "*"):
            return Route("OPTIONS", ANY, "open", tell=_allowed(["GET", "HEAD", "OPTIONS", "POST", "PUT"])), {}
        verbs = []
        for route in self._routes:
            if match := route.path.fullmatch(path):
                if route.verb in (verb, "GET" if verb == "HEAD" else verb):
                    return route, match.groupdict()
                verbs.append(route.verb)
        if not verbs:
            raise NotFound("no such path", hint="GET /v2/models lists the models, POST /v2/models/NAME/infer runs one")
        allowed = sorted({*verbs, "OPTIONS", *(["HEAD"] if "GET" in verbs else [])})
        if verb == "OPTIONS":
            return Route("OPTIONS", ANY, "open", tell=_allowed(allowed)), {}
        raise Refused(405, f"{verb[:20]} is not allowed here", f"use {' or '.join(sorted(set(verbs)))}",
                      [(b"allow", ", ".join(allowed).encode())], "verb")  # fmt: skip

    def _told(self, route: Route, parts: Parts, error: EdgeKitError) -> Response:
        assert route.error is not None
        return self._dressed(route.error(error, self._counted(error), parts), error)

    def _counted(self, error: EdgeKitError) -> int:
        self.counters.add("edgekit_refused_total", error.reason)
        status = _status(error)
        if log.isEnabledFor(logging.INFO):  # not the error's words: they may quote the client
            event(log, logging.INFO, "request-refused", f"refused: {error.reason}", reason=error.reason, status=status)
        return status

    def _dressed(self, response: Response, error: EdgeKitError) -> Response:
        if isinstance(error, Refused):
            response.headers = [*response.headers, *error.headers]
        elif isinstance(error, Busy):
            response.headers = [*response.headers, (b"retry-after", str(error.retry_after).encode())]
        elif isinstance(error, Unauthenticated):
            response.headers = [*response.headers, BEARER]
        return response


ANY = re.compile(".*")


def _context(headers: Mapping[bytes, bytes]) -> tuple[str | None, str]:
    """Who asked, for a trace; in latin-1, which reads all bytes: what is not ASCII does not read as a context."""
    parent = headers.get(b"traceparent")
    return (
        (None, "") if parent is None else (parent.decode("latin-1"), headers.get(b"tracestate", b"").decode("latin-1"))
    )


def _work(request: Request, lane: Lane) -> int:
    """How many bytes are to be parsed: with binary numbers, their JSON head alone."""
    head, size = request.headers.get(HEADER_LENGTH), len(request.body)
    return size if head is None or lane.strings or len(head) > 18 or not head.isdigit() else min(int(head), size)


def _identified(route: Route) -> Route:
    """The route, with an id for each inference: the protocol's own, the header X-Request-Id, or a new one."""
    read = route.read
    if read is None:
        return route

    def asked_by_id(lane: Lane, request: Request) -> Asked:
        asked = read(lane, request)
        asked.id = known = request_id(asked.id, request.headers.get(REQUEST_ID, b"").decode("latin-1"))
        write = asked.write

        def written(outputs: Feeds) -> Response:
            response: Response = write(outputs)
            response.headers = [*response.headers, (REQUEST_ID, known.encode())] if PLAIN_ID.fullmatch(known) else (
                response.headers)  # fmt: skip
            return response

        asked.write = written
        return asked

    return replace(route, read=asked_by_id)


def _allowed(verbs: list[str]) -> Callable[[Service, Request, Parts], Response]:
    return lambda service, request, parts: Response(200, b"", [(b"allow", ", ".join(verbs).encode())])


def _status(error: EdgeKitError) -> int:
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, Exceeded):
        return EXCEEDED.get(error.limit, 413)
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)

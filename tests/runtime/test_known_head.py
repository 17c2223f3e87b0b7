"""A head that comes again is not parsed again, and nobody can tell the difference."""

import pytest
from edgekit_runtime import http1, parsing
from edgekit_runtime.counters import Counters
from edgekit_runtime.edge import Edge
from edgekit_runtime.errors import Unauthenticated
from edgekit_runtime.exchange import Refused, Request, Response
from edgekit_runtime.http1 import Connection
from edgekit_runtime.known_head import known_head
from edgekit_runtime.limits import Limits
from hypothesis import given, settings
from hypothesis import strategies as st

LIMITS = Limits(body=200, buffered=300, headers=8, header_bytes=400)
PARSERS = {"httptools": parsing.make_parser, "h11": parsing._H11}


class Line:
    """A transport that keeps what is written, and says so when it is closed."""

    def __init__(self):
        self.sent, self.closed = b"", False

    def write(self, data):
        self.sent += data

    def get_extra_info(self, key):
        return ("127.0.0.1", 1) if key == "peername" else None

    def is_closing(self):
        return self.closed

    def can_write_eof(self):
        return False

    def close(self):
        self.closed = True

    abort = close


def post(body, *more, version="1.1"):
    lines = [f"POST /here?x=1 HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


def echo(request):
    said = f"{request.verb} {request.path} {request.query} {sorted(request.headers.items())} ".encode()
    return Response(200, said + request.body)


def refused(error):
    if isinstance(error, Refused):
        return Response(error.status, error.what.encode())
    return Response(401 if isinstance(error, Unauthenticated) else 500, repr(error).encode())


@pytest.fixture(params=PARSERS)
def connect(request, monkeypatch):
    """A connection and its line, by either parser."""
    monkeypatch.setattr(http1, "make_parser", PARSERS[request.param])

    def connected(begin=lambda request: echo):
        line, edge = Line(), Edge(begin, refused, LIMITS, Counters())
        one = Connection(edge)
        one.connection_made(line)
        return one, line

    return connected


def parsed(one, monkeypatch):
    """The pieces that the connection's parser is fed from now on."""
    fed, feed = [], one._parser.feed

    class Fed:
        close = one._parser.close

        def feed(self, data):
            fed.append(data)
            feed(data)

    monkeypatch.setattr(one, "_parser", Fed())
    return fed


def test_a_head_that_comes_again_is_not_parsed_again(connect, monkeypatch):
    one, line = connect()
    fed = parsed(one, monkeypatch)
    for body in (b"abc", b"def", b"ghi"):
        one.data_received(post(body, "X-A: b"))
    assert fed == [post(b"abc", "X-A: b")]
    for body in (b"abc", b"def", b"ghi"):
        assert b"POST /here x=1 " in line.sent
        assert line.sent.count(b"(b'x-a', b'b')] " + body) == 1
    assert one.edge.counters.counts["edgekit_http_requests_begun_total", ""] == 3
    assert one.edge.counters.counts["edgekit_http_requests_total", "200"] == 3
    assert one.edge.buffered == 0


def test_who_may_no_longer_ask_is_refused_though_the_head_is_known(connect):
    allowed = True

    def begin(request):
        if not allowed:
            raise Unauthenticated("no", "bring a token")
        return echo

    one, line = connect(begin)
    one.data_received(post(b"abc"))
    allowed = False
    one.data_received(post(b"abc"))
    allowed = True
    one.data_received(post(b"abc"))
    assert [piece[:3] for piece in line.sent.split(b"HTTP/1.1 ")[1:]] == [b"200", b"401", b"200"]
    assert one.edge.buffered == 0


def test_bytes_under_way_are_counted_though_the_head_is_known(connect):
    one, line = connect()
    one.data_received(post(b"a" * 150))
    one.edge.buffered = 200
    one.data_received(post(b"a" * 150))
    assert [piece[:3] for piece in line.sent.split(b"HTTP/1.1 ")[1:]] == [b"200", b"503"]
    assert one.edge.buffered == 200


@pytest.mark.parametrize(
    "head",
    [
        ["Upgrade: h2c", "Connection: upgrade"],
        ["Expect: 100-continue"],
    ],
)
def test_a_head_that_says_more_is_parsed_each_time(connect, monkeypatch, head):
    one, line = connect()
    fed = parsed(one, monkeypatch)
    for _ in range(3):
        one.data_received(post(b"abc", *head))
    assert len(fed) == 3
    assert line.sent.count(b"HTTP/1.1 200") == 3


def test_only_one_whole_request_of_todays_http_is_known_by_its_head():
    asked = Request("POST", "/", "", {b"content-length": b"3"})
    data = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    known = known_head(data, asked, False)
    assert known.request(data).body == b"abc"
    assert known_head(data, asked, True) is None
    assert known_head(data + b"P", asked, False) is None
    assert known_head(data[:-1], asked, False) is None
    assert known_head(data, Request("GET", "/", "", {}), False) is None
    for name in (b"upgrade", b"expect", b"transfer-encoding"):
        more = Request("POST", "/", "", {**asked.headers, name: b"x"})
        assert known_head(data, more, False) is None


REQUESTS = st.sampled_from(
    [
        post(b"abc"), post(b"def"), post(b"\r\n\r\n"), post(b""), post(b"P" * 199), post(b"P" * 201),
        post(b"abc", "Connection: keep-alive"), post(b"abc", "Connection: close"), post(b"abc", version="1.0"),
        post(b"abc", "Content-Length: 3"), post(b"abc", "Expect: 100-continue"), post(b"abc", "Upgrade: h2c"),
        post(b"abc", "Upgrade: h2c", "Connection: upgrade"), b"\r\n" + post(b"abc"), post(b"abc", "X: " + "y" * 500),
        b"GET /there HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /here HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ]
)  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS)
@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(REQUESTS, st.lists(st.integers(0, 60), max_size=2)), max_size=8), st.booleans())
def test_any_stream_is_answered_as_if_no_head_were_known(parser, asked, joined):
    pieces = []
    for data, cuts in asked:
        at = 0
        for cut in sorted(cuts):
            pieces.append(data[at:cut])
            at = max(at, cut)
        pieces.append(data[at:])
    if joined:
        pieces = [b"".join(pieces[at : at + 2]) for at in range(0, len(pieces), 2)]
    told = []
    for forgetful in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http1, "make_parser", PARSERS[parser])
            if forgetful:
                patch.setattr(Connection, "_again", lambda self, data, known: False)
            line, edge = Line(), Edge(lambda request: echo, refused, LIMITS, Counters())
            one = Connection(edge)
            one.connection_made(line)
            for piece in filter(None, pieces):
                if not line.closed:
                    one.data_received(piece)
            told.append((line.sent, line.closed, edge.counters.counts, edge.buffered, one._stage))
    assert told[0] == told[1]

"""HTTP/1.1 byte by byte: every limit has its own answer and its own counter, and no client harms another."""

import gzip
import json
import socket
import ssl
import threading
import time
from dataclasses import replace

import pytest
from edgekit_runtime import parsing
from edgekit_runtime.limits import Limits
from edgekit_runtime.service import Policy, Service

from tests.runtime.live import live, pair, post, two
from tests.waiting import until

pytestmark = pytest.mark.slow

INFER = "/v2/models/m/infer"
LIMITS = Limits(
    body=100_000, buffered=250_000, chunks=50, url=500, headers=20, header_bytes=2000, header_seconds=0.6,
    body_seconds=0.6, idle_seconds=0.6, connections=12, per_address=8, depth=20, values=1000,
)  # fmt: skip


def same(feeds):
    return {"y": feeds["x"]}


@pytest.fixture(scope="module", params=["httptools", "h11"])
def served(request):
    """A server with tight limits, by either parser."""
    made = parsing.make_parser
    if request.param == "h11":
        parsing_h11 = parsing._H11
        from edgekit_runtime import http1

        http1.make_parser = parsing_h11
    with live(Service([pair(same)], None, Policy(limits=LIMITS))) as one:
        yield one
    if request.param == "h11":
        http1.make_parser = made


def patient(**more):
    """A server like `served`, by the same parser, that lets nobody go while a busy machine gets things ready."""
    times = {"header_seconds": 60, "body_seconds": 60, "idle_seconds": 60} | more
    return live(Service([pair(same)], None, Policy(limits=replace(LIMITS, **times))))


def connections(one):
    return len(one.server.edges[0].connections)


def status(answer):
    assert answer, "the server said nothing"
    return int(answer.split(b" ")[1])


def refused(served, reason):
    return served.counted("edgekit_refused_total", reason)


def get(path="/v2/health/live", *more, version="1.1"):
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: x", *more, "", ""]).encode()


def chunked(*pieces, more=()):
    head = "\r\n".join([f"POST {INFER} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *more, "", ""]).encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        (post(INFER, b" " * 100_001), 413, "body"),
        (chunked(*[b" " * 20_000] * 6), 413, "body"),
        (chunked(*[b" "] * 60), 413, "chunks"),
        (get("/" + "x" * 600), 414, "url"),
        (get("/v2", *[f"h{n}: x" for n in range(30)]), 431, "headers"),
        (get("/v2", "long: " + "x" * 3000), 431, "headers"),
        (post(INFER, gzip.compress(b" " * 200_000), "Content-Encoding: gzip"), 413, "unpacked"),
        (post(INFER, b"x", "Content-Encoding: br"), 415, "encoding"),
        (post(INFER, b"[" * 50 + b"]" * 50), 400, "depth"),
        (post(INFER, b'{"inputs":[' + b"1," * 2000 + b"1]}"), 413, "values"),
        (b"nonsense\r\n\r\n", 400, "malformed"),
        (post(INFER, two(), "Expect: a-miracle"), 417, "http_417"),
        (get("/v2/health/live", "Content-Length: 3", "Content-Length: 4"), 400, None),
        (b"GET / HTTP/1.1\r\n\r\n", 400, None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, None),
        (b"GET / HTTP/2.7\r\nHost: x\r\n\r\n", 505, None),
        (b"DELETE /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "verb"),
    ],
)
def test_each_limit_has_its_own_status_and_counter(served, asked, code, reason):
    before = 0 if reason is None else refused(served, reason)
    got = status(served.raw(asked, leave=True))
    if code == 505 and got == 400:  # a parser may already refuse the version
        return
    assert got == code
    if reason is not None:
        assert refused(served, reason) == before + 1
    assert served.ask(INFER, two())[0] == 200


@pytest.mark.parametrize("length", ["-1", "1e9", "99999999999999999999", "two", "+5", "0x10"])
def test_a_content_length_that_is_none_is_refused(served, length):
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    assert status(served.raw(head, b"x", leave=True)) in (400, 413)


@pytest.mark.parametrize(
    "smuggled",
    [
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\0: c\r\n\r\n",
    ],
)
def test_a_request_that_two_servers_could_read_differently_is_refused(served, smuggled):
    assert status(served.raw(smuggled.encode(), leave=True)) in (400, 501)


def test_a_head_that_dribbles_is_cut_off_with_408(served):
    before, start = refused(served, "head_seconds"), time.perf_counter()
    assert status(served.raw(b"GET /v2 HTTP/1.1\r\nHost")) == 408
    assert time.perf_counter() - start < 15
    assert refused(served, "head_seconds") == before + 1


def test_a_body_that_dribbles_is_cut_off_with_408_whatever_comes_meanwhile(served):
    start = time.perf_counter()
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(post(INFER, b" " * 1000)[:-1000])
        answer = b""
        connection.settimeout(0.05)
        while not answer and time.perf_counter() - start < 15:
            try:
                connection.sendall(b" ")
                answer = connection.recv(65536)
            except TimeoutError:
                pass
    assert status(answer) == 408


def test_a_client_that_says_nothing_is_let_go(served):
    start = time.perf_counter()
    assert served.raw() == b""
    assert time.perf_counter() - start < 15


def test_an_idle_connection_is_let_go_and_one_in_use_is_kept(served):
    with patient(idle_seconds=1.5) as one, socket.create_connection(one.address, timeout=20) as connection:
        for _ in range(4):
            connection.sendall(get())
            assert status(connection.recv(65536)) == 200
            time.sleep(0.5)
        assert connection.recv(65536) == b""


def test_too_many_connections_are_told_to_come_back(served):
    with patient() as one:
        held = [socket.create_connection(one.address, timeout=20) for _ in range(8)]
        until(lambda: connections(one) == 8)
        answer = one.raw(get())
        assert status(answer) == 503
        assert b"retry-after: 1" in answer
        assert refused(one, "connections_per_address") == 1
        for connection in held:
            connection.close()
        until(lambda: connections(one) == 0)
        assert one.ask(INFER, two())[0] == 200


def test_bodies_of_all_clients_together_are_bounded(served):
    with patient() as one:
        held = [socket.create_connection(one.address, timeout=20) for _ in range(3)]
        for connection in held:
            connection.sendall(post(INFER, b" " * 90_000)[:-10])
        until(lambda: refused(one, "buffered"))
        assert status(one.raw(post(INFER, b" " * 90_000))) == 503
        assert refused(one, "buffered") == 2
        for connection in held:
            connection.close()
        until(lambda: all(edge.buffered == 0 for edge in one.server.edges))
        assert one.ask(INFER, two())[0] == 200


def test_requests_in_one_packet_are_answered_in_their_order(served):
    answer = served.raw(get("/v2") + post(INFER, two(5, 6), close=False) + post(INFER, two(7, 8)))
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.index(b"edgekit-runtime") < answer.index(b"[5.0,6.0]") < answer.index(b"[7.0,8.0]")


def test_a_bad_request_behind_good_ones_is_answered_last(served):
    answer = served.raw(get("/v2") + b"nonsense\r\n\r\n", leave=True)
    assert answer.index(b" 200 ") < answer.index(b" 400 ")
    assert b"connection: close" in answer


def test_http_1_0_is_answered_and_kept_open_only_where_it_asks(served):
    assert b"connection: close" in served.raw(get(version="1.0"))
    with socket.create_connection(served.address, timeout=20) as connection:
        for _ in range(2):
            connection.sendall(get("/v2", "Connection: keep-alive", version="1.0"))
            assert b"connection: keep-alive" in connection.recv(65536)


def test_expect_continue_is_told_to_go_on_and_a_body_too_large_is_not(served):
    with socket.create_connection(served.address, timeout=20) as connection:
        body = two()
        whole = post(INFER, body, "Expect: 100-continue")
        connection.sendall(whole[: -len(body)])
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert status(connection.recv(65536)) == 200
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\nExpect: 100-continue\r\n\r\n".encode()
    assert status(served.raw(head)) == 413


def test_an_offer_of_another_protocol_is_answered_in_this_one(served):
    body = two(3, 4)
    answer = served.raw(
        post(INFER, body, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA", close=False),
        post(INFER, two(5, 6)),
    )
    assert answer.count(b" 200 ") == 2
    assert b"[5.0,6.0]" in answer


@pytest.mark.parametrize("target", ["http://x/v2/models?a=b", "HTTP://x:80/v2/models", "https://x/v2/models"])
def test_a_target_as_proxies_get_it_is_understood(served, target):
    answer = served.raw(get(target, "Connection: close"))
    assert status(answer) == 200
    assert b'"models"' in answer


def test_options_of_everything_is_answered(served):
    answer = served.raw(get("*", "Connection: close").replace(b"GET", b"OPTIONS", 1))
    assert status(answer) == 200
    assert b"allow: GET" in answer


def test_head_is_get_without_its_body(served):
    answer = served.raw(get("/v2/models", "Connection: close").replace(b"GET", b"HEAD", 1))
    assert status(answer) == 200
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in answer


def test_options_tells_what_is_allowed(served):
    answer = served.raw(get(INFER, "Connection: close").replace(b"GET", b"OPTIONS", 1))
    assert b"allow: OPTIONS, POST" in answer


def test_a_client_that_closes_its_side_still_gets_its_answer(served):
    assert status(served.raw(post(INFER, two(), close=False), leave=True)) == 200


def test_a_client_that_leaves_within_its_body_harms_nobody(served):
    before = served.counted("edgekit_clients_gone_total")
    assert served.raw(post(INFER, b" " * 1000)[:-500], leave=True) == b""
    until(lambda: served.counted("edgekit_clients_gone_total") == before + 1)
    assert served.ask(INFER, two())[0] == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip;q=0, deflate", "*"])
def test_answers_are_packed_where_the_client_takes_that(served, coding):
    import zlib

    got, text, headers = served.ask(INFER, two(rows=100), Accept_Encoding=coding)
    said = headers["content-encoding"]
    assert (got, said) == (200, "deflate" if "deflate" in coding else "gzip")
    plain = gzip.decompress(text) if said == "gzip" else zlib.decompress(text)
    assert json.loads(plain)["outputs"][0]["shape"] == [100, 2]


@pytest.mark.parametrize("coding", ["identity", "br", "gzip;q=0", "*;q=0"])
def test_answers_are_plain_where_the_client_does_not(served, coding):
    assert served.ask(INFER, two(rows=100), Accept_Encoding=coding)[2]["content-encoding"] is None


def test_only_inferences_are_packed_for_one_client_unpacks_nothing_else(served):
    assert served.ask("/v2/openapi.json", Accept_Encoding="gzip, deflate")[2]["content-encoding"] is None


def test_every_request_is_accounted_for(served):
    until(lambda: connections(served) == 0)
    begun = served.counted("edgekit_http_requests_begun_total")
    sent = served.server.counters.total("edgekit_http_requests_total")
    gone = served.counted("edgekit_clients_gone_total")
    answers = 0
    for asked in (
        get("/v2", "Connection: close"),
        post(INFER, two()),
        post(INFER, b"{"),
        get("/no", "Connection: close"),
    ):
        answers += served.raw(asked).count(b"HTTP/1.1 ")
    served.raw(post(INFER, b" " * 10)[:-5], leave=True)
    until(lambda: connections(served) == 0)
    assert served.counted("edgekit_http_requests_begun_total") - begun == 5
    assert served.server.counters.total("edgekit_http_requests_total") - sent == answers == 4
    assert served.counted("edgekit_clients_gone_total") - gone == 1


def test_a_model_that_takes_long_delays_neither_health_nor_another_model():
    go, started = threading.Event(), threading.Event()

    def slow(feeds):
        started.set()
        assert go.wait(60)
        return same(feeds)

    with live(Service([pair(slow, "slow"), pair(same)])) as one:
        first = threading.Thread(target=one.ask, args=("/v2/models/slow/infer", two()))
        first.start()
        assert started.wait(10)
        for path, data in (("/v2/health/ready", None), (INFER, two())):
            assert one.ask(path, data)[0] == 200
            assert not go.is_set()
        go.set()
        first.join()


def test_a_client_that_left_the_queue_is_not_computed_for():
    go, seen = threading.Event(), []

    def slow(feeds):
        seen.append(float(feeds["x"][0, 0]))
        go.wait(20)
        return same(feeds)

    with live(Service([pair(slow)])) as one:
        first = threading.Thread(target=one.ask, args=(INFER, two(1, 0)))
        first.start()
        until(lambda: seen)
        with socket.create_connection(one.address) as connection:
            connection.sendall(post(INFER, two(2, 0)))
            until(lambda: one.server.service.find("m").waiting == 1)
        until(lambda: one.counted("edgekit_clients_gone_total") == 1)
        go.set()
        first.join()
        assert one.ask(INFER, two(3, 0))[0] == 200
        assert seen == [1, 3]
        assert one.counted("edgekit_clients_gone_total") == 1


def test_a_bug_is_logged_whole_and_answered_without_internals(caplog):
    def run(feeds):
        raise RuntimeError("/secret/path")

    with live(Service([pair(run), pair(same, "n")])) as one:
        got, text, _ = one.ask(INFER, two())
        assert (got, json.loads(text)["error"]) == (500, "internal error")
        assert b"secret" not in text
        assert "/secret/path" in caplog.text
        assert "Traceback" in caplog.text
        assert one.ask("/v2/models/n/infer", two())[0] == 200


def test_the_deadline_of_the_server_and_of_the_client_are_kept():
    go = threading.Event()

    def slow(feeds):
        go.wait(20)
        return same(feeds)

    asked = json.loads(two()) | {"parameters": {"timeout": 50_000}}
    for seconds, body in ((0.3, two()), (60.0, json.dumps(asked).encode())):
        go.clear()
        with live(Service([pair(slow)], None, Policy(limits=Limits(deadline=seconds)))) as one:
            assert one.ask(INFER, body)[0] == 504
            go.set()


def test_a_server_that_ends_answers_what_is_under_way():
    begun = threading.Event()

    def slow(feeds):
        begun.set()
        time.sleep(0.5)
        return same(feeds)

    got = []
    with live(Service([pair(slow)])) as one:
        first = threading.Thread(target=lambda: got.append(one.ask(INFER, two())[0]))
        first.start()
        assert begun.wait(20)
    first.join()
    assert got == [200]


def test_tls_of_an_old_version_is_not_spoken(tmp_path):
    from edgekit_runtime.serving import Guard
    from edgekit_runtime.tls import TlsFiles

    from tests.runtime.certificates import make

    paths = make(tmp_path)
    with live(Service([pair(same)]), guard=Guard(None, TlsFiles(paths.cert, paths.key))) as one:
        host, port = one.at["http"].split("//")[1].split(":")
        context = ssl.create_default_context(cafile=paths.ca)
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(get("/v2", "Connection: close"))
            assert status(secure.recv(65536)) == 200
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        with socket.create_connection((host, int(port))) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain, server_hostname="localhost")

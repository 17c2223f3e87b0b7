"""A browser asks for its own user here, or for nobody: pages from elsewhere and bent names are refused.

Refuses nothing itself."""

import base64

import pytest
from edgekit_runtime.browsers import refuse_strangers
from edgekit_runtime.errors import Forbidden
from edgekit_runtime.service import Service
from edgekit_runtime.serving import Guard
from edgekit_runtime.tokens import Tokens, add_token

from tests.runtime.live import live, pair, post, two

BROWSER = b"Mozilla/5.0 (X11; Linux aarch64)"


@pytest.mark.parametrize("host", [b"localhost", b"localhost:8000", b"pi.localhost:8000", b"127.0.0.1:8000", b"[::1]:80",
                                  b"[::1]", b"192.168.1.20:8000"])  # fmt: skip
def test_a_browser_may_come_by_address_and_by_localhost(host):
    refuse_strangers({b"host": host, b"user-agent": BROWSER}, tokens=False)
    refuse_strangers({b"host": host, b"user-agent": BROWSER, b"origin": b"http://" + host}, tokens=False)


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:8000", b"127.0.0.1.evil.example", b"", b":8000",
                                  b"localhost.evil.example", b"[evil]", b"evil.example:"])  # fmt: skip
def test_a_name_that_was_bent_to_this_machine_is_refused(host):
    with pytest.raises(Forbidden, match="localhost"):
        refuse_strangers({b"host": host, b"user-agent": BROWSER}, tokens=False)


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"https://localhost:9000", b"file://", b""])
@pytest.mark.parametrize("tokens", [True, False])
def test_a_page_from_elsewhere_may_not_ask(origin, tokens):
    with pytest.raises(Forbidden, match="page from elsewhere"):
        refuse_strangers({b"host": b"localhost:8000", b"origin": origin}, tokens)


def test_programs_may_name_the_host_as_they_like():
    refuse_strangers({b"host": b"pi.workshop:8000", b"user-agent": b"curl/8"}, tokens=False)
    refuse_strangers({b"host": b"pi.workshop:8000"}, tokens=False)


def test_where_a_token_is_asked_for_any_name_will_do():
    refuse_strangers({b"host": b"pi.workshop", b"user-agent": BROWSER, b"origin": b"https://pi.workshop"}, tokens=True)


@pytest.mark.slow
def test_a_hostile_page_neither_reads_the_status_nor_tells_feedback_nor_asks_a_model():
    with live(Service([pair(lambda feeds: {"y": feeds["x"]})])) as server:
        bent = ("User-Agent: Mozilla/5.0", "Host: evil.example:8000")
        for path in ("/status", "/metrics", "/v2/models"):
            told = server.raw(f"GET {path} HTTP/1.1\r\n{bent[0]}\r\n{bent[1]}\r\nConnection: close\r\n\r\n".encode())
            assert told.startswith(b"HTTP/1.1 403"), path
        for path in ("/feedback", "/v2/models/m/infer"):
            told = server.raw(post(path, two(), "Origin: http://evil.example"))
            assert told.startswith(b"HTTP/1.1 403"), path
        assert server.lanes_answered() == 0


@pytest.mark.slow
def test_a_browser_gives_the_token_as_a_password(tmp_path):
    secret = add_token(tmp_path / "tokens", "me", ["metrics"])
    with live(Service([]), guard=Guard(Tokens(tmp_path / "tokens"))) as server:
        status, _, headers = server.ask("/", Accept="text/html,*/*")
        assert status == 401
        assert 'Basic realm="edgekit"' in headers.get_all("WWW-Authenticate")
        assert server.ask("/", Accept="TEXT/HTML")[0] == 401
        named = base64.b64encode(f"anybody:{secret}".encode()).decode()
        assert server.ask("/", Accept="text/html", Authorization=f"Basic {named}")[0] == 200
        assert server.ask("/status", Authorization=f"Basic {named}")[0] == 200
        wrong = base64.b64encode(b"anybody:ek_wrong").decode()
        for header in (f"Basic {wrong}", "Basic !!!", "Basic", f"Basic {base64.b64encode(secret.encode()).decode()}"):
            assert server.ask("/status", Authorization=header)[0] == 401, header
        assert server.ask("/")[0] == 200  # KServe's client asks whether we are alive, without a token


@pytest.mark.slow
def test_a_password_that_is_not_enough_is_asked_for_again_and_a_program_is_told_so(tmp_path):
    less = add_token(tmp_path / "tokens", "less", ["infer"])
    looks = add_token(tmp_path / "tokens", "looks", ["metrics"])
    with live(Service([pair(lambda feeds: feeds)]), guard=Guard(Tokens(tmp_path / "tokens"))) as server:
        for path, body, secret in (
            ("/", None, less), ("/status", None, less), ("/metrics", None, less), ("/v2/models/m/infer", two(), looks),
        ):  # fmt: skip
            typed = base64.b64encode(f"me:{secret}".encode()).decode()
            for basic in ("Basic", "basic"):
                status, told, headers = server.ask(path, body, Accept="text/html", Authorization=f"{basic} {typed}")
                assert status == 401, path
                assert 'Basic realm="edgekit"' in headers.get_all("WWW-Authenticate"), path
                assert "use a token with the scope" in told.decode()
            status, _, headers = server.ask(path, body, Accept="text/html", Authorization=f"Bearer {secret}")
            assert (status, headers["WWW-Authenticate"]) == (403, None), path
        assert server.counted("edgekit_refused_total", "forbidden") == 12


@pytest.mark.slow
def test_the_pages_scripts_that_send_no_password_do_not_make_the_browser_ask(tmp_path):
    add_token(tmp_path / "tokens", "me", ["metrics"])
    gone = base64.b64encode(b"me:ek_gone").decode()
    with live(Service([]), guard=Guard(Tokens(tmp_path / "tokens"))) as server:
        for headers in ({}, {"Authorization": f"Basic {gone}"}):
            status, _, found = server.ask("/status", **headers)
            assert (status, found.get_all("WWW-Authenticate")) == (401, ['Bearer realm="edgekit"'])

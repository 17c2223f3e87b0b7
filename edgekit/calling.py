"""One server as a person names it, and HTTP calls to it: over TCP, TLS or a Unix-domain socket, on one connection.

Refuses addresses that are none, redirects and endless answers; every way to fail says what to type instead."""

import http.client
import os
import re
import socket
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from edgekit_runtime.errors import EdgeKitError

PORT = 8000
"""Where `edgekit-runtime serve` listens, if nothing else is said."""
LARGEST = 2**30
EXAMPLE = "say http://HOST:8000, http://HOST:8000/NAME or unix:/run/edgekit.sock"


@dataclass(frozen=True)
class Place:
    """Where a server is (`path` is a socket's, else `host` and `port`), and which of its models is meant."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    name: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True)
class Access:
    """What a server may ask for: a token, a CA to know it by, a client certificate; and how long to wait."""

    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.token is not None and not re.fullmatch("[!-~]{1,4096}", self.token):
            raise EdgeKitError("the token is not one line of plain characters", hint="write nothing else into its file")


@dataclass(frozen=True)
class Answer:
    """What came back; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Ask = Callable[[str, str, bytes | None, Mapping[str, str]], Answer]
"""Verb, path, body, headers."""


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        EdgeKitError: it does not read.
    """
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeKitError(f"no token in {path}", hint="write the token, and nothing else, into the file") from error
    if len(found.split()) > 1:  # the server's own file is easily taken for it
        raise EdgeKitError(
            f"{path} holds more than a token",
            hint="write into it, alone, what `edgekit-runtime token new` printed; the server's file holds only hashes",
        )
    return found


def parse_place(text: str) -> Place:
    """The place that a person means by `text`.

    Raises:
        EdgeKitError: it is no address.
    """
    if text.startswith("unix:"):
        return _socket(text.removeprefix("unix:").removeprefix("//"))
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError as error:
        raise EdgeKitError(f"{text[:200]!r} is no address: {error}", hint=EXAMPLE) from error
    if parts.scheme == "http+unix":
        return _socket(unquote(parts.netloc) + unquote(parts.path))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise EdgeKitError(f"{text[:200]!r} is no address of a server", hint=EXAMPLE)
    if re.search(r"[\s\0-\x1f\x7f]", parts.hostname):
        raise EdgeKitError(f"{parts.hostname!r} is no name of a host", hint=EXAMPLE)
    if parts.username is not None:
        raise EdgeKitError("a name or password in the address is not sent", hint="say --token FILE")
    usual = (443 if parts.scheme == "https" else 80) if "://" in text else PORT
    return Place(parts.scheme, parts.hostname, usual if port is None else port, "", *_model(parts))


@contextmanager
def calling(place: Place, access: Access) -> Iterator[Ask]:
    """A function that asks the server and gives its answer, whatever its status; the connection is kept.

    Raises:
        EdgeKitError: there is no server, it is not to be trusted, it is silent, or it does not speak HTTP.
    """
    kept: list[http.client.HTTPConnection] = []

    def ask(verb: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        sent = {"User-Agent": "edgekit", "Accept": "application/json, application/octet-stream", **headers}
        if access.token:
            sent["Authorization"] = f"Bearer {access.token}"
        again = bool(kept)
        try:
            if not kept:
                kept.append(_connect(place, access))
            try:
                return _answer(kept[0], verb, path, body, sent)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not again:
                    raise
            kept.pop().close()  # the server closed a connection that was idle: that is no answer to this request
            kept.append(_connect(place, access))
            return _answer(kept[0], verb, path, body, sent)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise _trouble(error, place, access) from error

    try:
        yield ask
    finally:
        for connection in kept:
            connection.close()


def _socket(text: str) -> Place:
    """The longest beginning of `text` that is a socket; what follows names the model."""
    pieces = text.split("/")
    for count in range(len(pieces), 0, -1):
        path = "/".join(pieces[:count])
        try:
            found = stat.S_ISSOCK(os.stat(path).st_mode)
        except (OSError, ValueError):
            continue
        if found:
            name, version = _named([unquote(piece) for piece in pieces[count:] if piece])
            return Place("unix", path=path, name=name, version=version)
    raise EdgeKitError(f"no socket at {text[:200]!r}", hint="start edgekit-runtime serve BUNDLE --unix PATH")


def _model(parts: SplitResult) -> tuple[str | None, str | None]:
    return _named([unquote(piece) for piece in parts.path.split("/") if piece])


def _named(pieces: list[str]) -> tuple[str | None, str | None]:
    """NAME[/VERSION], or the path of the v2 protocol that says the same."""
    if pieces[:2] == ["v2", "models"]:
        pieces = [piece for piece in pieces[2:] if piece not in ("versions", "infer", "ready")]
    elif pieces == ["v2"]:
        pieces = []
    if len(pieces) > 2:
        raise EdgeKitError(f"/{'/'.join(pieces)[:200]} names no model", hint="say URL/NAME or URL/NAME/VERSION")
    return (*pieces, None, None)[:2]  # type: ignore[return-value]


def _connect(place: Place, access: Access) -> http.client.HTTPConnection:
    if place.path:
        connection = http.client.HTTPConnection("localhost", timeout=access.timeout)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(access.timeout)
        connection.sock.connect(place.path)
        return connection
    if place.scheme == "http":
        return http.client.HTTPConnection(place.host, place.port, timeout=access.timeout)
    return http.client.HTTPSConnection(place.host, place.port, timeout=access.timeout, context=_trust(access))


def _trust(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca)
    except (OSError, ssl.SSLError) as error:
        raise EdgeKitError(
            f"{access.ca} holds no certificates in PEM", hint="give the CA's own file to --ca"
        ) from error
    try:
        if access.cert is not None:
            context.load_cert_chain(access.cert)
    except (OSError, ssl.SSLError) as error:
        raise EdgeKitError(
            f"{access.cert} holds no certificate with its key in PEM", hint="put both into the file, without a password"
        ) from error
    return context


def _answer(
    connection: http.client.HTTPConnection, verb: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    try:
        connection.request(verb, path, body, dict(headers))
    except (BrokenPipeError, ConnectionResetError):
        if connection.sock is None:
            raise
        # a server that refuses a body early has answered before all of it was sent
    response = connection.getresponse()
    whole = response.read(LARGEST + 1)
    if len(whole) > LARGEST:
        raise EdgeKitError("the answer has no end", hint="ask for fewer outputs")
    found = Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, whole)
    if 300 <= found.status < 400:
        where = found.headers.get("location", "elsewhere")[:200]
        raise EdgeKitError(f"the server sends us on to {where}", hint="say that address, if you trust it")
    return found


def _trouble(error: Exception, place: Place, access: Access) -> EdgeKitError:
    """What went wrong between here and the server, and what to type instead."""
    match error:
        case ssl.SSLError():
            return _distrust(error, place, access)
        case ConnectionRefusedError():
            hint = f"start it there: edgekit-runtime serve BUNDLE; or give its port (usually :{PORT})"
            return EdgeKitError(f"nothing listens at {place}", hint=hint)
        case TimeoutError():
            hint = "look whether the host is up and the port right, or give it longer with --timeout"
            return EdgeKitError(f"no answer from {place} within {access.timeout:g} s", hint=hint)
        case socket.gaierror() | UnicodeError():
            return EdgeKitError(
                f"no host called {place.host!r} is known", hint="check the name, or give its IP address"
            )
        case PermissionError():
            return EdgeKitError(f"no right to connect to {place}", hint="ask who runs it for the socket's group")
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            other = f"; if it serves TLS, say {str(place).replace('http:', 'https:')}" if place.scheme == "http" else ""
            return EdgeKitError(f"{place} closed the connection without an answer", hint=f"look into its log{other}")
        case http.client.BadStatusLine() if "\x15\x03" in str(error) or "HTTPS" in str(error):
            return EdgeKitError(f"{place} speaks TLS", hint=f"say {str(place).replace('http:', 'https:')}")
        case http.client.HTTPException():
            return EdgeKitError(
                f"what answers at {place} does not speak HTTP",
                hint=f"give the port of HTTP (usually :{PORT}), not that of gRPC",
            )
    return EdgeKitError(f"cannot reach {place}: {error.strerror if isinstance(error, OSError) else error}",
                        hint="check the address and the network")  # fmt: skip


def _distrust(error: ssl.SSLError, place: Place, access: Access) -> EdgeKitError:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or "it does not verify"
        names = "mismatch" in why
        hint = "say a host name that the certificate has" if names else "give the CA that signed it: --ca FILE"
        return EdgeKitError(f"the certificate of {place} is not trusted: {why}", hint=hint)
    reason = error.reason or ""
    if "WRONG_VERSION" in reason or "HTTP_REQUEST" in reason or "RECORD_LAYER" in reason:
        return EdgeKitError(f"{place} does not speak TLS", hint=f"say {str(place).replace('https:', 'http:')}")
    if "CERTIFICATE_REQUIRED" in reason or ("HANDSHAKE" in reason and access.cert is None):
        return EdgeKitError(f"{place} wants a client's certificate", hint="say --cert FILE, with its key in it")
    if isinstance(error, ssl.SSLEOFError):
        return EdgeKitError(
            f"{place} closed the connection",
            hint="if it asks for a client's certificate, say --cert FILE with one that its CA signed",
        )
    if "ALERT" in reason and access.cert is not None:
        return EdgeKitError(f"{place} does not take this certificate", hint="use one that its client CA signed")
    return EdgeKitError(f"TLS with {place} failed: {reason or error}", hint="check the port, --ca and --cert")

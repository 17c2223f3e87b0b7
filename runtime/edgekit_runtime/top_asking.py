"""Asks a server for its state: over HTTP, HTTPS or a Unix socket.

Refuses an address that does not read, a server that does not answer in time, and an answer that is no state."""

import json
import socket
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgekit_runtime.addresses import unix_address
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.top_rates import Look

PATH = "/status"
TIMEOUT = 5.0
LARGEST = 16 * 2**20


class _Unix(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


def look(place: str, token: str = "", ca: Path | None = None) -> Look:
    """Ask the server at a URL, HOST:PORT or unix:PATH once; `ca` is a file of certificates to trust.

    Raises:
        EdgeKitError: it does not answer, or not this.
    """
    connection, path, name = _connection(place, ca)
    headers = {"Accept": "application/json", "Connection": "close"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(LARGEST + 1)
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "start it: edgekit-runtime serve BUNDLE; or name its URL or unix:PATH"
        raise EdgeKitError(f"no answer from {name}: {why}", hint) from error
    finally:
        connection.close()
    if status in (401, 403):
        raise EdgeKitError(f"{name} asks for a token that allows metrics", "say --token FILE, or set EDGEKIT_TOKEN")
    found = _object(body) if status == 200 else None
    if found is None or not isinstance(found.get("models"), list):
        raise EdgeKitError(f"{name} does not tell its state (HTTP {status})", "name a server of edgekit-runtime")
    return Look(found, time.monotonic())


def _connection(place: str, ca: Path | None) -> tuple[HTTPConnection, str, str]:
    """A connection that is not open yet, the path to ask for, and the server's name for a person."""
    if place.startswith("unix:"):
        return _Unix(unix_address(Path(place.removeprefix("unix:"))).path or Path()), PATH, place
    try:
        parts = urlsplit(place if "://" in place else f"http://{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    strange = not (host or " ").isprintable() or " " in (host or " ") or parts.query or parts.username
    if parts.scheme not in ("http", "https") or not host or strange:
        raise EdgeKitError(f"{place!r} is no server's address", hint="say http://HOST:PORT or unix:PATH")
    path, name = parts.path.rstrip("/") + PATH, f"{parts.scheme}://{parts.netloc}"
    if parts.scheme == "http":
        return HTTPConnection(host, port, timeout=TIMEOUT), path, name
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise EdgeKitError(f"{ca} holds no certificate", hint="name a file in PEM") from error
    return HTTPSConnection(host, port, timeout=TIMEOUT, context=context), path, name


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body, parse_constant=lambda name: None) if len(body) <= LARGEST else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

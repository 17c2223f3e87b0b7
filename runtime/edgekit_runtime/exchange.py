"""One HTTP exchange as values: what was asked, what is answered. No sockets, no models.

Refuses nothing; `Refused` is an answer that no other error here stands for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.errors import EdgeKitError

Headers = list[tuple[bytes, bytes]]
JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")


@dataclass(slots=True)
class Request:
    """`path` is percent-decoded, without the query; header names are lower-case; `body` is unpacked."""

    verb: str
    path: str
    query: str = ""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    def content_type(self) -> bytes:
        """The media type alone, in lower case; empty where none is said."""
        return self.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()


@dataclass(slots=True)
class Response:
    """What goes out; the edge adds Content-Length, Connection and Content-Encoding."""

    status: int = 200
    body: bytes = b""
    headers: Headers = field(default_factory=list)


class Refused(EdgeKitError):
    """An answer of HTTP alone: its `status`, and `headers` to send with it. `limit` names the limit that was met."""

    def __init__(self, status: int, what: str, hint: str = "", headers: Headers | None = None, limit: str = "") -> None:
        super().__init__(what, hint)
        self.status = status
        self.headers = headers or []
        self.reason = limit or f"http_{status}"


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as a JSON body."""
    return Response(status, json.dumps(value, separators=(",", ":")).encode(), [JSON])

"""A request's head that came before: one that comes again, byte for byte, needs no parser. Pure.

Refuses heads that say more than where to, what and how much: no upgrades, no expectations, no chunks."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit_runtime.exchange import Request

END = b"\r\n\r\n"
OTHERWISE = (b"upgrade", b"expect", b"transfer-encoding")
"""Headers by which more happens than that a body of a known length is read."""


@dataclass(frozen=True, slots=True)
class KnownHead:
    """The bytes of a head, all that was read in it, and the size of the whole request."""

    text: bytes
    size: int
    verb: str
    target: tuple[str, str]
    headers: Mapping[bytes, bytes]

    def request(self, data: bytes) -> Request:
        """The request in `data`, which begins with `text` and is as long as `size`."""
        return Request(self.verb, *self.target, self.headers, data[len(self.text) :])


def known_head(data: bytes, request: Request, old: bool) -> KnownHead | None:
    """The head of a request that was read from `data`; None where `data` is not that request alone, or it is `old`
    HTTP, or its head says what has to be read each time."""
    end = data.find(END) + len(END)
    headers = request.headers
    length = headers.get(b"content-length", b"")
    if old or end < len(END) or not length.isdigit() or len(data) != end + int(length):
        return None
    if any(name in headers for name in OTHERWISE):
        return None
    return KnownHead(data[:end], len(data), request.verb, (request.path, request.query), headers)

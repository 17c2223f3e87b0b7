"""The body of an HTTP request, read within bounds: bytes, unpacked bytes, seconds.

Refuses more than the cap before holding it, a Content-Length that is none, and encodings it cannot unpack."""

import asyncio
import contextlib
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from edgekit_runtime.errors import BadRequest, Refused

WINDOWS = {b"gzip": zlib.MAX_WBITS | 16, b"x-gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}
CLOSE = {"connection": "close"}
DRAIN = 64 * 2**20
DRAIN_SECONDS = 5.0

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gone(Exception):
    """The client went away before its body was whole."""


async def read_body(
    headers: Mapping[bytes, bytes],
    receive: Receive,
    limit: int,
    seconds: float,
) -> bytes:
    """The whole body, of at most `limit` bytes, sent within `seconds`.

    Raises:
        Refused: it is too large (413) or too slow (408).
        Gone: the client left.
    """
    announced = headers.get(b"content-length", b"0")
    if not re.fullmatch(rb"\d{1,18}", announced):
        raise BadRequest("Content-Length is not a number of bytes")
    if int(announced) > limit:
        if int(announced) <= limit + DRAIN and b"expect" not in headers:
            await _drain(receive)
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                body += message.get("body", b"")
                if len(body) > limit:
                    body.clear()
                    await _drain(receive)
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise Refused(408, f"the body did not come within {seconds:g} seconds", "send it faster", CLOSE) from error


async def _drain(receive: Receive) -> None:
    """Take and forget what still comes, within bounds: most clients read no answer before all is sent."""
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while taken <= DRAIN:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body without its Content-Encoding; never more than `limit` bytes of it are made."""
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in WINDOWS:
        raise Refused(415, "this Content-Encoding is not supported", "use gzip, deflate or none")
    unpacking = zlib.decompressobj(WINDOWS[encoding])
    try:
        whole = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest("the body does not unpack") from error
    if len(whole) > limit:
        raise _too_large(limit)
    if not unpacking.eof or unpacking.unused_data:
        raise BadRequest("the packed body is cut off or has bytes after its end")
    return whole


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body is larger than {limit} bytes", "send less at once", CLOSE)

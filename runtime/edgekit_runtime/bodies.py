"""Content-Encoding: bodies that come packed, and answers that go out so.

Refuses encodings it cannot unpack, bodies that do not unpack, and to make more bytes of one than the cap."""

import re
import zlib

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.exchange import Refused, Response

WINDOWS = {b"gzip": zlib.MAX_WBITS | 16, b"x-gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}
SMALLEST = 256
"""Bytes below which packing an answer saves nothing."""
OFFERED = (b"gzip", b"deflate")


def unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body without its Content-Encoding; never more than `limit` bytes of it are made.

    Raises:
        Refused: the encoding is none of ours (415), or it unpacks to more (413).
        BadRequest: it does not unpack.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in WINDOWS:
        raise Refused(415, "this Content-Encoding is not supported", "use gzip, deflate or none", limit="encoding")
    unpacking = zlib.decompressobj(WINDOWS[encoding])
    try:
        whole = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest("the body does not unpack", hint="pack it with gzip or zlib") from error
    if len(whole) > limit:
        raise Refused(413, f"the body unpacks to more than {limit} bytes", "send less at once", limit="unpacked")
    if not unpacking.eof or unpacking.unused_data:
        raise BadRequest("the packed body is cut off or has bytes after its end")
    return whole


def chosen(accepted: bytes) -> bytes:
    """The encoding to answer in, of those an Accept-Encoding header allows; empty for none."""
    weights = dict(map(_weighed, accepted.lower().split(b",")))
    rest = weights.get(b"*", 0.0)
    best = max(OFFERED, key=lambda name: weights.get(name, rest))
    weight = weights.get(best, rest)
    return best if weight > 0 and weight >= weights.get(b"identity", 0.0) else b""


def packed(response: Response, encoding: bytes) -> Response:
    """The same answer in that encoding."""
    packing = zlib.compressobj(1, zlib.DEFLATED, WINDOWS[encoding])
    body = packing.compress(response.body) + packing.flush()
    headers = [*response.headers, (b"content-encoding", encoding), (b"vary", b"accept-encoding")]
    return Response(response.status, body, headers)


def _weighed(item: bytes) -> tuple[bytes, float]:
    name, _, rest = item.strip().partition(b";")
    found = re.fullmatch(rb"\s*q\s*=\s*(\d(?:\.\d{0,3})?)\s*", rest)
    return name.strip(), float(found[1]) if found else 1.0

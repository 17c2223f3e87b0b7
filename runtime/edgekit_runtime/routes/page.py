"""The page at `/`: one document, its style and its scripts, for a browser; everybody else is told who is alive here.

Refuses to be framed, to load anything from elsewhere, and to run a script that is not one of its own files."""

import hashlib
import re
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.bodies import chosen
from edgekit_runtime.errors import NotFound
from edgekit_runtime.exchange import Request, Response
from edgekit_runtime.routes import Parts, Route
from edgekit_runtime.routes.ours import alive

if TYPE_CHECKING:
    from edgekit_runtime.service import Service

FOLDER = Path(__file__).parent.parent / "page"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    b"media-src blob:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Trusted types: a script that would turn a text into markup is stopped by the browser, whoever wrote it."""
GUARDED = [
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(self), geolocation=()"),
]
FRESH = (b"cache-control", b"no-cache")
KEPT = (b"cache-control", b"private, max-age=31536000, immutable")
HERE = "@here@"
"""Stands in the document for the folder of the other files, which is named for what is in them."""


def routes() -> list[Route]:
    """`/` and the files of the page; to stand before the other routes, which answer `/` without it."""
    return [
        Route("GET", re.compile("/"), "page", tell=_document),
        Route("GET", re.compile(r"/page/(?P<mark>[0-9a-f]{16})/(?P<file>[a-z]{1,20}\.(?:css|js))"), "open", tell=_file),
    ]


def wants_page(accept: bytes) -> bool:
    """Whether an Accept header names HTML, and likes it at least as much as JSON."""
    weights: dict[bytes, float] = {}
    for item in accept.lower().split(b",")[:32]:
        name, _, rest = item.partition(b";")
        weight = re.search(rb"(?:^|;)\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", rest)
        weights[name.strip()] = float(weight[1]) if weight else 1.0
    page = weights.get(b"text/html", 0.0)
    return page > 0 and page >= weights.get(b"application/json", 0.0)


def _document(service: "Service", request: Request, parts: Parts) -> Response:
    if wants_page(request.headers.get(b"accept", b"")):
        return _sent(request, "index.html", FRESH)
    told = alive(service, request, parts)
    told.headers = [*told.headers, (b"vary", b"accept")]
    return told


def _file(service: "Service", request: Request, parts: Parts) -> Response:
    name = str(parts["file"])
    if parts["mark"] != _mark() or name not in _names():
        raise NotFound("this is not a file of the page as it is now", hint="load the page again")
    return _sent(request, name, KEPT)


def _sent(request: Request, name: str, keeping: tuple[bytes, bytes]) -> Response:
    plain, packed = _contents(name)
    headers = [(b"content-type", TYPES[Path(name).suffix]), *GUARDED, keeping, (b"vary", b"accept, accept-encoding")]
    if chosen(request.headers.get(b"accept-encoding", b"")) == b"gzip":
        return Response(200, packed, [*headers, (b"content-encoding", b"gzip")])
    return Response(200, plain, headers)


@lru_cache
def _contents(name: str) -> tuple[bytes, bytes]:
    """The file, plain and packed, read when a browser first asks for it."""
    plain = FOLDER.joinpath(name).read_bytes()
    if name == "index.html":
        plain = plain.replace(HERE.encode(), f"/page/{_mark()}".encode())
    packing = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return plain, packing.compress(plain) + packing.flush()


@lru_cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in FOLDER.iterdir() if path.suffix in TYPES)


@lru_cache
def _mark() -> str:
    """A digest of all files: a new version has new addresses, so a browser may keep each as long as it likes."""
    every = [FOLDER.joinpath(name).read_bytes() for name in sorted(_names())]
    return hashlib.sha256(b"\0".join(every)).hexdigest()[:16]

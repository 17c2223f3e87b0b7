"""Fetch one blob into the cache: hashed while it comes, gone on with after a cut, never a byte more than its size.

Refuses other bytes than those that were named, more of them, and a registry that drips."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import BadBundle, EdgeKitError

from edgekit.oci.answers import Cut
from edgekit.oci.blobs import Blobs
from edgekit.oci.calls import Call, ask, wait
from edgekit.oci.manifest import Descriptor
from edgekit.oci.registry import Repository

if TYPE_CHECKING:
    import requests

PIECE = 2**17
WINDOW, SLOWEST = 60.0, 512
"""Fewer bytes a second than this over so many seconds are too few."""
MOST_CUTS = 200
"""Cuts of one blob after which it is given up, though each brought it further."""
HINT = "do not use this image, or ask who runs the registry"


@dataclass
class _Part:
    """The beginning that is here: its open descriptor, its length, and its digest so far."""

    descriptor: int
    length: int
    digest: Any

    def restart(self) -> None:
        os.ftruncate(self.descriptor, 0)
        self.length, self.digest = 0, hashlib.sha256()

    def add(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[os.pwrite(self.descriptor, view, self.length + len(piece) - len(view)) :]
        self.length += len(piece)
        self.digest.update(piece)


def download(repository: Repository, blob: Descriptor, blobs: Blobs, tell: Callable[[int], None]) -> tuple[Path, int]:
    """The blob as a verified file, and how many bytes had to come for it; `tell` hears how many are here.

    Raises:
        BadBundle: what comes is not what was named.
        EdgeKitError: it cannot be had.
    """
    with blobs.writing(blob.digest) as descriptor:
        if descriptor is None:
            found = blobs.find(blob.digest, blob.size)
            if found is None:
                raise BadBundle(f"{blob.digest} changed in the cache", hint="run the same again")
            return found, 0
        part = _opened(descriptor, blob)
        came = _filled(repository, blob, part, tell)
        if part.digest.hexdigest() != blob.digest.removeprefix("sha256:"):
            part.restart()
            raise BadBundle(f"what came is not {blob.digest}", hint=HINT)
        return blobs.keep(blob.digest, descriptor), came


def _opened(descriptor: int, blob: Descriptor) -> _Part:
    """What an earlier try left, hashed; nothing of it where it is too long."""
    part, digest = _Part(descriptor, os.fstat(descriptor).st_size, hashlib.sha256()), hashlib.sha256()
    if part.length > blob.size:
        part.restart()
        return part
    for start in range(0, part.length, PIECE):
        digest.update(os.pread(descriptor, PIECE, start))
    part.digest = digest
    return part


def _filled(repository: Repository, blob: Descriptor, part: _Part, tell: Callable[[int], None]) -> int:
    """Fetch until the part is as long as the blob; the bytes that came."""
    came, cuts, left = 0, 0, MOST_CUTS
    while part.length < blob.size:
        before = part.length
        try:
            for piece in _stretch(repository, blob, part):
                part.add(piece)
                came += len(piece)
                tell(part.length)
        except Cut as cut:
            cuts, left = (cuts + 1 if part.length <= before else 1), left - 1
            if cuts >= repository.client.access.tries or not left:
                raise
            wait(repository.client.access, cuts, cut)
    return came


def _stretch(repository: Repository, blob: Descriptor, part: _Part) -> Iterator[bytes]:
    """The bytes after those that are here, as one answer gives them; a registry that knows no ranges begins anew."""
    headers = {"Range": f"bytes={part.length}-"} if part.length else {}
    call = Call("GET", f"{repository.path}/blobs/{blob.digest}", repository.pulling, headers)
    with ask(repository.client, call, (200, 206, 416)) as response:
        if response.status_code == 416:
            part.restart()
            raise Cut("the registry knows no such range", "run the same again")
        if response.status_code == 206:
            match = re.fullmatch(
                r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)", _header(response, "Content-Range")
            )
            if match is None or int(match[1]) != part.length or match[2] not in (str(blob.size), "*"):
                raise BadBundle(f"the registry sends another part of {blob.digest}", hint=HINT)
        elif part.length:
            part.restart()
        _refuse_longer(response, blob.size - part.length, blob)
        yield from _pieces(response, blob.size - part.length, blob)


def _pieces(response: "requests.Response", left: int, blob: Descriptor) -> Iterator[bytes]:
    """The body as it comes, of which there must be `left` bytes."""
    from urllib3.exceptions import HTTPError

    began, got = time.monotonic(), 0
    try:
        while piece := response.raw.read1(min(PIECE, left + 1), decode_content=False):
            if len(piece) > left:
                raise BadBundle(f"more bytes come than {blob.digest} has", hint=HINT)
            left -= len(piece)
            got += len(piece)
            yield piece
            if (passed := time.monotonic() - began) > WINDOW:
                if got < SLOWEST * passed:
                    raise EdgeKitError("the registry sends too slowly", hint="run the same again later: it goes on")
                began, got = time.monotonic(), 0
    except (HTTPError, OSError) as error:
        raise Cut("the connection was cut", "check the network, then run the same again") from error
    if left:
        raise Cut("the connection was cut", "check the network, then run the same again")


def _refuse_longer(response: "requests.Response", left: int, blob: Descriptor) -> None:
    """Where the registry says itself that more would come, or that it is packed."""
    length = _header(response, "Content-Length")
    if length.isascii() and length.isdecimal() and int(length[:18]) != left:
        more = "more" if int(length[:18]) > left else "fewer"
        raise BadBundle(f"the registry has {more} bytes than {blob.digest} should have", hint=HINT)
    if _header(response, "Content-Encoding") not in ("", "identity"):
        raise BadBundle(f"the registry sends {blob.digest} packed, unasked", hint=HINT)


def _header(response: "requests.Response", name: str) -> str:
    return str(response.headers.get(name, ""))

"""Send one blob in chunks; after a cut, go on where the registry says that it stands.

Refuses to go on without end: a registry that takes nothing for some tries in a row is given up."""

import io
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from edgekit_runtime.errors import EdgeKitError

from edgekit.oci.answers import Cut, Refused
from edgekit.oci.calls import Call, told, wait
from edgekit.oci.manifest import Descriptor
from edgekit.oci.registry import Repository, begin_upload, has_blob, location

Content = Path | bytes
RESTARTS = 4
"""How often one blob is begun anew where a registry lost what it had."""
MOST_CUTS = 200
"""Cuts of one blob after which it is given up, though each brought it further."""


@dataclass
class _Upload:
    """Where an upload stands: its address (None: not begun), what is there, the least that is taken at once, and how
    often it was begun."""

    place: str | None = None
    offset: int = 0
    least: int = 0
    begun: int = 0


class _Piece:
    """A stretch of a file as the body of a request, read as it is sent."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        file.seek(start)
        self._file, self._left = file, length

    def __len__(self) -> int:
        return self._left

    def read(self, size: int = -1) -> bytes:
        """The next bytes, none beyond the stretch."""
        found = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(found)
        return found


def upload(
    repository: Repository, blob: Descriptor, content: Content, source: str | None, tell: Callable[[int], None]
) -> bool:
    """Bring a blob there; `tell` hears how much is. Whether it was sent: False where it was mounted from `source`.

    Raises:
        EdgeKitError: the registry or the network will not have it.
    """
    with closing(io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")) as file:
        state, cuts, left = _Upload(), 0, MOST_CUTS
        while True:
            before = state.offset
            try:
                if state.place is None:
                    if state.begun and has_blob(repository, blob):  # all came, and only the answer was lost
                        return True
                    state.place, state.least = begin_upload(repository, blob.digest, None if state.begun else source)
                    state.offset, before, state.begun = 0, 0, state.begun + 1
                    if state.place is None:
                        return False
                _send(repository, blob, file, state, tell)
                return True
            except Cut as cut:
                cuts, left = (cuts + 1 if state.offset <= before else 1), left - 1
                if cuts >= repository.client.access.tries or state.begun > RESTARTS or not left:
                    raise
                wait(repository.client.access, cuts, cut)
                _ask_where(repository, blob, state)
            except Refused as refused:
                if refused.status not in (404, 416) or state.begun > RESTARTS or state.place is None:
                    raise _explained(refused, blob) from refused
                _ask_where(repository, blob, state) if refused.status == 416 else _forget(state)


def _send(
    repository: Repository, blob: Descriptor, file: BinaryIO, state: _Upload, tell: Callable[[int], None]
) -> None:
    """All that is left, chunk after chunk, and the word that it is all."""
    assert state.place is not None
    while state.offset < blob.size:
        start = state.offset
        count = min(max(repository.client.access.chunk, state.least), blob.size - start)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{start + count - 1}"}
        call = Call("PATCH", state.place, repository.pushing, headers, partial(_Piece, file, start, count))
        response = told(repository.client, call, (201, 202, 204))
        state.place = location(repository, response.url, response.headers)
        end = _end(response.headers.get("Range", ""))
        state.offset = start + count if end is None else end
        if not start < state.offset <= blob.size:
            state.offset = start
            raise Cut("the registry took nothing of what was sent", "run the same again")
        tell(state.offset)
    last = f"{state.place}{'&' if '?' in state.place else '?'}digest={quote(blob.digest, safe='')}"
    headers = {"Content-Type": "application/octet-stream"}
    told(repository.client, Call("PUT", last, repository.pushing, headers, lambda: b""), (201, 202, 204))


def _ask_where(repository: Repository, blob: Descriptor, state: _Upload) -> None:
    """Learn how much of the upload is there; what the registry does not know any more begins anew.

    Docker's registry forgets an upload that was cut within a chunk, unless a proxy before it gathers chunks first.
    """
    if state.place is None:
        return
    try:
        response = told(repository.client, Call("GET", state.place, repository.pushing), (200, 202, 204))
        place = location(repository, response.url, response.headers)
        end = _end(response.headers.get("Range", ""))
    except Refused:
        _forget(state)
        return
    except Cut:
        return  # the next try meets the same, and counts it
    if end is None or end > blob.size or (end == 1 and state.offset != 1):
        _forget(state)  # 0-0 is said for nothing at all, too
    else:
        state.place, state.offset = place, end


def _forget(state: _Upload) -> None:
    state.place, state.offset = None, 0


def _end(header: str) -> int | None:
    """How many bytes are there, by a Range header; None where it says nothing."""
    match = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,15})", header.strip())
    return int(match[1]) + 1 if match else None


def _explained(refused: Refused, blob: Descriptor) -> EdgeKitError:
    if refused.status == 400:
        return EdgeKitError(
            f"{refused.what} ({blob.digest})", hint="look whether the file changed meanwhile, then again"
        )
    return refused

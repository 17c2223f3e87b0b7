"""The parts of a multipart/form-data body (RFC 7578), each whole in memory. Pure: bytes in, values out, no files.

Refuses what is not written the one way that clients write it: bytes outside the parts, a missing last boundary,
parts without a name, two of one name, transfer encodings, and more parts or longer headers than a model has use for."""

import re
from dataclasses import dataclass

from edgekit_runtime.errors import BadRequest, Exceeded

MAX_PARTS = 64
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4096
MAX_NAME = 200
MAX_LOOKALIKES = 1000
"""Lines of a part that begin as the boundary does."""
BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=?-](?:[0-9A-Za-z'()+_,./:=? -]{0,68}[0-9A-Za-z'()+_,./:=?-])?")
PARAMETER = re.compile(rb"""[ \t]*;[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))""")
FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
END = b"\r\n"
LINE = re.compile(rb"[ \t]{0,64}\r\n|(--)[ \t]{0,64}(?:\r\n|\Z)")
"""What may follow a boundary: blanks and a line end; two dashes after the last one."""
HINT = "send it as curl -F data=@photo.jpg does"


@dataclass(frozen=True, slots=True)
class Part:
    """One field: its name, its bytes, its media type in lower case, and whether it was sent as a file."""

    name: str
    data: bytes
    content_type: bytes = b""
    file: bool = False


def read_parts(body: bytes, content_type: bytes) -> list[Part]:
    """The fields of `body`, in their order; `content_type` is the request's whole Content-Type.

    Raises:
        BadRequest: it is not a form, or not a whole one.
        Exceeded: it has too many parts, or headers that are too long.
    """
    dash = b"--" + _boundary(content_type)
    body = body.removeprefix(END)
    line = _line_after(body, len(dash)) if body.startswith(dash) else None
    if line is None:
        raise BadRequest("the form does not begin with its boundary", hint=HINT)
    at, last = line
    parts: dict[str, Part] = {}
    while not last:
        if len(parts) == MAX_PARTS:
            raise Exceeded(f"the form has more than {MAX_PARTS} parts", hint="send less at once", limit="parts")
        end, after, last = _next(body, END + dash, at)
        part = _part(body, at, end)
        if part.name in parts:
            raise BadRequest(f"the form has two parts named {part.name[:50]!r}", hint="send several samples as JSON")
        parts[part.name] = part
        at = after
    if body[at:].strip():
        raise BadRequest("the form goes on after its last boundary", hint=HINT)
    return list(parts.values())


def _boundary(content_type: bytes) -> bytes:
    _, colon, rest = content_type.partition(b";")
    parameters = _parameters(colon + rest, "Content-Type")
    boundary = parameters.get(b"boundary", b"")
    if not BOUNDARY.fullmatch(boundary):
        raise BadRequest("Content-Type names no boundary of 1 to 70 plain characters", hint=HINT)
    return boundary


def _next(body: bytes, delimiter: bytes, start: int) -> tuple[int, int, bool]:
    """Where the part from `start` on ends, where what follows its boundary begins, and whether that was the last.

    A line that begins as the boundary does and then goes on otherwise belongs to the part.
    """
    found = body.find(delimiter, start)
    for _ in range(MAX_LOOKALIKES):
        if found < 0:
            raise BadRequest("the form ends before its last boundary", hint="send the whole body")
        line = _line_after(body, found + len(delimiter))
        if line is not None:
            return found, *line
        found = body.find(delimiter, found + 1)
    raise Exceeded("the form's boundary is all over its parts", hint="choose another boundary", limit="parts")


def _line_after(body: bytes, at: int) -> tuple[int, bool] | None:
    """Where the line of a boundary ends, and whether it is the last one; None where it is none."""
    match = LINE.match(body, at)
    return None if match is None else (match.end(), match[1] is not None)


def _part(body: bytes, start: int, end: int) -> Part:
    stop = body.find(END + END, start, min(end, start + MAX_PART_HEADER_BYTES))
    if stop < 0:
        if end - start > MAX_PART_HEADER_BYTES:
            raise Exceeded("the headers of a part are too long", hint=HINT, limit="parts")
        raise BadRequest("a part of the form has no headers", hint=HINT)
    headers = _headers(body[start:stop])
    kind, semicolon, rest = headers.get(b"content-disposition", b"").partition(b";")
    named = _parameters(semicolon + rest, "Content-Disposition")
    name = named.get(b"name")
    if kind.strip().lower() != b"form-data" or not name:
        raise BadRequest("a part of the form has no name", hint=HINT)
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
        raise BadRequest("a part of the form has a Content-Transfer-Encoding", hint="send its bytes as they are")
    media = headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
    return Part(_name(name), body[stop + 4 : end], media, b"filename" in named)


def _headers(text: bytes) -> dict[bytes, bytes]:
    lines = text.split(END)
    if len(lines) > MAX_PART_HEADERS:
        raise Exceeded("a part of the form has too many headers", hint=HINT, limit="parts")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        field, colon, value = line.partition(b":")
        if not colon or not FIELD.fullmatch(field) or b"\n" in value or b"\r" in value or b"\0" in value:
            raise BadRequest("a header of a part does not read", hint=HINT)
        if field.lower() in headers:
            raise BadRequest("a part of the form has the same header twice", hint=HINT)
        headers[field.lower()] = value.strip()
    return headers


def _parameters(text: bytes, where: str) -> dict[bytes, bytes]:
    """`; key=value; key="value"` by lower-case key."""
    found: dict[bytes, bytes] = {}
    text, at = text.rstrip(b"; \t"), 0
    while at < len(text):
        match = PARAMETER.match(text, at)
        if match is None or match[1].lower() in found:
            raise BadRequest(f"{where} does not read", hint=HINT)
        quoted = match[2]
        found[match[1].lower()] = match[3] if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        at = match.end()
    return found


def _name(raw: bytes) -> str:
    """A field's name; browsers write quotes and line ends in it as %22, %0D and %0A."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("the name of a part is not UTF-8", hint=HINT) from error
    if len(name) > MAX_NAME:
        raise Exceeded("the name of a part is too long", hint=HINT, limit="parts")
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")

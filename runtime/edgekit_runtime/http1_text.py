"""The text of HTTP/1.1: status lines and heads of answers, paths out of targets. Pure.

Refuses a path that is not UTF-8."""

from urllib.parse import unquote_to_bytes

from edgekit_runtime.exchange import Refused, Response

REASONS = {
    100: "Continue", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 411: "Length Required", 413: "Content Too Large",
    414: "URI Too Long", 415: "Unsupported Media Type", 417: "Expectation Failed", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}  # fmt: skip
HEADS = {code: f"HTTP/1.1 {code} {reason}\r\n".encode() for code, reason in REASONS.items()}
UNNAMED = b"HTTP/1.1 500 Internal Server Error\r\n"


def head(response: Response, date: bytes, connection: bytes) -> bytes:
    """All that comes before the body; `date` is a whole line, `connection` a word or nothing."""
    lines = [HEADS.get(response.status, UNNAMED), date, b"content-length: %d\r\n" % len(response.body)]
    for pair in response.headers:
        lines.append(b"%s: %s\r\n" % pair)
    if connection:
        lines.append(b"connection: %s\r\n" % connection)
    lines.append(b"\r\n")
    return b"".join(lines)


def path_and_query(target: bytes) -> tuple[str, str]:
    """The path, percent-decoded, and the query as it came.

    Raises:
        Refused: the path is not UTF-8.
    """
    path, _, query = _without_host(target).partition(b"?")
    return _decoded(path), query.decode("latin-1")


def _without_host(url: bytes) -> bytes:
    """The path and query of a target; proxies' clients send it with scheme and host in front (RFC 9112, 3.2.2)."""
    if url[:7].lower() != b"http://" and url[:8].lower() != b"https://":
        return url
    rest = url.partition(b"//")[2]
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    return rest[cut:] if rest[cut : cut + 1] == b"/" else b"/" + rest[cut:]


def _decoded(path: bytes) -> str:
    text = unquote_to_bytes(path) if b"%" in path else path
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "the path is not UTF-8") from None

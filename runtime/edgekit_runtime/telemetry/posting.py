"""Where telemetry is sent, and a POST to it: an address given by the operator, its credentials kept out of words.

Refuses addresses that are not http:// or https://, follows no redirect, and always verifies who answers on https.

The certificates trusted are the system's, or those of the file in SSL_CERT_FILE, as OpenSSL has it."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.telemetry.series import Slot

TIMEOUT = 10.0
ANSWER_BYTES = 2048
"""What is read of an answer."""
MOST_AFTER = 3600.0
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OURS = frozenset({"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection"})
WHICH = "say http://HOST:PORT/PATH or https://HOST/PATH"


class Outcome(Enum):
    """What became of slots: taken; not now; never these slots; never any, as it is set up."""

    TAKEN = "taken"
    LATER = "later"
    REFUSED = "refused"
    BARRED = "barred"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of slots, in words for the log, and how many seconds the receiver wants us to wait."""

    outcome: Outcome
    words: str = ""
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Destination:
    """Who gets slots: a name without secrets, the function that sends, and the one that breaks off a sending."""

    name: str
    deliver: Callable[[Sequence[Slot]], Answer]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart; `name` has neither credentials nor query, `headers` are not shown."""

    https: bool
    host: str
    port: int
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """For people, metrics and logs."""
        return f"{self.origin}{self.target.partition('?')[0]}"

    @property
    def url(self) -> str:
        """What to ask for; the credentials are in the headers."""
        return f"{self.origin}{self.target}"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.https else 'http'}://{host}:{self.port}"


def address(url: str, header_file: Path | None = None) -> Address:
    """An operator's URL; credentials in it, and a file of headers (`Name: value`, a line each), become headers.

    Raises:
        EdgeKitError: it is none of ours, or the file does not read.
    """
    if not url.isascii() or any(ord(one) <= 32 or ord(one) == 127 for one in url):
        raise EdgeKitError("the address holds characters that a URL cannot hold", hint=WHICH)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EdgeKitError("the address is not a URL", hint=WHICH) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise EdgeKitError("the address is not one of a web server", hint=WHICH)
    headers: dict[str, str] = {}
    if parts.username is not None:
        import base64

        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
    headers |= _headers(header_file) if header_file is not None else {}
    https = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(https, parts.hostname, port or (443 if https else 80), target, headers)


def _headers(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise EdgeKitError(f"{path}: {error.strerror}", hint="name a file with a line `Name: value`") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not HEADER.fullmatch(name) or not value.strip().isprintable() or name.lower() in OURS:
            raise EdgeKitError(f"{path}, line {number}, is no header to send", hint="write `Name: value`")
        found[name] = value.strip()
    return found


def poster(where: Address, headers: Mapping[str, str]) -> Callable[[bytes], Answer]:
    """A function that posts a body there, over one connection kept open, and judges the answer."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    if where.https:
        import ssl

        connection: HTTPConnection = HTTPSConnection(
            where.host, where.port, timeout=TIMEOUT, context=ssl.create_default_context()
        )
    else:
        connection = HTTPConnection(where.host, where.port, timeout=TIMEOUT)
    sent = {**headers, **where.headers}

    def post(body: bytes) -> Answer:
        try:
            connection.request("POST", where.target, body, sent)
            answer = connection.getresponse()
            text = answer.read(ANSWER_BYTES)
            if not answer.isclosed():
                connection.close()
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            return Answer(Outcome.LATER, str(error) or type(error).__name__)
        return judged(answer.status, answer.headers.get("Retry-After"), text.decode("utf-8", "replace"))

    return post


def judged(status: int, retry_after: str | None, text: str) -> Answer:
    """What an HTTP status means for the slots that were sent."""
    said = "".join(one if one.isprintable() else " " for one in text[:200]).strip()
    words = f"HTTP {status}" + (f": {said}" if said else "")
    if 200 <= status < 300:
        return Answer(Outcome.TAKEN, words)
    if status in (408, 425, 429) or status >= 500:
        return Answer(Outcome.LATER, words, _seconds(retry_after))
    if status in (400, 413, 422):
        return Answer(Outcome.REFUSED, words)
    return Answer(Outcome.BARRED, words)


def _seconds(retry_after: str | None) -> float:
    """Of a Retry-After header: seconds, or a date."""
    import email.utils

    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(MOST_AFTER, float(text[:9]))
    try:
        date = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(MOST_AFTER, max(0.0, date - time.time()))

"""What a registry answers: bodies read within limits, refusals in words, and which failures may pass.

Refuses more bytes than asked for, and answers that drip in."""

import email.utils
import json
import time
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgeKitError, Exceeded
from edgekit_runtime.printable import safe

if TYPE_CHECKING:
    import requests

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same may succeed: the registry is busy, or down for now."""
HINTS = {
    401: "say --username NAME --password-stdin, or docker login",
    403: "log in as one who may, or check the repository's name",
    404: "check the repository's name and the tag",
    405: "this registry does not take that; ask who runs it",
    413: "this registry takes no files as large; ask who runs it",
}
MAX_WORDS = 2**14


class Cut(EdgeKitError):
    """The connection broke, or the registry is down for now: `after` so many seconds it may be back. `status` is 0
    where there was no answer."""

    def __init__(self, what: str, hint: str = "", after: float | None = None, status: int = 0) -> None:
        super().__init__(what, hint)
        self.after = after
        self.status = status


class Refused(EdgeKitError):
    """The registry said no, with an HTTP status."""

    def __init__(self, what: str, hint: str = "", status: int = 0) -> None:
        super().__init__(what, hint)
        self.status = status


def refusal(response: "requests.Response", where: str, timeout: float) -> EdgeKitError:
    """The error of an answer that was not wanted, which is closed."""
    status = response.status_code
    words = _words(response, timeout)
    what = f"{safe(where)[:200]} answers {status}{': ' if words else ''}{words}"
    if status in PASSING:
        return Cut(what, "try again later", _after(response.headers.get("Retry-After", "")), status)
    if 300 <= status < 400:
        return Refused(f"{what}: it sends us elsewhere", "say the address itself, if you trust it", status)
    return Refused(what, HINTS.get(status, "check the address, or ask who runs the registry"), status)


def trouble(error: Exception, url: str) -> EdgeKitError:
    """What went wrong below HTTP; all but distrust may pass."""
    import requests

    where = safe(url.partition("?")[0])[:200]
    text = str(error)
    if isinstance(error, requests.exceptions.SSLError) and "EOF" not in text:
        if "WRONG_VERSION" in text or "record layer" in text.lower() or "HTTP_REQUEST" in text:
            return EdgeKitError(f"{where} does not speak TLS", hint="say --plain-http, if you trust the network")
        why = "the certificate is not trusted" if "CERTIFICATE" in text else "TLS failed"
        return EdgeKitError(f"{where}: {why}", hint="give the CA that signed it: --ca FILE")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | ValueError):
        return EdgeKitError(f"{where} is no address", hint="check the address")
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException) and "TLS CA" in text:
        return EdgeKitError("the file of --ca is not there", hint="give the CA's own file to --ca")
    if isinstance(error, requests.exceptions.Timeout):
        return Cut(f"no answer from {where} in time", "check the network, then run the same again")
    if any(word in text for word in ("aborted", "Disconnected", "reset", "Broken pipe", "EOF")):
        return Cut(f"the connection to {where} was cut", "check the network, then run the same again")
    return Cut(f"the connection to {where} failed: {_short(text)}", "check the network, then run the same again")


def read(response: "requests.Response", most: int, timeout: float) -> bytes:
    """The whole body, of at most `most` bytes.

    Raises:
        Exceeded: there is more.
        Cut: it did not all come in time.
    """
    from urllib3.exceptions import HTTPError

    end, parts, got = time.monotonic() + 4 * timeout, [], 0
    try:
        with response:
            while piece := response.raw.read1(min(2**16, most + 1 - got), decode_content=False):
                parts.append(piece)
                got += len(piece)
                if got > most:
                    raise Exceeded(f"the answer is larger than {most:,} bytes", hint="do not use this registry")
                if time.monotonic() > end:
                    raise Cut("the answer came too slowly", "check the network, then run the same again")
    except (HTTPError, OSError) as error:
        raise Cut(f"the connection was cut: {_short(str(error))}", "run the same again") from error
    return b"".join(parts)


def drain(response: "requests.Response", timeout: float) -> "requests.Response":
    """The answer, its body read and dropped, so that the connection can be used again."""
    read(response, MAX_WORDS, timeout)
    return response


def _words(response: "requests.Response", timeout: float) -> str:
    """What a registry says of its refusal: codes and messages, in one line."""
    try:
        told = json.loads(read(response, MAX_WORDS, timeout))
        errors = told["errors"][:3]
        found = "; ".join(f"{one.get('code', '')} {one.get('message', '')}" for one in errors)
    except (EdgeKitError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return ""
    return safe(" ".join(found.split()))[:300]


def _after(header: str) -> float | None:
    """Seconds until it may be tried again, if that is said."""
    if header.strip().isdecimal() and header.isascii():
        return float(header.strip()[:12])
    try:
        when = email.utils.parsedate_to_datetime(header)
        return max(0.0, when.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _short(text: str) -> str:
    """The end of one of urllib3's long explanations."""
    return safe(text.rpartition("] ")[2] or text).rstrip("')\" ")[:160]

"""Whether a browser asks on behalf of somebody else: a page from elsewhere, or a name that was bent to this machine.

Refuses a request from another site's page, and, where no token is asked for, one that names a host which is not this
one: a hostile page can have its own name resolve to 127.0.0.1 (DNS rebinding), and ask as if it came from here."""

import ipaddress
from collections.abc import Mapping

from edgekit_runtime.errors import Forbidden

BROWSER = b"Mozilla/"
"""How every browser's User-Agent begins; other clients may send any Host, as proxies and containers need it."""


def refuse_strangers(headers: Mapping[bytes, bytes], tokens: bool) -> None:
    """Nothing, where the request is not another site's doing. `tokens`: whether one is asked for.

    Raises:
        Forbidden: it is.
    """
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    if origin is not None and (not host or origin.lower().partition(b"://")[2] != host.lower()):
        raise Forbidden("a web page from elsewhere may not ask this", hint="ask from a program, or from our own page")
    if tokens or (origin is None and not _browser(headers)):
        return
    if not _ours(host):
        raise Forbidden(
            "a browser may reach this server by its address or as localhost only",
            hint="write http://localhost:PORT or the IP address; serve with --tokens for other names",
        )


def _browser(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks. A script may give itself another User-Agent, but cannot leave out the languages that
    its user reads; of programs Node's fetch names some too, and, as no script can, how it asks but not from where."""
    if headers.get(b"user-agent", b"").startswith(BROWSER):
        return True
    node = b"sec-fetch-mode" in headers and b"sec-fetch-site" not in headers
    return b"accept-language" in headers and not node


def _ours(host: bytes) -> bool:
    """Whether the Host names an address or localhost, which no other site's owner can have."""
    name = host.decode("latin-1").lower()
    name = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() and not name.endswith("]") else name
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True

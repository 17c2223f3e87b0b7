"""Calls to one registry: retried where that may help, logged in where it asks, sent on only where that is safe.

Refuses plain HTTP beyond this machine unless asked for, credentials for other hosts, and ways down from TLS."""

import ipaddress
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from edgekit_runtime.errors import EdgeKitError, Unauthenticated

from edgekit.oci import answers
from edgekit.oci.answers import Cut
from edgekit.oci.credentials import Login, parse_challenge
from edgekit.oci.reference import HUB, HUB_HOST, host_of, is_loopback

if TYPE_CHECKING:
    import requests

REDIRECTS = 5
LONGEST_PAUSE = 30.0
PATIENCE = 300.0
"""Seconds that a registry may ask us to wait."""
MAX_TOKEN = 2**16
LOG_IN = "say --username NAME --password-stdin, or docker login"
T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """How a registry is reached: by whom, over what, how patiently; `chunk` bytes go up at a time."""

    login: Login | None = None
    plain_http: bool = False
    ca: Path | None = None
    timeout: float = 30.0
    tries: int = 6
    chunk: int = 8 * 2**20
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Client:
    """A registry at `base`, and what it let us in with: authorizations by scope ("" for all)."""

    base: str
    access: Access
    session: "requests.Session"
    allowed: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Call:
    """One request. `body` makes what is sent, anew for each try; `scope` is the right that it takes."""

    verb: str
    url: str
    scope: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Any] | None = None


@contextmanager
def connected(registry: str, access: Access) -> Iterator[Client]:
    """A client of the registry at host[:port], which answers.

    Raises:
        EdgeKitError: nothing answers there, or it is not to be trusted.
    """
    import requests

    local = is_loopback(host_of(registry))
    scheme = "http" if access.plain_http or (local and access.ca is None) else "https"
    with requests.Session() as session:
        session.trust_env = not local  # a proxy cannot know what is on this machine
        client = Client(f"{scheme}://{HUB_HOST if registry == HUB else registry}", access, session)
        try:
            again(access, lambda: told(client, Call("GET", "/v2/"), (200, 401, 403, 404)), tries=2)
        except Cut as cut:
            hint = "check the address and the network" if cut.status == 0 else "try again later"
            raise EdgeKitError(f"no registry answers at {registry}: {cut.what}", hint=hint) from cut
        yield client


def again(access: Access, act: Callable[[], T], tries: int | None = None) -> T:
    """What `act` gives, tried anew while the registry or the network is down; 4xx is final."""
    most = access.tries if tries is None else tries
    for number in range(1, most + 1):
        try:
            return act()
        except Cut as cut:
            if number == most:
                raise
            wait(access, number, cut)
    raise AssertionError("at least one try is made")


def wait(access: Access, number: int, cut: Cut) -> None:
    """Before try `number` + 1: longer each time, never in step with others, as long as the registry asks at least."""
    if cut.after is not None and cut.after > PATIENCE:
        raise EdgeKitError(f"the registry asks to wait for {cut.after:,.0f} s", hint="try again then") from cut
    usual = min(LONGEST_PAUSE, 0.5 * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
    access.pause(usual if cut.after is None else cut.after + random.uniform(0.0, 1.0))


def told(client: Client, call: Call, good: tuple[int, ...]) -> "requests.Response":
    """The same for an answer of which only the head matters: the connection is kept for the next."""
    return answers.drain(ask(client, call, good), client.access.timeout)


def ask(client: Client, call: Call, good: tuple[int, ...]) -> "requests.Response":
    """One answer with a status of `good`, its body not yet read: `close` it, or read it to its end.

    Raises:
        Cut: there was none, or the registry is down for now.
        Refused: it has another status.
    """
    url, tried = urljoin(client.base, call.url), False
    for _ in range(REDIRECTS + 2):
        check_url(client, url)
        ours = _origin(url) == _origin(client.base)
        response = _send(client, call, url, ours)
        if response.status_code in good and not (response.status_code == 401 and not tried and call.scope):
            return response
        if response.status_code == 401 and ours and not tried:
            tried = True
            header = response.headers.get("WWW-Authenticate", "")
            response.close()
            client.allowed.pop(call.scope, None)
            _log_in(client, call.scope, header)
        elif response.status_code in (301, 302, 303, 307, 308) and call.verb in ("GET", "HEAD"):
            url = urljoin(url, response.headers.get("Location", ""))
            response.close()
        else:
            raise answers.refusal(response, client.base, client.access.timeout)
    raise EdgeKitError(f"{client.base} sends us in circles", hint="check the address")


def check_url(client: Client, url: str) -> None:
    """Raise where a registry points to what must not be asked: in the clear, or inside of this machine or network."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise EdgeKitError("the registry sends us to what is no address", hint="check the address") from error
    base = urlsplit(client.base)
    shown = ascii(f"{parts.scheme}://{host}")[1:200]
    wrong = parts.scheme not in ("http", "https") or not host or parts.username is not None
    if wrong or not re.fullmatch(r"[!-~]+", url) or (parts.scheme == "http" and base.scheme != "http"):
        raise EdgeKitError(f"the registry sends us on to {shown}", hint="say the address itself, if you trust it")
    if host == base.hostname:
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        inside = is_loopback(host)
    else:
        inside = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    if inside and not is_loopback(base.hostname or ""):
        raise EdgeKitError(f"the registry sends us on to {shown}", hint="do not use this registry")


def _send(client: Client, call: Call, url: str, ours: bool) -> "requests.Response":
    headers = {"User-Agent": "edgekit", "Accept-Encoding": "identity", **call.headers}
    known = client.allowed.get(call.scope) or client.allowed.get("")
    if ours and known:
        headers["Authorization"] = known
    return _bare(client, call.verb, url, headers, call.body() if call.body is not None else None)


def _bare(client: Client, verb: str, url: str, headers: Mapping[str, str], body: Any = None) -> "requests.Response":
    """Send just this: no redirect is followed, and no ~/.netrc is looked into, since a function says who we are."""
    import requests

    access = client.access
    try:
        return client.session.request(
            verb, url, headers=dict(headers), data=body, stream=True, allow_redirects=False,
            timeout=(min(access.timeout, 10.0), access.timeout), auth=lambda request: request,
            verify=str(access.ca) if access.ca else True,
        )  # fmt: skip
    except (requests.RequestException, ValueError, OSError) as error:
        raise answers.trouble(error, url) from error


def _log_in(client: Client, scope: str, header: str) -> None:
    """Learn what to send for `scope`, from what the registry says when it refuses."""
    kind, words = parse_challenge(header)
    login = client.access.login
    if kind == "basic":
        if login is None:
            raise Unauthenticated(f"{client.base} asks who we are", hint=LOG_IN)
        client.allowed[""] = login.basic
    elif kind == "bearer" and "realm" in words:
        client.allowed[scope] = f"Bearer {_token(client, scope, words)}"
    else:
        raise Unauthenticated(f"{client.base} asks for a login of a kind that is not known", hint="ask who runs it")


def _token(client: Client, scope: str, words: Mapping[str, str]) -> str:
    """A token for the right that we want (not for one that the registry names), from where it says."""
    from urllib.parse import urlencode

    realm = words["realm"]
    check_url(client, realm)
    wanted = [("service", words["service"])] if "service" in words else []
    wanted += [("scope", one) for one in scope.split()]
    url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(wanted)}"
    login = client.access.login
    headers = {"User-Agent": "edgekit", **({"Authorization": login.basic} if login else {})}
    response = _bare(client, "GET", url, headers)
    if response.status_code in (401, 403):
        response.close()
        raise Unauthenticated(f"{_origin(realm)[1]} does not let us in" + ("" if login else ": no login"), hint=LOG_IN)
    if response.status_code != 200:
        raise answers.refusal(response, realm, client.access.timeout)
    try:
        told = json.loads(answers.read(response, MAX_TOKEN, client.access.timeout))
        token = told.get("token") or told.get("access_token")
    except (ValueError, RecursionError, AttributeError) as error:
        raise EdgeKitError(f"{_origin(realm)[1]} answers with no token", hint="ask who runs it") from error
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise EdgeKitError(f"{_origin(realm)[1]} answers with no token", hint="ask who runs it")
    return token


def _origin(url: str) -> tuple[str, str, int]:
    """What credentials are for: scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)

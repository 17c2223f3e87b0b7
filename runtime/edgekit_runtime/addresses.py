"""Where the server listens: HOST:PORT, [IPV6]:PORT or unix:PATH, and which of these only this machine can reach.

Refuses an address that does not read, one beyond loopback without tokens, and to take a socket from who listens."""

import os
import re
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

HINT = "say HOST:PORT, [IPV6]:PORT or unix:PATH"
LONGEST_PATH = 107
"""Bytes: what the kernel's sockaddr_un holds."""


@dataclass(frozen=True)
class Address:
    """A TCP address, or a Unix socket where `path` is set."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.path is not None or is_loopback(self.host)


def parse_address(text: str) -> Address:
    """The address that `text` says; port 0 takes a free one.

    Raises:
        EdgeKitError: it does not read.
    """
    if text.startswith("unix:"):
        return unix_address(Path(text.removeprefix("unix:")))
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([^\s:\[\]/]+)):([0-9]{1,5})", text, re.ASCII)
    if found is None:
        raise EdgeKitError(f"{text!r} is not an address", hint=HINT)
    inside, host, port = found.groups()
    if int(port) > 65535:
        raise EdgeKitError(f"{text!r}: there is no port {port}", hint="ports end at 65535")
    if inside is not None and not _numeric(inside):
        raise EdgeKitError(f"{text!r}: {inside} is not an IPv6 address", hint=HINT)
    return Address(inside or host, int(port))


def unix_address(path: Path) -> Address:
    """The address of a Unix socket.

    Raises:
        EdgeKitError: the path is none, or longer than a socket's can be.
    """
    raw = os.fsencode(path)
    if not path.name or b"\0" in raw or raw.startswith(b"@"):  # an abstract socket has no mode: anyone could connect
        raise EdgeKitError(f"{str(path)!r} cannot be a Unix socket", hint="say unix:/run/edgekit/http.sock")
    if len(raw) > LONGEST_PATH:
        raise EdgeKitError(f"{path} is longer than a Unix socket's path can be", hint=f"{LONGEST_PATH} bytes at most")
    return Address(path=path)


def is_loopback(host: str) -> bool:
    """Whether `host` is 127.x.x.x, ::1, or a name that means only these; what does not resolve is not."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_own(family, str(place[0])) for family, _, _, _, place in found)


def resolve(address: Address) -> tuple[Address, ...]:
    """The address by numbers, one for each that a name has: bind these, and what was checked is what is bound.

    Raises:
        EdgeKitError: the name is not known.
    """
    if address.path is not None:
        return (address,)
    try:
        found = socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EdgeKitError(f"no host {address.host!r} is known here", hint="say its IP address") from error
    return tuple(dict.fromkeys(Address(_host(place), address.port) for _, _, _, _, place in found))


def require_token(addresses: Iterable[Address], tokens: object | None) -> None:
    """Raise `EdgeKitError` where one of the addresses is beyond loopback, or unknown, and there are no tokens."""
    if tokens is not None:
        return
    for address in addresses:
        if not address.loopback:
            resolve(address)  # a name that means nothing here is told as that
            raise EdgeKitError(
                f"{address} can be reached from other machines, and no token is asked for",
                hint="edgekit-runtime token new NAME --scope infer --file tokens; then serve with --tokens tokens",
            )


def bind_unix(path: Path, mode: int = 0o660) -> socket.socket:
    """A listening Unix socket at `path`; one that a dead server left there is replaced.

    Raises:
        EdgeKitError: somebody listens there, it is not a socket, or the folder does not allow it.
    """
    import fcntl

    unix_address(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = -1
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(folder, fcntl.LOCK_EX)  # or two starting servers take each other's new socket for a dead one
        _clear(path)
        made.bind(str(path))
        path.chmod(mode)  # nobody can connect before listen(), so nobody came in under the old mode
        made.listen(128)
        made.setblocking(False)
        return made
    except BaseException as error:
        made.close()
        if isinstance(error, OSError):
            raise EdgeKitError(f"unix:{path}: {error.strerror}", hint="name a path in a folder of ours") from error
        raise
    finally:
        if folder >= 0:
            os.close(folder)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise EdgeKitError(f"{path} is there and is not a socket", hint="name another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its backlog is full: very much alive
            pass
    raise EdgeKitError(f"another server listens on unix:{path}", hint="stop it first, or name another path")


def _is_own(family: int, host: str) -> bool:
    if family == socket.AF_INET:
        return host.startswith("127.")
    raw = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return raw == bytes(15) + b"\1" or raw[:13] == bytes(10) + b"\xff\xff\x7f"


def _host(place: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    """The numbers of a socket address, with the zone that a link-local one needs."""
    host = str(place[0])
    zone = place[3] if len(place) == 4 else 0
    return f"{host}%{zone}" if zone and "%" not in host else host


def _numeric(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return False
    return True

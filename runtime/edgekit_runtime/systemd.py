"""What a service and systemd tell each other: readiness and life signs, sockets that are already open, the watchdog.

Refuses sockets that are none; without systemd it is silent. Reads no environment: the edge passes it."""

import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping

from edgekit_runtime.errors import EdgeKitError

log = logging.getLogger("edgekit_runtime.systemd")

FIRST = 3
"""The file descriptor of the first passed socket, by systemd's convention."""
MOST = 64
PATIENCE = 1.0
"""Seconds that a message may wait for room in systemd's own queue."""


def notifier(address: str | None) -> Callable[[str], None]:
    """A function that tells systemd a state ("READY=1", "STATUS=..."), by the value of $NOTIFY_SOCKET.

    It does nothing where there is no such address. A message that does not get through is logged: a server is
    not worth stopping because its supervisor does not listen.

    Raises:
        EdgeKitError: the address is not one of a Unix socket.
    """
    if not address:
        return lambda state: None
    if address[0] not in "/@" or len(address) < 2:
        raise EdgeKitError(f"NOTIFY_SOCKET={address} is not a Unix socket", hint="unset it, or start under systemd")
    raw = os.fsencode(address)
    to = b"\0" + raw[1:] if raw.startswith(b"@") else raw

    def notify(state: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(PATIENCE)
            try:
                out.sendto(state.encode(), to)
            except OSError as error:
                log.warning("systemd was not told %s: %s", state.partition("=")[0], error)

    return notify


def listen_fds(env: Mapping[str, str], pid: int | None = None) -> list[tuple[str, socket.socket]]:
    """The (name, listening socket) pairs that systemd opened for this process; empty where it did not.

    A name is the socket unit's FileDescriptorName=, or "unknown".

    Raises:
        EdgeKitError: what was passed is not a listening stream socket.
    """
    if env.get("LISTEN_PID", "").strip() != str(os.getpid() if pid is None else pid):
        return []
    text = env.get("LISTEN_FDS", "")
    if not (text.isascii() and text.isdigit() and int(text) <= MOST):
        raise EdgeKitError(f"LISTEN_FDS={text[:20]} is not a number of sockets", hint="start it by a .socket unit")
    names = env["LISTEN_FDNAMES"].split(":") if env.get("LISTEN_FDNAMES") else []
    names += ["unknown"] * int(text)
    return [(names[index], _listening(FIRST + index)) for index in range(int(text))]


def watchdog_seconds(env: Mapping[str, str], pid: int | None = None) -> float | None:
    """How often systemd wants a sign of life; None where it does not watch this process."""
    text = env.get("WATCHDOG_USEC", "")
    if env.get("WATCHDOG_PID", str(os.getpid() if pid is None else pid)) != str(os.getpid() if pid is None else pid):
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) == 0:
        return None
    return int(text) / 1e6


def _listening(number: int) -> socket.socket:
    """The socket behind a file descriptor, which no child inherits and no call waits on."""
    hint = "use ListenStream= and Accept=no in the .socket unit"
    try:
        kind = os.fstat(number).st_mode
    except OSError as error:
        raise EdgeKitError(f"file descriptor {number} was not passed", hint=hint) from error
    if not stat.S_ISSOCK(kind):
        raise EdgeKitError(f"file descriptor {number} is not a socket", hint=hint)
    os.set_inheritable(number, False)
    found = socket.socket(fileno=number)
    known = found.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if not known or found.type != socket.SOCK_STREAM or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.detach()
        raise EdgeKitError(f"file descriptor {number} is not a listening stream socket", hint=hint)
    found.setblocking(False)
    return found

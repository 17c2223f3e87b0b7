"""What the connections of one listener share: limits, places, bytes under way, the clock, who answers.

Refuses more connections and more bytes than the limits allow."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

from edgekit_runtime.counters import Counters
from edgekit_runtime.exchange import Refused, Request, Response
from edgekit_runtime.limits import Limits

SWEEP_SECONDS = 0.5

Answer = Response | Awaitable[Response]


class Open(Protocol):
    """A connection, as far as its edge knows it; `deadline` is on the loop's clock."""

    deadline: float

    def overdue(self) -> None: ...
    def leave(self) -> None: ...
    def abort(self) -> None: ...


@dataclass(slots=True)
class Edge:
    """What all connections of one listener share.

    `begin` is asked when the head of a request is there, before its body: it raises what refuses it, and gives
    who will answer the whole. `refuse` turns any exception into an answer.
    """

    begin: Callable[[Request], Callable[[Request], Answer]]
    refuse: Callable[[BaseException], Response]
    limits: Limits
    counters: Counters
    connections: set[Open] = field(default_factory=set)
    turned_away: set[Open] = field(default_factory=set)
    addresses: dict[str, int] = field(default_factory=dict)
    targets: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    buffered: int = 0
    date: bytes = b""
    now: float = 0.0
    closing: bool = False

    def enter(self, connection: Open, address: str) -> str:
        """Take a connection in; else the name of the limit that was met, and it takes no place from who may come."""
        here = self.addresses.get(address, 0)
        if len(self.connections) >= self.limits.connections:
            return "connections"
        if address and here >= self.limits.per_address:
            return "connections_per_address"
        self.connections.add(connection)
        self.addresses[address] = here + 1
        return ""

    def let_go(self, connection: Open, address: str) -> None:
        """It is closed."""
        self.turned_away.discard(connection)
        if connection in self.connections:
            self.connections.discard(connection)
            self.addresses[address] -= 1
            if not self.addresses[address]:
                del self.addresses[address]

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Count so many more bytes as under way.

        Raises:
            Refused: they are too many with the others.
        """
        if self.buffered + size > self.limits.buffered:
            raise full()
        self.buffered += size
        try:
            yield
        finally:
            self.buffered -= size

    async def sweep(self) -> None:
        """Close what is overdue, until cancelled: one timer for all connections."""
        loop = asyncio.get_running_loop()
        while True:
            self.tick(loop.time())
            await asyncio.sleep(SWEEP_SECONDS)

    def tick(self, now: float) -> None:
        """One round of `sweep`."""
        self.now = now
        self.date = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode()
        for connection in [one for one in (*self.connections, *self.turned_away) if one.deadline < now]:
            connection.overdue()

    async def close(self, seconds: float) -> None:
        """End idle connections now, the others after their answer or `seconds`."""
        self.closing = True
        for connection in list(self.connections):
            connection.leave()
        end = asyncio.get_running_loop().time() + seconds
        while self.connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        for connection in (*self.connections, *self.turned_away):
            connection.abort()


def too_large(limits: Limits) -> Refused:
    """A body beyond the limit."""
    return Refused(413, f"the body is larger than {limits.body} bytes", "send less at once", limit="body")


def too_long() -> Refused:
    """Headers beyond the limits."""
    return Refused(431, "too many headers, or too long ones", "send fewer", limit="headers")


def full() -> Refused:
    """All bodies together beyond the limit."""
    retry = [(b"retry-after", b"1")]
    return Refused(503, "too many bytes are under way", "try again in a second", retry, limit="buffered")

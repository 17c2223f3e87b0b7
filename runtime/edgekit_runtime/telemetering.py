"""Telemetry of a running server, put together: the ring in its folder, what fills it, and who it is sent to.

Refuses a folder that cannot be written, an address that is none, and to send without a folder to keep it in."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family
from edgekit_runtime.version import __version__

if TYPE_CHECKING:
    from edgekit_runtime.telemetry.posting import Destination

METRICS = "/v1/metrics"
MEASURE_SECONDS = 2.0
JOB, SERVICE = "edgekit", "edgekit-runtime"


@dataclass(frozen=True)
class Wanted:
    """The folder and the bytes that the ring may take there; `otlp` and `remote_write` are URLs to send to, with a
    file of headers for both."""

    folder: Path
    limit: int
    otlp: str | None = None
    remote_write: str | None = None
    headers: Path | None = None


class Telemetry:
    """Keeps and sends from threads of its own. `event` and `families` may be called from anywhere.

    Raises:
        EdgeKitError: as the parts do.
    """

    def __init__(self, wanted: Wanted) -> None:
        from edgekit_runtime.telemetry.ring import Ring
        from edgekit_runtime.telemetry.sending import Sender

        self._ring = Ring(wanted.folder, wanted.limit)
        try:
            self._senders = [Sender(self._ring, one) for one in _destinations(wanted)]
        except EdgeKitError:
            self._ring.close()
            raise
        self._end: Callable[[], None] = lambda: None

    def start(self, measure: Callable[[], Sequence[Family]], loop: asyncio.AbstractEventLoop) -> None:
        """Begin: `measure` is asked for on `loop` each second, all else is done in threads."""
        from edgekit_runtime.telemetry.recording import record

        async def on_loop() -> Sequence[Family]:
            return measure()

        def measured() -> Sequence[Family]:
            return asyncio.run_coroutine_threadsafe(on_loop(), loop).result(MEASURE_SECONDS)

        self._end = record(self._ring, measured)
        for sender in self._senders:
            sender.start()

    def event(self, kind: str, **facts: Any) -> None:
        """Something happened: at `when_ms`, where the facts say that, else just now."""
        when = facts.pop("when_ms", None) or time.time_ns() // 1_000_000
        self._ring.event(when, kind, **facts)

    def families(self) -> list[Family]:
        """How full the ring is, and how far behind the destinations are."""
        from edgekit_runtime.telemetry.sending import behind

        return [*self._ring.families(), *([behind(self._senders)] if self._senders else [])]

    def close(self) -> None:
        """Write what is measured once more, and let go; to be called in a thread, while the loop still runs."""
        for sender in self._senders:
            sender.stop()
        self._end()
        self._ring.close()


def _destinations(wanted: Wanted) -> "list[Destination]":
    host: str = socket.gethostname()
    made = []
    if wanted.otlp is not None:
        from edgekit_runtime.telemetry.otlp import otlp
        from edgekit_runtime.telemetry.posting import address

        url = wanted.otlp.rstrip("/")
        where = address(url if url.endswith(METRICS) else url + METRICS, wanted.headers)
        made.append(otlp(where, {"service.name": SERVICE, "service.version": __version__, "host.name": host}))
    if wanted.remote_write is not None:
        from edgekit_runtime.telemetry.posting import address
        from edgekit_runtime.telemetry.remote_write import remote_write

        made.append(remote_write(address(wanted.remote_write, wanted.headers), {"job": JOB, "instance": host}))
    return made

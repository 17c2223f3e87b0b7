"""A real server in a thread of the tests, over models that are lambdas, and ways to ask it byte by byte.

Refuses to leave a server behind."""

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.addresses import Address
from edgekit_runtime.served import Served
from edgekit_runtime.service import Service
from edgekit_runtime.serving import Guard, Server, Supervisor, Where
from edgekit_runtime.tensors import Runner, TensorSpec
from edgekit_runtime.watching import Watch

LOCAL = Address("127.0.0.1", 0)


@dataclass
class Live:
    """Where it listens, and the server itself."""

    at: dict[str, Any]
    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.at["http"].split("//")[1].split(":")
        return host, int(port)

    def counted(self, name: str, label: str = "") -> int:
        return self.server.counters.counts[name, label]

    def lanes_answered(self) -> int:
        """Inferences so far, of all models."""
        return sum(lane.stats.success.count for lane in self.server.service.lanes())

    def ask(self, path: str, data: bytes | None = None, verb: str | None = None, **headers: str) -> Any:
        """(status, body, headers) of one request; `_` in a header's name is a dash."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        request = urllib.request.Request(self.at["http"] + path, data, named, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def raw(self, *pieces: bytes, leave: bool = False) -> bytes:
        """All that comes back for these bytes; `leave`: say that no more will be sent."""
        with socket.create_connection(self.address, timeout=20) as connection:
            for piece in pieces:
                connection.sendall(piece)
            if leave:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def live(
    service: Service, where: Where | None = None, guard: Guard | None = None, watch: Watch | None = None
) -> Iterator[Live]:
    """The service, served on a free port."""
    told: dict[str, Any] = {}
    ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    server = Server(service, where or Where(LOCAL), guard or Guard(), Supervisor(), watch)

    def tell(at: Any) -> None:
        told.update(at)
        ready.set()

    def run() -> None:
        try:
            loop.run_until_complete(server.run(tell, stop))
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        assert told, "the server did not start"
        yield Live(told, server, loop)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()


def pair(run: Runner, name: str = "m", version: str = "1") -> Served:
    """A model from two floats to two floats."""
    spec = TensorSpec("x", "float32", (None, 2))
    return Served(name, version, "onnx", (spec,), (TensorSpec("y", "float32", (None, 2)),), run)


def two(*values: float, rows: int = 1) -> bytes:
    """A request for `pair`."""
    data = list(values) or [1.0, 2.0] * rows
    return json.dumps({"inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": data}]}).encode()


def post(path: str, body: bytes, *more: str, close: bool = True) -> bytes:
    """The bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body

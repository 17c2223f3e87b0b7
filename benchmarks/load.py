"""A load generator in a process of its own: prepared bytes on kept-alive connections, over HTTP/1.1 or gRPC.

`python benchmarks/load.py` reads one `Load` as JSON from each line of stdin and answers each with a line: a `Told`, or
`{"wrong": ...}`. Refuses to count a wrong reply: the first that has another status or other bytes ends the load."""

import json
import select
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WARM = 0.15
"""Seconds before the counted ones: every connection has then been used."""
PATIENCE = 60.0


@dataclass(frozen=True)
class Load:
    """What to send to `at` ("host:port"): the bytes in the file `request`; every reply's body is those in `expected`.

    `method` makes it gRPC: the path of a unary call. `requests` ends it before `seconds`; `pause` rests each
    connection after a reply.
    """

    at: str
    request: str
    expected: str
    connections: int = 1
    seconds: float = 1.0
    requests: int = 0
    pause: float = 0.0
    status: int = 200
    method: str | None = None


@dataclass(frozen=True)
class Told:
    """What was counted: requests answered right, seconds, percentiles of their latency in ms; `answered` before too."""

    requests: int
    seconds: float
    p50: float
    p99: float
    worst: float
    answered: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class Wrong(Exception):
    """A reply that is not the expected one."""


def run(load: Load) -> Told:
    """Send it, wait for it, count it.

    Raises:
        Wrong: a reply was not the expected one, or none came.
    """
    request, expected = Path(load.request).read_bytes(), Path(load.expected).read_bytes()
    one = _over_grpc if load.method else _over_http
    return one(load, request, expected)


def ask(at: str, request: bytes, seconds: float = PATIENCE) -> tuple[int, bytes]:
    """One request over HTTP on a connection of its own: status and body."""
    with socket.create_connection(_address(at), timeout=seconds) as one:
        one.sendall(request)
        buffer, head = bytearray(), None
        while head is None or len(buffer) < head.end + head.length:
            piece = one.recv(1 << 20)
            if not piece:
                raise Wrong(f"the connection closed after {len(buffer)} bytes")
            buffer += piece
            head = head or _head(buffer)
    return head.status, bytes(buffer[head.end : head.end + head.length])


def ask_grpc(at: str, method: str, request: bytes, seconds: float = PATIENCE) -> bytes:
    """One unary call: the reply's bytes."""
    import grpc

    with grpc.insecure_channel(at, options=_OPTIONS) as channel:
        call = channel.unary_unary(method)
        return bytes(call(request, timeout=seconds, wait_for_ready=True))


@dataclass(frozen=True)
class _Head:
    status: int
    end: int
    length: int


def _head(buffer: bytearray) -> _Head | None:
    """A reply's status, where its body begins, and how long that is; None while the head is not whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = bytes(buffer[:end]).lower().split(b"\r\n")
    lengths = [int(line.partition(b":")[2]) for line in lines[1:] if line.startswith(b"content-length:")]
    if len(lengths) != 1:
        raise Wrong(f"a reply with {len(lengths)} content-length headers: {lines[0].decode('latin-1')}")
    return _Head(int(lines[0][9:12]), end + 4, lengths[0])


class _Connection:
    """One kept-alive connection with one request under way."""

    def __init__(self, at: str, request: bytes, expected: bytes, status: int) -> None:
        self.socket = socket.create_connection(_address(at), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.request, self.expected, self.status = memoryview(request), expected, status
        self.buffer, self.left, self.sent_at = bytearray(), memoryview(b""), 0.0

    def begin(self) -> bool:
        """Send the request; True if some of it must wait until the socket takes more."""
        self.sent_at, self.left = time.perf_counter(), self.request
        return self.go_on()

    def go_on(self) -> bool:
        """Send more of it; True if some must wait still."""
        try:
            self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            return True
        return len(self.left) > 0

    def done(self) -> bool:
        """Take what came; True when the whole reply is there and right."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise Wrong(f"the server closed a connection, {len(self.buffer)} bytes into a reply")
        self.buffer += piece
        head = _head(self.buffer)
        if head is None or len(self.buffer) < head.end + head.length:
            return False
        if head.status != self.status or self.buffer[head.end :] != self.expected:
            raise Wrong(f"status {head.status}, body {bytes(self.buffer[head.end :][:300])!r}")
        self.buffer.clear()
        return True


def _over_http(load: Load, request: bytes, expected: bytes) -> Told:
    """All connections in one epoll loop: sends the next request of a connection as soon as its reply is there."""
    made = [_Connection(load.at, request, expected, load.status) for _ in range(load.connections)]
    known = {one.socket.fileno(): one for one in made}
    poll = select.epoll()
    try:
        for number, one in known.items():
            poll.register(number, select.EPOLLIN | (select.EPOLLOUT if one.begin() else 0))
        count = _Count(load)
        while count.open:
            events = poll.poll(PATIENCE)
            if not events:
                raise Wrong(f"no reply within {PATIENCE:.0f} s")
            for number, event in events:
                one = known[number]
                if event & select.EPOLLOUT and not one.go_on():
                    poll.modify(number, select.EPOLLIN)
                if event & ~select.EPOLLOUT and one.done():
                    count.add(one.sent_at)
                    if load.pause:
                        time.sleep(load.pause)
                    if one.begin():
                        poll.modify(number, select.EPOLLIN | select.EPOLLOUT)
        return count.told()
    finally:
        poll.close()
        for one in made:
            one.socket.close()


class _Count:
    """Latencies from the end of the warm-up until the load is over."""

    def __init__(self, load: Load) -> None:
        self.from_, self.wanted = time.perf_counter() + (0.0 if load.requests else WARM), load.requests
        self.until, self.last = self.from_ + load.seconds, self.from_
        self.taken, self.open, self.answered = array("d"), True, 0

    def add(self, sent_at: float) -> None:
        now = time.perf_counter()
        self.answered += 1
        if self.open and now >= self.from_:
            self.taken.append(now - sent_at)
            self.last = now
            self.open = len(self.taken) < self.wanted if self.wanted else now < self.until

    def told(self) -> Told:
        return told(self.taken, self.last - self.from_, self.answered)


def told(taken: Sequence[float], seconds: float, answered: int) -> Told:
    """Latencies in seconds as what is reported of them."""
    if not taken:
        raise Wrong("not one reply in time")
    order = sorted(taken)
    p50, p99 = (order[min(len(order) - 1, int(len(order) * share))] * 1e3 for share in (0.5, 0.99))
    return Told(len(order), seconds, p50, p99, order[-1] * 1e3, answered)


_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # else all channels to one address share one connection
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


def _over_grpc(load: Load, request: bytes, expected: bytes) -> Told:
    """A channel with a connection of its own for each thread: gRPC's C core, bytes in, bytes out."""
    import grpc

    count, lock, wrong = _Count(load), threading.Lock(), list[str]()

    def one(call: Callable[..., Any]) -> None:
        try:
            while count.open and not wrong:
                sent_at = time.perf_counter()
                if call(request, timeout=PATIENCE) != expected:
                    raise Wrong("a gRPC reply of other bytes")
                with lock:
                    count.add(sent_at)
        except (grpc.RpcError, Wrong) as error:
            wrong.append(str(error)[:300])

    channels = [grpc.insecure_channel(load.at, options=_OPTIONS) for _ in range(load.connections)]
    try:
        threads = [threading.Thread(target=one, args=[channel.unary_unary(load.method)]) for channel in channels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for channel in channels:
            channel.close()
    if wrong:
        raise Wrong(wrong[0])
    return count.told()


def _address(at: str) -> tuple[str, int]:
    host, _, port = at.rpartition(":")
    return host, int(port)


def answer(line: str) -> Mapping[str, Any]:
    """What the process says to one line."""
    try:
        return asdict(run(Load(**json.loads(line))))
    except (Wrong, OSError) as error:
        return {"wrong": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    for text in sys.stdin:
        sys.stdout.write(json.dumps(answer(text)) + "\n")
        sys.stdout.flush()

"""Bytes to a live HTTP server, and what comes back, told apart: answers, silence, and what must never be.

Refuses nothing; who asks judges."""

import re
import socket
from collections.abc import Sequence

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
INFER = "/v2/models/tiny/infer"


def send(address: str, pieces: Sequence[bytes], leave: bool = True, seconds: float = 5.0) -> bytes:
    """Send `pieces`, close our side (`leave`), and give all that comes until the server closes."""
    host, port = address.rsplit(":", 1)
    came = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
            if leave:
                connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(65536):
                came += block
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass
    return came


def statuses(came: bytes) -> list[int]:
    """The status of each answer in what came; bodies here hold no status line."""
    return [int(code) for code in STATUS.findall(came)]


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request as bytes."""
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def get(path: str, *headers: str) -> bytes:
    """A request as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()

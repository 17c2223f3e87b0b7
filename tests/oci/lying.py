"""A registry that answers what a test tells it to, and notes what it was asked. Refuses nothing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Liar:
    """Where it listens; the requests as (verb, path, headers); a reply, or several one after the other, by path."""

    address: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    replies: dict[str, list[Reply]] = field(default_factory=dict)

    def reply(self, path: str, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer that to `path`, after what was said of it before."""
        told = {key.replace("_", "-"): value for key, value in headers.items()}
        self.replies.setdefault(path, []).append((status, told, body))

    def times(self, path: str) -> int:
        """How often it was asked for `path`."""
        return sum(one == path for _, one, _ in self.asked)


@contextmanager
def lying(endless: bytes | None = None) -> Iterator[Liar]:
    """The server, until the end of the block; `endless` is repeated for ever at /v2/x/blobs/..., if it is given."""
    liar = Liar()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(liar, endless))
    liar.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        server.server_close()


def _handler(liar: Liar, endless: bytes | None) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            liar.asked.append((self.command, path, dict(self.headers.items())))
            if endless is not None and "/blobs/" in path:
                self._endless(endless)
                return
            known = liar.replies.get(path)
            status, headers, body = (known.pop(0) if len(known) > 1 else known[0]) if known else (404, {}, b"")
            if path == "/v2/" and not known:
                status = 200
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body if self.command != "HEAD" else b"")

        do_HEAD = do_POST = do_GET

        def _endless(self, piece: bytes) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(piece)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler

"""The yardstick: an asyncio protocol over httptools that reads v2 in JSON and binary, runs the engine inline, replies.

`python bare.py MODEL.onnx PORT`. Refuses nothing, checks nothing, counts nothing: what is left of a server without all
that."""

import asyncio
import sys
from collections.abc import Callable

import httptools
import v2
from engine import open_session, sample

session = open_session(sys.argv[1])
FEED, OUT = session.get_inputs()[0].name, session.get_outputs()[0].name


class Protocol(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)
        self.body, self.head_length = b"", None

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request, or of several."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.pieces: list[bytes] = []
        self.head_length = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if name.lower() == b"inference-header-content-length":
            self.head_length = int(value)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        x, given = v2.read(b"".join(self.pieces), self.head_length)
        y = session.run(None, {FEED: x})[0]
        body, head_length = v2.write(y, OUT, given, self.head_length is not None)
        kind = b"application/json"
        if head_length is not None:
            kind = b"application/octet-stream\r\ninference-header-content-length: %d" % head_length
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind, len(body), body)
        )


def loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, as EdgeKit has it; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    session.run(None, {FEED: sample(session)})
    with asyncio.Runner(loop_factory=loop()) as runner:
        runner.run(main(int(sys.argv[2])))

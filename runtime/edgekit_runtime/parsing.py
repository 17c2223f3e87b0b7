"""A parser of HTTP/1.1 requests that calls back: httptools where it is installed, h11 (pure Python) where not.

Refuses what the parser refuses, as `Malformed`; both give the same calls."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

from edgekit_runtime.errors import EdgeKitError


class Malformed(Exception):
    """These bytes are no HTTP request."""


class Events(Protocol):
    """Who is called back. The target, names and values are as they came."""

    def begun(self) -> None: ...
    def target(self, piece: bytes) -> None: ...
    def header(self, name: bytes, value: bytes) -> None: ...
    def headed(self, verb: str, version: str, keep_alive: bool) -> None: ...
    def chunk(self) -> None: ...
    def body(self, piece: bytes) -> None: ...
    def ended(self) -> None: ...
    def framing(self) -> bytes:
        """The header lines that say how long the body is."""
        ...


class Parser(Protocol):
    """Takes bytes as they come."""

    def feed(self, data: bytes) -> None: ...
    def close(self) -> None:
        """Let go of who is called back: they hold each other."""
        ...


def make_parser(events: Events) -> Parser:
    """The best parser that is installed."""
    try:
        import httptools
    except ModuleNotFoundError:
        return _H11(events)
    return _HttpTools(events, httptools)


def require_parser() -> None:
    """Raise `EdgeKitError` where neither parser is installed."""
    if not any(map(_there, ("httptools", "h11"))):
        raise EdgeKitError(
            "serving needs httptools or h11, and neither is installed",
            hint="install edgekit-runtime with its [http] extra: pip install './runtime[http]'",
        )


class _HttpTools:
    """Turns httptools' callbacks into `Events`: most are handed through as they are."""

    __slots__ = (
        "_cut", "_library", "_muted", "_parser", "_rest", "events", "on_body", "on_chunk_header", "on_header",
        "on_message_begin", "on_url",
    )  # fmt: skip

    def __init__(self, events: Events, library: Any) -> None:
        self.events, self._library = events, library
        self.on_body, self.on_chunk_header = events.body, events.chunk
        self.on_message_begin, self.on_url, self.on_header = events.begun, events.target, events.header
        self._muted = self._cut = False
        self._rest = b""
        self._parser = library.HttpRequestParser(self)

    def _unless_muted(self, hear: Callable[..., None]) -> Callable[..., None]:
        def heard(*said: bytes) -> None:
            if not self._muted:
                hear(*said)

        return heard

    def on_headers_complete(self) -> None:
        if self._muted:
            self._muted = False
            return
        parser, verb = self._parser, self._parser.get_method().decode("latin-1")
        if parser.should_upgrade() and verb != "CONNECT":
            self._rest = self.events.framing()
            self._cut = bool(self._rest)
        self.events.headed(verb, parser.get_http_version(), parser.should_keep_alive())

    def on_message_complete(self) -> None:
        if not self._cut:
            self.events.ended()

    def feed(self, data: bytes) -> None:
        while data:
            data = self._fed(data)

    def close(self) -> None:
        self._parser = None
        del self.events, self.on_body, self.on_chunk_header, self.on_message_begin, self.on_url, self.on_header

    def _fed(self, data: bytes) -> bytes:
        """What is left to be fed again."""
        try:
            self._parser.feed_data(data)
            return b""
        except self._library.HttpParserUpgrade as upgrade:
            # The client offers another protocol; it is answered in this one, and goes on in it. The parser has
            # stopped, before the body if there is one: a new one reads that behind a head that nobody hears of.
            data = data[upgrade.args[0] :]
            if self._cut:
                self._cut, self._muted = False, True
                events, mute = self.events, self._unless_muted
                self.on_message_begin, self.on_url = mute(events.begun), mute(events.target)
                self.on_header = mute(events.header)
                data = b"POST / HTTP/1.1\r\n" + self._rest + b"\r\n" + data
                self._rest = b""
            self._parser = self._library.HttpRequestParser(self)
            return data
        except self._library.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except self._library.HttpParserError as error:
            raise Malformed(str(error)) from error


class _H11:
    """The same from h11's events."""

    def __init__(self, events: Events) -> None:
        import h11

        self._h11, self._events = h11, events
        self._connection = self._new()
        self._inside = False

    def feed(self, data: bytes) -> None:
        h11, events = self._h11, self._events
        if not self._inside and not self._connection.trailing_data[0]:
            data = data.lstrip(b"\r\n")  # empty lines may stand before a request
            if not data:
                return  # to h11 nothing would be the end
        try:
            self._connection.receive_data(data)
            while True:
                if not self._inside and (data or self._connection.trailing_data[0]):
                    self._inside = True
                    events.begun()
                event = self._connection.next_event()
                if isinstance(event, h11.Request):
                    self._head(event)
                elif isinstance(event, h11.Data):
                    if event.chunk_start:
                        events.chunk()
                    events.body(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    data = self._connection.trailing_data[0]
                    self._connection = self._new()
                    self._inside = False
                    events.ended()
                    if not data:
                        return
                    self._connection.receive_data(data)
                else:
                    return
        except h11.RemoteProtocolError as error:
            raise Malformed(str(error)) from error

    def close(self) -> None:
        del self._events

    def _new(self) -> Any:
        return self._h11.Connection(self._h11.SERVER, max_incomplete_event_size=65_536)

    def _head(self, request: Any) -> None:
        events, version = self._events, request.http_version.decode()
        events.target(request.target)
        words: set[bytes] = set()
        for name, value in request.headers:
            events.header(name, value)
            if name == b"connection":
                words |= {word.strip().lower() for word in value.split(b",")}
        keep = b"close" not in words if version == "1.1" else b"keep-alive" in words
        events.headed(request.method.decode("latin-1"), version, keep)


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # so says find_spec of a module that was put out of the way
        return False

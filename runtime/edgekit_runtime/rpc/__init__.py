"""The table of gRPC methods: each service is a module here with a list `METHODS`. Imported when gRPC is switched on.

Refuses nothing itself; the edge answers UNIMPLEMENTED for a path that is in no module."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit_runtime.service import Service

MODULES = ("edgekit_runtime.rpc.v2", "edgekit_runtime.rpc.tfserving")


Timed = Callable[[tuple[str, str], tuple[int, int, int, int]], None]
"""Told of an inference that is traced: by which model it was answered, and what its parts took."""
UNTRACED: AbstractContextManager[Timed | None] = nullcontext()


def _everything(scope: str) -> None:
    """Allows each scope."""


def _untraced() -> AbstractContextManager[Timed | None]:
    return UNTRACED


@dataclass(frozen=True, slots=True)
class Context:
    """What a method knows of the call beside its message.

    `timeout` is how many seconds the answer may take, None for as long as it takes; `metadata` are the headers that
    came, their names in lower case. `allow` raises unless the caller may use a scope beyond the method's own.
    `stopping` is set when the server ends: a stream then answers what it has taken, and ends. `identify` gives the id
    of a request that says this one itself (None: it says none); it is None where nobody asks for ids. `trace` is
    entered around each request of a stream, and `traced` is for the one of another call.
    """

    timeout: float | None = None
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    allow: Callable[[str], None] = _everything
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    traced: Timed | None = None
    trace: Callable[[], AbstractContextManager[Timed | None]] = _untraced
    identify: Callable[[str | None], str] | None = None


Answer = Callable[["Service", Any, Context], Awaitable[Any]]
"""One message in, one message out; an `EdgeKitError` becomes a status."""
Stream = Callable[["Service", AsyncIterator[Any], Context], AsyncIterator[Any]]
"""Messages in (a method that takes one gets an iterator of one), messages out."""


@dataclass(frozen=True)
class Method:
    """One method: `answer` or, where it streams, `stream`. `path` is "/package.Service/Name".

    `scope` is what a token must allow: "open" (none is asked for), "infer", "metrics" or "admin" (not on the public
    address). `request` and `response` are message classes.
    """

    path: str
    request: type[Any]
    response: type[Any]
    scope: str
    answer: Answer | None = None
    stream: Stream | None = None

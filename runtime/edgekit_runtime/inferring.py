"""One inference from a protocol's request to its reply: read, run, write, count. For every protocol and edge.

Refuses what the protocol, the lane or the model refuses; every request is counted as answered or failed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from edgekit_runtime.errors import BadRequest, EdgeKitError, Unsupported
from edgekit_runtime.lane import Lane
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.tensors import Feeds
from edgekit_runtime.threads import in_thread

HEAVY = 128 * 1024
"""Bodies and answers beyond this many bytes are read and written in a thread: the event loop has others to serve."""


def answer(lane: Lane, read: Callable[[], Asked], size: int, timeout: float | None) -> Any | Awaitable[Any]:
    """The reply, at once where the model is quick and the request small; else something to await.

    `size` is the request's, in bytes; `timeout` the seconds that the server allows (None: no limit).
    """
    if size > HEAVY or not lane.quick:
        return infer(lane, read, size > HEAVY, timeout)
    start = time.perf_counter_ns()
    try:
        asked = read()
        begun = time.perf_counter_ns()
        feeds = asked.feeds
        found = None if callable(feeds) else lane.now(feeds)
        if found is None or callable(feeds):
            return infer(lane, lambda: asked, False, timeout)
        outputs, took = found
        run = time.perf_counter_ns()
        if sum(value.nbytes for value in outputs.values()) > HEAVY:
            return _written(lane, asked, feeds, outputs, (begun - start, took))
        reply = asked.write(outputs)
    except Unsupported as error:
        _failed(lane, start, error)
        raise _unrunnable(lane, error) from error
    except BaseException as error:
        _failed(lane, start, error)
        raise
    _answered(lane, asked, feeds, outputs, (begun - start, 0, took, time.perf_counter_ns() - run))
    return reply


async def _written(lane: Lane, asked: Asked, feeds: Feeds, outputs: Feeds, spent: tuple[int, int]) -> Any:
    """A large reply of a quick model, written in a thread."""
    start = time.perf_counter_ns()
    try:
        reply = await in_thread(lambda: asked.write(outputs))
    except BaseException as error:
        _failed(lane, start - sum(spent), error)
        raise
    _answered(lane, asked, feeds, outputs, (spent[0], 0, spent[1], time.perf_counter_ns() - start))
    return reply


async def infer(lane: Lane, read: Callable[[], Asked], heavy: bool, timeout: float | None) -> Any:
    """As `answer`, always awaited; `heavy` requests are read in a thread.

    Raises:
        EdgeKitError: as the protocol and the lane do.
    """
    start = time.perf_counter_ns()
    lane.users += 1
    try:
        asked = await in_thread(read) if heavy else read()
        return await _rest(lane, asked, start, timeout)
    except BaseException as error:
        _failed(lane, start, error)
        raise
    finally:
        lane.left()


async def _rest(lane: Lane, asked: Asked, start: int, timeout: float | None) -> Any:
    """From a read request on."""
    try:
        seconds = min((t for t in (asked.timeout, timeout) if t), default=None)
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        feeds = asked.feeds
        if callable(feeds):
            feeds = await in_thread(feeds)
        begun = time.perf_counter_ns()
        outputs, queued, took = await lane.timed(feeds, deadline)
        run = time.perf_counter_ns()
        size = sum(value.nbytes for value in outputs.values())
        reply = await in_thread(lambda: asked.write(outputs)) if size > HEAVY else asked.write(outputs)
    except Unsupported as error:
        raise _unrunnable(lane, error) from error
    _answered(lane, asked, feeds, outputs, (begun - start, queued, took, time.perf_counter_ns() - run))
    return reply


def _answered(lane: Lane, asked: Asked, feeds: Feeds, outputs: Feeds, spent: tuple[int, int, int, int]) -> None:
    """Count it, and tell whoever traces or watches; `spent` are the nanoseconds of input, queue, engine and output."""
    lane.stats.answered(*spent)
    if asked.traced is not None:
        asked.traced((lane.served.name, lane.served.version), spent)
    if lane.settings.tracing:
        named = dict(zip(("input_ns", "queue_ns", "infer_ns", "output_ns"), spent, strict=True))
        lane.settings.traced(lane.served.name, lane.served.version, named)
    if lane.observer is not None:
        lane.observer(lane, asked, feeds, outputs, spent[2])


def _failed(lane: Lane, start: int, error: BaseException) -> None:
    reason = error.reason if isinstance(error, EdgeKitError) else "bug" if isinstance(error, Exception) else "cancelled"
    lane.stats.failed(time.perf_counter_ns() - start, reason)


def _unrunnable(lane: Lane, error: Unsupported) -> BadRequest:
    """What the engine says of sizes that do not fit each other; its words stay in the log."""
    import logging

    logging.getLogger("edgekit_runtime.inferring").warning("%s: %s", lane.served.name, error.what)
    return BadRequest("the model cannot run these inputs", hint="check that their sizes fit each other")

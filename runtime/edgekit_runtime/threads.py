"""Work that would hold up the event loop, in one of a few threads.

Refuses nothing. Who is cancelled meanwhile is let go only once the thread is done: what it works on is still in use."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")
MOST = 4


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` gives or raises."""
    doing = _pool().submit(work)
    try:
        return await asyncio.wrap_future(doing)
    except asyncio.CancelledError:
        if not doing.cancel():
            await asyncio.wait([asyncio.ensure_future(_end(doing))])
        raise


async def _end(doing: Future[T]) -> None:
    await asyncio.gather(asyncio.wrap_future(doing), return_exceptions=True)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST, "body")

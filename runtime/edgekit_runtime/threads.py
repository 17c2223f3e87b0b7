"""Work that would hold up the event loop, in one of a few threads.

Refuses nothing. Who is cancelled meanwhile is let go only once the thread is done: what it works on is still in use."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")
MOST = max(1, min(4, (os.cpu_count() or 1) // 2))
"""A photo of a few kilobytes may take 400 MB while it is decoded: each thread more may take as much again."""


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` gives or raises."""
    held = [work]
    doing = _pool().submit(lambda: held.pop()())
    try:
        return await asyncio.wrap_future(doing)
    except asyncio.CancelledError:
        if doing.cancel():
            held.clear()  # it stays in the pool's queue, and need not keep what it was to work on
        else:
            await asyncio.wait([asyncio.ensure_future(_end(doing))])
        raise
    finally:
        del doing  # an error knows this frame, and would hold what was worked on until the next collection


async def _end(doing: Future[T]) -> None:
    await asyncio.gather(asyncio.wrap_future(doing), return_exceptions=True)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST, "body")

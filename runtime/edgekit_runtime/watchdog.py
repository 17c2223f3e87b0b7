"""Signs of life for systemd, each earned by a real inference of every model: a hung engine gets no more of them.

Refuses to vouch for a model that does not answer, or answers NaN or Infinity of late: systemd restarts us."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import numpy as np

from edgekit_runtime.errors import BadRequest, Busy, EdgeKitError, Late
from edgekit_runtime.lane import Lane
from edgekit_runtime.tensors import Array

log = logging.getLogger("edgekit_runtime.watchdog")

Probe = Callable[[], Awaitable[None]]
ALIVE = "WATCHDOG=1"
PATIENCE = 0.4
"""Of the interval: less than the half after which the next sign is due."""


async def feed(probe: Probe, interval: float, notify: Callable[[str], None]) -> None:
    """Twice in `interval` seconds: run the probe, and tell systemd once it passed. Runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        start = loop.time()
        try:
            async with asyncio.timeout(interval / 2):
                await probe()
        except TimeoutError:
            log.error("a model did not answer within %.3g s: systemd is not told that we live", interval / 2)
        except Exception as error:  # whatever an engine raises: this task must live on, and go on trying
            log.error("%s: systemd is not told that we live", error)
        else:
            notify(ALIVE)
        await asyncio.sleep(max(0.0, start + interval / 2 - loop.time()))


async def watch(lanes: Callable[[], Iterable[Lane]], interval: float, notify: Callable[[str], None]) -> None:
    """`feed` with a probe of these lanes, whose engines are open; each has most of half the interval to answer."""
    await feed(probe_of(lanes, interval * PATIENCE), interval, notify)


def probe_of(lanes: Callable[[], Iterable[Lane]], seconds: float) -> Probe:
    """A probe that sends each lane its recorded input and gives it `seconds`; `lanes` are asked for each time.

    A lane that is full or slow under load passes as long as its engine got something done since the last
    probe: a busy server must not be killed for being busy. A model without a recorded input is not tried.
    """
    known: dict[Lane, _Known] = {}

    async def probe() -> None:
        now = {lane: known.get(lane) or _Known(lane.stats.executions) for lane in lanes()}
        known.clear()
        known.update(now)
        await asyncio.gather(*(_try(lane, seconds, now[lane]) for lane in now))

    return probe


@dataclass(slots=True)
class _Known:
    """What the last probe saw: how often the engine had run, which outputs were not finite (None: no answer yet)."""

    executions: int
    odd: frozenset[str] | None = None


async def _try(lane: Lane, seconds: float, known: _Known) -> None:
    """Raise where the lane's engine gives no proof of life."""
    served = lane.served
    if served.sample is None:
        return
    try:
        answer = await lane.probe(dict(served.sample), asyncio.get_running_loop().time() + seconds)
    except BadRequest:  # a recorded NaN that this server was told to refuse
        return
    except EdgeKitError as error:
        if lane.closing or (isinstance(error, Busy | Late) and lane.stats.executions > known.executions):
            return
        raise EdgeKitError(f"model {served.name} {served.version} does not answer: {error.what}") from error
    finally:
        known.executions = lane.stats.executions
    odd = frozenset(name for name, value in answer.items() if not _finite(value))
    if known.odd is None:
        known.odd = odd  # a mask of -Infinity is right for some models: it was so from the start
    if worse := sorted(odd - known.odd):
        raise EdgeKitError(f"model {served.name} {served.version} answers NaN or Infinity in {', '.join(worse)}")


def _finite(value: Array) -> bool:
    return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())

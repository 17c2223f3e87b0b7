"""Replays each model's recorded inputs while it is served, soon after it came and then once a day.

Refuses nothing; an answer that is off is logged and told, the model is served on: whether to go back is not decided
here."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgekit_runtime.errors import BadBundle, Busy, EdgeKitError, Late, NotFound
from edgekit_runtime.lane import Lane
from edgekit_runtime.logs import event
from edgekit_runtime.selftest import judged, recordings

log = logging.getLogger("edgekit_runtime.selftests")

DAY = 86_400.0
LOOK_SECONDS = 5.0
PATIENCE = 60.0
"""How long one recorded input may wait for its answer."""
AGAIN_SECONDS, LONGEST = 60.0, 3600.0
"""A lane that had no time for it is asked again after so long, and then after twice that, and so on."""


@dataclass(frozen=True)
class Result:
    """How the last replay went; `when_ms` is in milliseconds since 1970."""

    passed: bool
    when_ms: int


class SelfTests:
    """The last result of each lane."""

    def __init__(self, lanes: Callable[[], Iterable[Lane]], every: float = DAY, look: float = LOOK_SECONDS) -> None:
        self._lanes, self._every, self._look = lanes, every, look
        self._results: dict[Lane, Result] = {}
        self._due: dict[Lane, float] = {}
        self._tries: dict[Lane, int] = {}

    def result(self, lane: Lane) -> Result | None:
        """The lane's; None before its first."""
        return self._results.get(lane)

    def results(self) -> dict[tuple[str, str], tuple[bool, int]]:
        """By model and version: whether it passed, and when."""
        found = ((lane.served, one) for lane, one in self._results.items())
        return {(served.name, served.version): (one.passed, one.when_ms) for served, one in found}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._look)
            now, lanes = time.monotonic(), list(self._lanes())
            self._due = {lane: self._due.get(lane, now) for lane in lanes}
            self._results = {lane: one for lane, one in self._results.items() if lane in self._due}
            self._tries = {lane: count for lane, count in self._tries.items() if lane in self._due}
            for lane in lanes:
                if self._due[lane] <= now:
                    rest = await self._rest(lane)
                    self._due[lane] = time.monotonic() + rest

    async def _rest(self, lane: Lane) -> float:
        """Test the lane; how many seconds until the next time."""
        if await self._tested(lane):
            self._tries.pop(lane, None)
            return self._every
        tries = self._tries[lane] = self._tries.get(lane, 0) + 1
        return min(LONGEST, AGAIN_SECONDS * 2.0 ** min(tries - 1, 10))

    async def _tested(self, lane: Lane) -> bool:
        """Whether there is a result, or will be none; a lane that is busy is asked again later."""
        name, version, bundle = lane.served.name, lane.served.version, lane.served.bundle
        if bundle is None or bundle.manifest.golden is None:
            return True
        off = ""
        try:
            off = await fault(lane)
        except (Busy, Late, NotFound) as error:
            log.debug("%s: no self-test now: %s", name, error.what)
            return False
        except BadBundle as error:  # its folder may be gone: that says nothing of the model
            log.warning("%s %s: no self-test: %s", name, version, error.what)
            return True
        if off:
            said = f"{name} {version}: the self-test failed: {off}"
            event(log, logging.ERROR, "selftest-failed", said, model=name, version=version)
        self._results[lane] = Result(not off, time.time_ns() // 1_000_000)
        return True


async def fault(lane: Lane) -> str:
    """What is wrong with the answers that a lane's engine gives to the recorded inputs now; empty: nothing.

    Raises:
        Busy, Late: it has no time for them now.
        NotFound: the lane has ended, or there are no recordings.
        BadBundle: they do not read.
    """
    assert lane.served.bundle is not None
    golden, pairs = await asyncio.to_thread(recordings, lane.served.bundle)
    try:
        answers = [await lane.probe(feeds, asyncio.get_running_loop().time() + PATIENCE) for feeds, _ in pairs]
        found = await asyncio.to_thread(judged, golden, pairs, answers)
    except (Busy, Late, NotFound):
        raise
    except Exception as error:  # whatever an engine raises on an input that it answered when it was built
        return error.what if isinstance(error, EdgeKitError) else type(error).__name__
    return "" if found.passed else f"{found.output} is off by {found.worst:.2g} of its range"

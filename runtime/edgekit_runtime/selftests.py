"""Replays each model's recorded inputs while it is served, soon after it came and then once a day.

Refuses nothing; an answer that is off is logged and told, the model is served on: whether to go back is not decided
here."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.lane import Lane
from edgekit_runtime.logs import event
from edgekit_runtime.selftest import judged, recordings

log = logging.getLogger("edgekit_runtime.selftests")

DAY = 86_400.0
LOOK_SECONDS = 5.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Result:
    """How the last replay went; `when_ms` is in milliseconds since 1970."""

    passed: bool
    when_ms: int


class SelfTests:
    """The last result of each lane."""

    def __init__(self, lanes: Callable[[], Iterable[Lane]], every: float = DAY) -> None:
        self._lanes, self._every = lanes, every
        self._results: dict[Lane, Result] = {}
        self._due: dict[Lane, float] = {}

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
            await asyncio.sleep(LOOK_SECONDS)
            now, lanes = time.monotonic(), list(self._lanes())
            self._due = {lane: self._due.get(lane, now) for lane in lanes}
            self._results = {lane: one for lane, one in self._results.items() if lane in self._due}
            for lane in lanes:
                if self._due[lane] <= now and await self._tested(lane):
                    self._due[lane] = now + self._every

    async def _tested(self, lane: Lane) -> bool:
        """Whether there is a result, or never will be; a lane that is busy is asked again later."""
        bundle = lane.served.bundle
        if bundle is None or bundle.manifest.golden is None:
            return True
        try:
            golden, pairs = await asyncio.to_thread(recordings, bundle)
            deadline = asyncio.get_running_loop().time() + PATIENCE
            answers = [await lane.probe(feeds, deadline) for feeds, _ in pairs]
        except EdgeKitError as error:
            log.debug("%s: no self-test now: %s", lane.served.name, error.what)
            return False
        found = judged(golden, pairs, answers)
        if not found.passed:
            name, version = lane.served.name, lane.served.version
            said = f"{name} {version}: the self-test failed: {found.output} is off by {found.worst:.2g} of its range"
            event(log, logging.ERROR, "selftest-failed", said, model=name, version=version)
        self._results[lane] = Result(found.passed, time.time_ns() // 1_000_000)
        return True

"""Has each model that is served take the exam that its bundle brings, once: what came of it is kept beside the server.

Refuses nothing; one that is missed is logged and told, the model is served on: what is installed on a device was
refused before it came here (see `trying`)."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import BadBundle, Busy, EdgeKitError, Late, NotFound
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.lane import Lane
from edgekit_runtime.logs import event
from edgekit_runtime.metrics.models import labels
from edgekit_runtime.scored import Scored, keep, kept, key, score
from edgekit_runtime.tensors import Feeds

log = logging.getLogger("edgekit_runtime.exams")

LOOK_SECONDS = 5.0
PATIENCE = 60.0
"""How long one sample may wait for its answer."""
NOTICE_SECONDS, REST_SECONDS = 0.5, 1.0
TRIES = 5
"""A lane that has no time for it is asked so often."""


class Exams:
    """The result of each lane. All methods belong to the event loop."""

    def __init__(self, lanes: Callable[[], Iterable[Lane]], folder: Path | None, look: float = LOOK_SECONDS) -> None:
        self._lanes, self._folder, self._look = lanes, folder, look
        self._results: dict[Lane, Scored] = {}
        self._tries: dict[Lane, int] = {}
        self._ended = threading.Event()

    def result(self, lane: Lane) -> Scored | None:
        """The lane's; None where it has no exam, or did not end it."""
        return self._results.get(lane)

    def families(self) -> list[Family]:
        """For Prometheus; of models that took one."""
        found = [(labels(lane), one) for lane, one in self._results.items()]
        if not found:
            return []
        passed = [Sample(float(one.outcome != "missed"), known) for known, one in found]
        drops = [Sample(one.drop, known) for known, one in found if one.drop is not None]
        return [
            Family(
                "edgekit_exam_passed", "gauge", "0 where the model does worse here than was allowed.", tuple(passed)
            ),
            Family("edgekit_exam_drop", "gauge", "How much worse, in the metric's own unit.", tuple(drops)),
        ]

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            lanes = list(self._lanes())
            self._results = {lane: one for lane, one in self._results.items() if lane in lanes}
            self._tries = {lane: count for lane, count in self._tries.items() if lane in lanes}
            for lane in lanes:
                await self._examine(lane)
            await asyncio.sleep(self._look)

    def close(self) -> None:
        """Have the exam that is being taken end."""
        self._ended.set()

    async def _examine(self, lane: Lane) -> None:
        bundle, tries = lane.served.bundle, self._tries.get(lane, 0)
        if bundle is None or bundle.manifest.exam is None or lane in self._results or tries >= TRIES:
            return
        self._tries[lane] = tries + 1
        name, version = lane.served.name, lane.served.version
        try:
            scored = await asyncio.to_thread(self._result, lane, bundle, asyncio.get_running_loop())
        except (Busy, Late, NotFound) as error:
            log.debug("%s: no exam now: %s", name, error.what)
            return
        except EdgeKitError as error:
            self._tries[lane] = TRIES
            log.warning("%s %s: no exam: %s", name, version, error.what)
            return
        self._results[lane] = scored
        missed = scored.outcome == "missed"
        said = f"{name} {version}: {scored.text()}"
        event(
            log, logging.ERROR if missed else logging.INFO, f"exam-{scored.outcome}", said, model=name, version=version
        )

    def _result(self, lane: Lane, bundle: Bundle, loop: asyncio.AbstractEventLoop) -> Scored:
        """What was kept, else what the lane's engine does now. In a thread."""
        try:
            known = key(bundle)
        except OSError as error:  # its folder may be gone: that says nothing of the model
            raise BadBundle(f"the bundle is not there any more: {error.strerror}") from error
        if self._folder is not None and (before := kept(self._folder, known)) is not None:
            return before

        def run(feeds: Feeds) -> Feeds:
            if self._ended.is_set():
                raise Late("the server ends")
            begun = time.monotonic()
            asked = asyncio.run_coroutine_threadsafe(lane.probe(feeds, loop.time() + PATIENCE), loop)
            while not asked.done():
                if self._ended.is_set() or time.monotonic() - begun > 2 * PATIENCE:
                    asked.cancel()
                    raise Late("the model does not answer its exam")
                wait((asked,), NOTICE_SECONDS)
            self._ended.wait(min(time.monotonic() - begun, REST_SECONDS))  # half of the engine is for who asks
            return asked.result()

        try:
            found = score(bundle, run, lambda done, of: None)
        except EdgeKitError:
            raise
        except Exception as error:  # whatever an engine raises on a sample
            raise BadBundle(f"the engine fails on a sample of its exam: {type(error).__name__}") from error
        if self._folder is not None:
            with suppress(OSError):  # then it is taken again at the next start
                keep(self._folder, known, found)
        return found

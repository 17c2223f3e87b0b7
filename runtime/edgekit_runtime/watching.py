"""All by which a running server watches itself, put together: metrics, machine, monitor, self-tests, page, telemetry.

Refuses what the parts refuse when they begin: a folder that cannot be written, a command that is not there."""

import asyncio
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime import status
from edgekit_runtime.counters import Counters
from edgekit_runtime.exams import Exams
from edgekit_runtime.exchange import Request, Response
from edgekit_runtime.families import Family
from edgekit_runtime.lane import Lane
from edgekit_runtime.logs import event
from edgekit_runtime.monitor import Alarm, Monitor
from edgekit_runtime.protocols import jsons
from edgekit_runtime.recent import Recent, Trouble, placeless
from edgekit_runtime.routes import Parts, Route, ours
from edgekit_runtime.selftests import SelfTests
from edgekit_runtime.service import Change, Service
from edgekit_runtime.threads import in_thread
from edgekit_runtime.watched import Wishes, pair

if TYPE_CHECKING:
    from edgekit_runtime.beside import Beside
    from edgekit_runtime.feedback import State
    from edgekit_runtime.hook import Hook
    from edgekit_runtime.machine import Machine, Reader
    from edgekit_runtime.slots import Slots
    from edgekit_runtime.telemetering import Telemetry
    from edgekit_runtime.traces import Tracer

log = logging.getLogger("edgekit_runtime.watching")

HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
FRESH_SECONDS = 0.9
"""A reading of the machine serves everybody who asks within so many seconds."""
LOOK_SECONDS, LOOKS = 10.0, 30
"""Five minutes of them are told to who asks for /status?recent."""
KEEP_SECONDS = 10.0
"""How often feedback is written down, for the time after a restart."""
LAST_SECONDS = 2.0
"""How long the end waits for what is being written down."""


@dataclass(frozen=True)
class Watch:
    """What is to be watched and told. `state` is the folder for what is kept on disk, `slots` a device's store."""

    page: bool = True
    triton: bool = False
    wishes: Wishes = field(default_factory=Wishes)
    state: Path | None = None
    telemetry: "Telemetry | None" = None
    tracer: "Tracer | None" = None
    hook: "Hook | None" = None
    slots: "Slots | None" = None


class Watching:
    """One server's. All methods belong to the event loop, but those that say otherwise."""

    def __init__(self, service: Service, counters: Counters, connections: Callable[[], int], watch: Watch) -> None:
        self.service, self.watch = service, watch
        self._counters, self._connections = counters, connections
        self._started_ms = time.time_ns() // 1_000_000
        self._recent = Recent(self._troubled)
        self._selftests = SelfTests(service.open_lanes)
        self._exams = Exams(service.open_lanes, watch.state if watch.slots is None else watch.slots.device.folder)
        self._monitor: Monitor | None = None
        self._beside: Mapping[Lane, Beside] = {}
        self._looks: deque[dict[str, Any]] = deque(maxlen=LOOKS)
        self._raised: dict[tuple[str, str], int] = {}
        self._machine: Machine | None = None
        self._reader: Reader | None = None
        self._read_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._works: list[asyncio.Task[None]] = []
        self._unsaved = False

    @property
    def ids(self) -> bool:
        """Whether each request needs an id, by which it is known later."""
        wishes = self.watch.wishes
        return wishes.feedback is not None or wishes.samples is not None

    def routes(self) -> list[Route]:
        """Those of every address; they stand before all others."""
        from edgekit_runtime.routes import field as told_later

        wishes = self.watch.wishes
        made = ours.routes(partial(self.measured, self.watch.triton))
        made.append(Route("GET", re.compile("/status"), "metrics", tell=self._status))
        made += told_later.routes(wishes.feedback, wishes.samples)
        if self.watch.page:
            from edgekit_runtime.routes import page

            made = [*page.routes(), *made]
        return made

    async def run(self, stack: AsyncExitStack) -> None:
        """Begin; the stack ends it."""
        root = logging.getLogger("edgekit_runtime")
        root.addHandler(self._recent)
        stack.callback(root.removeHandler, self._recent)
        self.service.on_change = self._changed
        self.service.tracer, self.service.ids = self.watch.tracer, self.ids
        event(log, logging.INFO, "server-started", f"serving {', '.join(self.service.names()) or 'no models yet'}")
        self._know()
        self._doubt()
        if self.watch.slots is not None:
            self.watch.slots.compare = self._compare
        stack.push_async_callback(self._stop)
        if self.watch.wishes.feedback is not None and self.watch.state is not None:
            from edgekit_runtime.feedback import load

            before = await in_thread(partial(load, self.watch.state))
            if before is not None:
                self.watch.wishes.feedback.restore(before)
            self._works.append(asyncio.ensure_future(self._keep(self.watch.state)))
        self._works += [
            asyncio.ensure_future(work) for work in (self._selftests.run(), self._exams.run(), self._remember())
        ]
        await self._refresh()
        if self.watch.telemetry is not None:
            self.watch.telemetry.start(self.measured, asyncio.get_running_loop())
            self.watch.telemetry.event("started", models=self.service.names())

    async def _stop(self) -> None:
        watch = self.watch
        event(log, logging.INFO, "server-stopped", "no more requests are taken")
        self.service.observe(None)
        self._exams.close()
        works = [*self._works, *([] if self._reading is None else [self._reading])]
        for work in works:
            work.cancel()
        if works:  # two that save at once would be in each other's way
            await asyncio.wait(works, timeout=LAST_SECONDS)
        ends: list[Callable[[], None]] = [
            part.close for part in (self._monitor, watch.hook, watch.telemetry, watch.tracer) if part is not None
        ]
        if watch.wishes.feedback is not None and watch.state is not None:
            ends.append(partial(self._save, watch.state, watch.wishes.feedback.state()))
        await asyncio.gather(*map(asyncio.to_thread, ends))

    def _compare(self, beside: "Mapping[Lane, Beside]") -> None:
        """Have these versions answer, too, some of what the lanes are asked."""
        self._beside = beside
        self._know()

    def _doubt(self) -> None:
        """Say what was asked for and cannot be: no bundle carries what it needs."""
        wishes, manifests = self.watch.wishes, [lane.served.manifest for lane in self.service.lanes()]
        if not manifests:
            return
        if wishes.shadow and not any(one is not None and one.shadow is not None for one in manifests):
            log.warning("--shadow: no bundle here carries a float model: build it with --with-float")
        if self.watch.hook is not None and not any(one is not None and one.baseline is not None for one in manifests):
            log.warning("--on-drift: no bundle here has a baseline: build it with --data")

    def _know(self) -> None:
        """Have answers looked at, once there is a model of which there is something to see."""
        wishes, lanes = self.watch.wishes, self.service.lanes()
        if wishes.feedback is not None:
            for lane in lanes:
                wishes.feedback.know(*pair(lane), lane.served.labels)
        if self._monitor is None and (self.ids or self._beside or any(map(wishes.reach, lanes))):
            self._monitor = Monitor(wishes, self._alarmed)
            self._monitor.start()
            self.service.observe(self._monitor.seen)
        if self._monitor is not None:
            self._monitor.keep(lanes, self._beside)

    def _changed(self, change: Change) -> None:
        self._know()
        level = {"failed": logging.ERROR, "dropped": logging.WARNING}.get(change.what, logging.INFO)
        said = f"model {change.model} {change.version} {change.what}{f': {change.why}' if change.why else ''}"
        event(log, level, "model-" + change.what.replace(" ", "-"), said, model=change.model, version=change.version)
        if self.watch.telemetry is not None:
            self.watch.telemetry.event("model", **asdict(change))

    def _troubled(self, trouble: Trouble) -> None:
        """Something went wrong; from any thread."""
        if self.watch.telemetry is not None:
            self.watch.telemetry.event("trouble", what=trouble.what)

    def _alarmed(self, alarm: Alarm) -> None:
        """Drift began or ended; from the monitor's thread."""
        known, watch = (alarm.model, alarm.version), self.watch
        if alarm.raised:
            self._raised[known] = alarm.when_ms
        else:
            self._raised.pop(known, None)
        became = "raised" if alarm.raised else "cleared"
        self.service.history.append(Change(alarm.when_ms, f"drift {became}", *known, ", ".join(alarm.features)))
        said = f"drift alarm {became}: {' '.join(known)}{': ' if alarm.features else ''}{', '.join(alarm.features)}"
        event(log, logging.WARNING, f"drift-alarm-{became}", said, model=alarm.model, version=alarm.version)
        facts = {**asdict(alarm), "event": f"drift-{became}", "features": list(alarm.features)}
        if watch.telemetry is not None:
            watch.telemetry.event("drift", **facts)
        if watch.hook is not None:
            watch.hook.fire(facts)

    def families(self) -> list[Family]:
        """All that is watched beside the counters of requests."""
        from edgekit_runtime import machine

        self._ask_machine()
        watch, made = self.watch, [] if self._machine is None else machine.families(self._machine)
        made += self._exams.families()
        made += [] if self._monitor is None else self._monitor.families(self.service.lanes())
        wishes = watch.wishes
        for part in (wishes.feedback, wishes.samples, watch.hook, watch.telemetry, watch.tracer, watch.slots):
            made += [] if part is None else part.families()
        return made

    def measured(self, triton: bool = False) -> list[Family]:
        """Everything, as /metrics tells it."""
        from edgekit_runtime import metrics

        tests, more = self._selftests.results(), self.families()
        return metrics.families(self.service, self._counters, self._connections(), more, tests, triton)

    def _ask_machine(self) -> None:
        """Have the machine read again, in a thread: who asks is told what was read last."""
        if time.monotonic() - self._read_at > FRESH_SECONDS and (self._reading is None or self._reading.done()):
            self._reading = asyncio.ensure_future(self._refresh())

    async def _refresh(self) -> None:
        from edgekit_runtime.machine import Reader

        reader = self._reader = self._reader or Reader(disk=self.watch.state)
        self._machine = await in_thread(lambda: reader.read(time.monotonic()))
        self._read_at = time.monotonic()

    async def _remember(self) -> None:
        """Now and then how far the counts were, so that a page that is opened can tell of the last minutes."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            counted = status.counted(dict(self._counters.counts), self._connections())
            self._looks.append(status.brief(self.service.lanes(), counted, self._started_ms))

    async def _keep(self, folder: Path) -> None:
        assert self.watch.wishes.feedback is not None
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            await in_thread(partial(self._save, folder, self.watch.wishes.feedback.state()))

    def _save(self, folder: Path, state: "State") -> None:
        """Write feedback down; a disk that is full, or gone, is told once and tried again. In a thread."""
        from edgekit_runtime.feedback import save

        try:
            save(folder, state)
            self._unsaved = False
        except OSError as error:
            if not self._unsaved:
                log.warning("feedback is not written down: %s", error.strerror)
            self._unsaved = True

    def _status(self, service: Service, request: Request, parts: Parts) -> Response:
        told = self.status()
        if request.query == "recent":
            told["recent"] = list(self._looks)
        return Response(200, jsons.write(told), HEADERS)

    def status(self) -> dict[str, Any]:
        """What the page and `top` show."""
        from edgekit_runtime import machine

        self._ask_machine()
        counts, monitor = dict(self._counters.counts), self._monitor
        return {
            **status.server(socket.gethostname(), self._started_ms, time.time_ns() // 1_000_000),
            "models": [self._model(lane) for lane in self.service.lanes()],
            "machine": {} if self._machine is None else machine.to_json(self._machine),
            "errors": [asdict(one) for one in self._recent.all()],
            "history": [{**asdict(one), "why": placeless(one.why)} for one in self.service.history],
            "counters": status.counted(counts, self._connections()),
            "monitor": {"looked": monitor.looked if monitor else 0, "skipped": monitor.skipped if monitor else 0},
        }

    def _model(self, lane: Lane) -> dict[str, Any]:
        told, feedback, monitor = status.model(lane), self.watch.wishes.feedback, self._monitor
        told["unwatched"] = status.unwatched(lane.served.manifest, self.watch.wishes.drift)
        if (result := self._selftests.result(lane)) is not None:
            told["selftest"] = asdict(result)
        if (exam := self._exams.result(lane)) is not None:
            told["exam"] = {**asdict(exam), "text": exam.text()}
        if feedback is not None and (judged := feedback.quality(*pair(lane))) is not None:
            told["quality"] = status.quality(judged, told["evidence"])
        if self.watch.slots is not None:
            told["candidate"] = self.watch.slots.candidate(lane)
        if monitor is not None and (state := monitor.state(lane)) is not None:
            since = self._raised.get(pair(lane)) if state.alarm else None
            told["drift"] = status.drift(state, since, lane.served.labels)
        if monitor is not None and (shadow := monitor.shadow(lane)) is not None and shadow.state is not None:
            told["shadow"] = status.agreement(shadow.state)
        return told

"""What a server does for a device's store: serves what is live, swaps what changed, proves it, goes back by itself.

Refuses to serve for a device that trusts nobody, and beside another server of the same folder."""

import asyncio
import logging
import os
import weakref
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from edgekit_runtime import running
from edgekit_runtime.comparing import Compare, Comparing
from edgekit_runtime.deciding import Deciding, Hands
from edgekit_runtime.device import Device, become_owner, device_at
from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.lane import Lane
from edgekit_runtime.on_drift import asked_to_end_on_drift
from edgekit_runtime.probation import Terms, shortcoming
from edgekit_runtime.service import Change, Service
from edgekit_runtime.store import Event, Slot
from edgekit_runtime.store.history import ROLLED_BACK, rollbacks
from edgekit_runtime.store_source import StoreSource, is_final
from edgekit_runtime.telemetry.boots import this_boot

log = logging.getLogger("edgekit_runtime.slots")

STATES = ("good", "trial")
AGAIN_SECONDS = 60.0
"""After so long what could not be written down is tried again."""
LOOK_SECONDS = 1.0


class Slots:
    """One server's. All methods belong to the event loop, but `close`."""

    def __init__(self, device: Device, stack: ExitStack, before: Mapping[str, tuple[int, int]]) -> None:
        self.device, self.source = device, StoreSource(device)
        self._stack = stack
        self._url = ""
        self._service: Service | None = None
        self._changing = asyncio.Lock()
        self._trials: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, Slot] = {}
        self._rollbacks = {name: count for name, (count, _) in before.items()}
        self._dropped = {name: count for name, (_, count) in before.items()}
        self.compare: Compare = lambda beside: None
        self._comparing = Comparing(device, self.source)
        self._deciding: Deciding | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._watched: dict[str, weakref.ref[Lane]] = {}

    async def begin(self, service: Service, url: str) -> None:
        """The server listens: say so, and begin to prove what is on trial."""
        self._service, self._url = service, url
        for event, name in await asyncio.to_thread(self._at_start):
            service.history.appendleft(Change(int(event.when * 1000), event.what, name, event.version, event.why))
        await self._look()
        for name in self._seen:
            self._prove(name)
        self._say()
        hands = Hands(service, self._look, self._follow, self._served, self._say, lambda beside: self.compare(beside))
        self._deciding = Deciding(self.device, self._comparing, hands, self._changing)
        works = (self._deciding.run(lambda: self._seen), self._keep_proving())
        self._tasks = [asyncio.ensure_future(work) for work in works]

    async def reload(self) -> None:
        """Somebody changed the store: serve what is live now."""
        async with self._changing:
            await _told(self._look())
            for name in sorted({*self._seen, *self._served()}):
                await _told(self._follow(name))
            if self._deciding is not None:
                await _told(self._deciding.catch_up(self._seen))
            self._say()

    def close(self) -> None:
        """The server ends."""
        for task in (*self._trials.values(), *self._tasks):
            if not task.get_loop().is_closed():
                task.cancel()
        for name in [name for name, slot in self._seen.items() if slot.shadow is not None]:
            with suppress(EdgeKitError):  # it is counted as a crash then, of which a few are allowed
                self.device.store.shadow_rested(name)
        self._stack.close()

    def candidate(self, lane: Lane) -> dict[str, Any] | None:
        """What is told of the version in shadow of a lane; None where there is none."""
        return self._comparing.candidate(lane.served.name) if self.source.id_of(lane.served.bundle) else None

    def families(self) -> list[Family]:
        """What is told of the store, as it was after the last change."""
        states, left = [], []
        for name, slot in sorted(self._seen.items()):
            states += [Sample(float((slot.on_trial is None) == (state == "good")), (("model", name), ("state", state)))
                       for state in STATES]  # fmt: skip
            if slot.on_trial is not None:
                seconds = slot.on_trial.trial.started + slot.on_trial.trial.seconds - self.device.clock()
                left.append(Sample(max(0.0, seconds), (("model", name),)))
        rollbacks = [Sample(count, (("model", name),)) for name, count in sorted(self._rollbacks.items())]
        return [
            Family("edgekit_store_slot_state", "gauge", "1 for the state that a model is in.", tuple(states)),
            Family("edgekit_store_trial_seconds_left", "gauge", "Until a trial may end well.", tuple(left)),
            Family("edgekit_store_rollbacks_total", "counter", "Versions that were gone back from.", tuple(rollbacks)),
            *self._comparing.families(),
        ]

    def _at_start(self) -> list[tuple[Event, str]]:
        """What was rolled back or dropped since we began to open it, with the models' names; in a thread."""
        found = []
        for name, (count, back, dropped) in ends(self.device).items():
            new = max(0, count - self._rollbacks.get(name, 0))
            events = [*back[max(0, len(back) - new) :], *dropped[self._dropped.get(name, 0) :]]
            found += [(event, name) for event in events]
            self._rollbacks[name] = count
        return found

    async def _look(self) -> None:
        slots = await asyncio.to_thread(self.device.store.slots)
        self._seen = {slot.name: slot for slot in slots if slot.live is not None}
        for name in self._seen:
            self._rollbacks.setdefault(name, 0)

    def _served(self) -> dict[str, tuple[str, Lane]]:
        """By name: the id of the version that is served, and its lane; of our store's models alone."""
        assert self._service is not None
        found = {}
        for lane in self._service.lanes():
            if (id := self.source.id_of(lane.served.bundle)) is not None:
                found[lane.served.name] = (id, lane)
        return found

    async def _follow(self, name: str) -> None:
        """Serve the version of a model that is live."""
        assert self._service is not None
        slot, served = self._seen.get(name), self._served().get(name)
        if slot is None:
            self._stop(name)
            with suppress(NotFound):
                await self._service.unload(name)
            return
        if served is None and name in self._service.names():
            return  # a bundle of this name was given on the command line
        if served is not None and served[0] == slot.live:
            if name not in self._trials or self._trials[name].done():
                self._prove(name)  # it went, and came back on trial before we looked
            return
        self._stop(name)
        if (error := await self._opens(name)) is not None:
            if is_final(slot, error):
                await self._back(name, slot.live, error.what)
            else:
                log.error("%s %s is not served now: %s", name, slot.live, error.what)
            return
        self._prove(name)

    async def _opens(self, name: str, why: str = "") -> EdgeKitError | None:
        """Load what is live; why that is not served."""
        assert self._service is not None
        try:
            await self._service.load(name, why)
        except EdgeKitError as error:
            return error
        except Exception as error:  # a foreign engine's, of any class: it is this version's, and nobody else's
            log.exception("%s does not open", name)
            return EdgeKitError(f"it does not open: {type(error).__name__}")
        return None

    async def _keep_proving(self) -> None:
        """What came without us, as where an administrator unloads and loads a model, is on trial still."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            async with self._changing:
                for name, (_, lane) in self._served().items():
                    watched = self._watched.get(name)
                    if watched is not None and watched() is not lane:
                        self._prove(name)

    def _prove(self, name: str) -> None:
        """Begin the trial of what is served, where it is on trial."""
        slot, served = self._seen.get(name), self._served().get(name)
        self._stop(name)
        if slot is not None and slot.on_trial is not None and served is not None and served[0] == slot.on_trial.id:
            trial = slot.on_trial.trial
            self._watched[name] = weakref.ref(served[1])
            self._trials[name] = asyncio.ensure_future(self._trial(name, *served, trial.seconds))

    def _stop(self, name: str) -> None:
        if (task := self._trials.pop(name, None)) is not None:
            task.cancel()

    async def _trial(self, name: str, id: str, lane: Lane, seconds: float) -> None:
        assert self._service is not None
        service, before = self._service, list(self._service.history)
        on_drift = await asyncio.to_thread(self._ends_on_drift, name, id)

        def drifted() -> bool:
            known = ("drift raised", name, lane.served.version)
            alarms = [one for one in list(service.history) if (one.what, one.model, one.version) == known]
            # the clock does not tell which are new: it may be set back
            return on_drift and any(all(one is not old for old in before) for one in alarms)

        why = await shortcoming(lane, Terms(seconds, drifted))
        if lane not in service.lanes() or not service.ready:
            return  # another one came, or the server ends: this says nothing of it
        while not await self._judged(name, id, lane, why):
            await asyncio.sleep(AGAIN_SECONDS)

    async def _judged(self, name: str, id: str, lane: Lane, why: str) -> bool:
        """The trial is over: it stays, or not. False where that cannot be written down now."""
        assert self._service is not None
        async with self._changing:
            self._trials.pop(name, None)  # from here on nobody cancels us
            try:
                if why:
                    await self._back(name, id, why)
                else:
                    await asyncio.to_thread(self.device.store.good, name, id)
                    self._service.remark("proven good", lane.served)
                await self._look()
            except EdgeKitError as error:
                log.error("%s: %s", name, error.what)
                if (task := asyncio.current_task()) is not None:
                    self._trials.setdefault(name, task)
                return False
            self._say()
        return True

    async def _back(self, name: str, id: str | None, why: str) -> None:
        """Go back from a version that must not stay, and serve the one before it."""
        assert self._service is not None
        service, store, served = self._service, self.device.store, self._served().get(name)
        version = await asyncio.to_thread(store.roll_back, name, why, id)
        if version is None:
            log.error("%s: there is no version before it; it stays: %s", name, why)
            return
        self._rollbacks[name] = self._rollbacks.get(name, 0) + 1
        if served is not None and served[0] == id:
            service.remark("failed", served[1].served, why)
        await self._look()
        if (error := await self._opens(name, why)) is not None:
            log.error("%s: the version before does not open either: %s", name, error.what)
            slot = self._seen.get(name)
            if slot is not None and slot.live == version.id and is_final(slot, error):
                await self._back(name, version.id, error.what)
            return
        self._prove(name)

    def _ends_on_drift(self, name: str, id: str) -> bool:
        return asked_to_end_on_drift(self.device, name) == id

    def _say(self) -> None:
        """Write down what is served; a disk that is full must not end a server."""
        versions: Mapping[str, str] = {name: id for name, (id, _) in self._served().items()}
        now, shadows = self.device.clock(), self._comparing.ids
        said = running.Running(os.getpid(), this_boot().name, versions, self._url, now, shadows)
        try:
            running.tell(self.device.folder, said)
        except EdgeKitError as error:
            log.warning("what is served is not written down: %s", error.what)


async def _told(work: Awaitable[None]) -> None:
    """What fails for one model keeps no other from what is to be done for it."""
    try:
        await work
    except EdgeKitError as error:
        log.error("%s", error.what)


def open_slots(folder: Path) -> Slots:
    """Begin to serve a device folder, as the user that it belongs to: what failed its trial is rolled back first.

    Raises:
        EdgeKitError: there is no such folder, it trusts nobody, or another server is there.
    """
    become_owner(folder)
    device = device_at(folder)
    device.trust(), device.target()  # or nothing can be verified
    with ExitStack() as stack:
        stack.enter_context(running.alone(folder))
        before = {name: (count, len(dropped)) for name, (count, _, dropped) in ends(device).items()}
        for event in device.store.boot(this_boot().name, device.now()):
            log.error("version %s was %s: %s", event.version, event.what, event.why)
        return Slots(device, stack.pop_all(), before)


def ends(device: Device) -> dict[str, tuple[int, list[Event], list[Event]]]:
    """Of each model how often it was gone back from, all told; and, as far as the history reaches, what was rolled back
    and what was dropped from shadow, the oldest first."""
    events = {name: device.store.history(name) for name in device.store.names()}
    return {
        name: (
            rollbacks(found),
            [one for one in found if one.what == ROLLED_BACK],
            [one for one in found if one.what == "dropped"],
        )
        for name, found in events.items()
    }

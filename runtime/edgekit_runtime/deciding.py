"""What becomes of the versions in shadow on a running server: opened, watched, promoted or dropped, and told of.

Refuses to decide by itself: `beside.verdict` does, and the store writes it down before anything else is done."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from edgekit_runtime.beside import Verdict
from edgekit_runtime.comparing import Compare, Comparing
from edgekit_runtime.device import Device
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.lane import Lane
from edgekit_runtime.service import Service
from edgekit_runtime.store import Slot, Trial
from edgekit_runtime.store.shadowing import words_of
from edgekit_runtime.telemetry.boots import this_boot

log = logging.getLogger("edgekit_runtime.deciding")

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""After so long what could not be written down is tried again."""


@dataclass(frozen=True)
class Hands:
    """What the server's slots do: `look` at the store, `follow` what is live of a model, what is `served`, `say` it;
    and the monitor: `compare`."""

    service: Service
    look: Callable[[], Awaitable[None]]
    follow: Callable[[str], Awaitable[None]]
    served: Callable[[], Mapping[str, tuple[str, Lane]]]
    say: Callable[[], None]
    compare: Compare


class Deciding:
    """One server's; belongs to the event loop. `changing` is held by whoever changes what is served."""

    def __init__(self, device: Device, comparing: Comparing, hands: Hands, changing: asyncio.Lock) -> None:
        self._store, self._clock = device.store, device.clock
        self._comparing, self._hands, self._changing = comparing, hands, changing
        self._rests: dict[str, float] = {}

    async def run(self, seen: Callable[[], Mapping[str, Slot]]) -> None:
        """Open what is in shadow, and look again and again how it does; `seen` are the slots as they were last."""
        first = True
        while True:
            try:
                now = time.monotonic()
                found = [one for one in self._comparing.verdicts() if now >= self._rests.get(one[0], now)]
                if first or found:
                    async with self._changing:
                        for name, id, verdict in found:
                            await self._try_to_settle(name, id, verdict)
                        await self.catch_up(seen())
                        self._hands.say()
                self._tell()
                first = False
            except EdgeKitError as error:
                log.error("a version in shadow could not be judged: %s", error.what)
                await asyncio.sleep(AGAIN_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def catch_up(self, seen: Mapping[str, Slot]) -> None:
        """Open what is in shadow, and let go of what is not any more. The caller is changing."""
        shadows = {name: slot.shadow for name, slot in seen.items() if slot.shadow is not None}
        for name, id in self._comparing.ids.items():
            if name not in shadows or shadows[name].id != id:
                await self._gone(name, id)
            elif shadows[name].terms != self._comparing.terms(name):  # it was installed again, and asked otherwise
                self._comparing.let_go(name, self._hands.service)
        for name, one in shadows.items():
            if name in self._comparing.ids:
                continue
            try:
                served = await self._comparing.open(name, one, self._hands.service)
                self._hands.service.remark("shadowing", served, words_of(one.terms))
            except Exception as error:  # a foreign engine's, of any class: it ends this version, and nothing else
                why = (
                    f"it cannot be compared: {error.what if isinstance(error, EdgeKitError) else type(error).__name__}"
                )
                log.warning("%s %s: %s", name, one.id, why)
                await asyncio.to_thread(self._store.drop, name, why, one.id)
        await self._hands.look()
        self._tell()

    def _tell(self) -> None:
        self._comparing.tell(self._hands.served(), self._hands.compare)

    async def _gone(self, name: str, id: str) -> None:
        """Somebody else ended what we have open."""
        beside = self._comparing.beside(name)
        self._comparing.let_go(name, self._hands.service)
        events = await asyncio.to_thread(self._store.history, name)
        why = next((one.why for one in reversed(events) if (one.id, one.what) == (id, "dropped")), "")
        if beside is not None:
            self._hands.service.remark("dropped", beside.served, why)

    async def _try_to_settle(self, name: str, id: str, verdict: Verdict) -> None:
        """What cannot be written down of one model keeps no other from being judged."""
        try:
            await self._settle(name, id, verdict)
        except EdgeKitError as error:
            log.error("%s: the version in shadow could not be judged: %s", name, error.what)
            self._rests[name] = time.monotonic() + AGAIN_SECONDS

    async def _settle(self, name: str, id: str, verdict: Verdict) -> None:
        """Promote it or drop it."""
        beside = self._comparing.beside(name)
        if beside is None:
            return
        trial = Trial(this_boot().name, self._clock(), beside.terms.probation)
        if verdict.promoted:
            done = await asyncio.to_thread(self._store.promote, name, id, trial, verdict.why)
        else:
            done = await asyncio.to_thread(self._store.drop, name, verdict.why, id, verdict.bad) is not None
        self._comparing.let_go(name, self._hands.service)
        if done:
            became = "promoted" if verdict.promoted else "dropped"
            self._hands.service.remark(became, beside.served, verdict.why)
        del beside
        await self._hands.look()
        self._tell()  # its memory is free before it is opened to be served
        await self._hands.follow(name)

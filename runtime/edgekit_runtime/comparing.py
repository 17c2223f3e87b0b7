"""The versions in shadow on one server: opened beside the live ones, asked a share of what these are asked, told of.

Refuses to open what does not fit into memory beside what is served."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.beside import Beside, Verdict, verdict
from edgekit_runtime.device import Device
from edgekit_runtime.errors import Exceeded
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.lane import Lane
from edgekit_runtime.served import Served, closed, opened
from edgekit_runtime.service import Service
from edgekit_runtime.store import Shadowing, Terms
from edgekit_runtime.store_source import StoreSource
from edgekit_runtime.trying import OF_FREE, free_mb

Compare = Callable[[Mapping[Lane, Beside]], None]


@dataclass(frozen=True)
class _Open:
    shadowing: Shadowing
    beside: Beside
    ends: float
    """On the monotonic clock."""


class Comparing:
    """Belongs to the event loop."""

    def __init__(self, device: Device, source: StoreSource) -> None:
        self._device, self._source = device, source
        self._open: dict[str, _Open] = {}
        self._told: dict[Lane, Beside] = {}
        self._counts: dict[str, tuple[str, int, int]] = {}

    @property
    def ids(self) -> dict[str, str]:
        """The ids of the versions in shadow, by model."""
        return {name: one.shadowing.id for name, one in self._open.items()}

    def beside(self, name: str) -> Beside | None:
        """The version in shadow of a model."""
        return self._open[name].beside if name in self._open else None

    def terms(self, name: str) -> Terms | None:
        """By which the version in shadow of a model is judged."""
        return self._open[name].shadowing.terms if name in self._open else None

    async def open(self, name: str, one: Shadowing, service: Service) -> Served:
        """Open what is in shadow.

        Raises:
            EdgeKitError: it is not verified, does not run here, or there is no memory for it.
        """
        device = self._device
        await asyncio.to_thread(device.store.shadow_opened, name, one.id, device.now())
        bundle = await asyncio.to_thread(self._source.of, name, one.id)
        facts = closed(bundle)
        service.beside_mb = self._memory()
        _make_sure(facts, service)
        served = await asyncio.to_thread(opened, bundle, facts)
        started = one.started if one.started is not None else device.now()
        left = min(started + one.terms.seconds - device.now(), one.terms.seconds)
        self._open[name] = _Open(one, Beside(served, one.terms), time.monotonic() + left)
        service.beside_mb = self._memory()
        return served

    def let_go(self, name: str, service: Service) -> None:
        """It is in shadow no more."""
        gone = self._open.pop(name, None)
        if gone is not None:
            self._note(name, gone)
        service.beside_mb = self._memory()

    def tell(self, served: Mapping[str, tuple[str, Lane]], compare: Compare) -> None:
        """Have the monitor compare those whose live version is served now."""
        looks = {
            served[name][1]: one.beside
            for name, one in self._open.items()
            if name in served and served[name][0] == one.shadowing.beside
        }
        if looks != self._told:
            self._told = looks
            compare(looks)

    def verdicts(self) -> list[tuple[str, str, Verdict]]:
        """Of those that are judged: the model, the id, and what becomes of it."""
        found = []
        for name, one in self._open.items():
            told = verdict(one.beside.compared, one.shadowing.terms, one.ends - time.monotonic())
            if told is not None:
                found.append((name, one.shadowing.id, told))
        return found

    def candidate(self, name: str) -> dict[str, Any] | None:
        """What /status tells of the version in shadow of a model."""
        if (one := self._open.get(name)) is None:
            return None
        found, terms = one.beside.compared, one.shadowing.terms
        return {
            "id": one.shadowing.id,
            "version": one.beside.served.version,
            "share": terms.share,
            "compared": found.requests,
            "of": terms.requests,
            "agreed": found.agreed,
            "low": round(found.low, 4),
            "high": round(found.high, 4),
            "asked": terms.agreement,
            "ms": round(found.ms, 4),
            "live_ms": round(found.live_ms, 4),
            "failed": found.failed,
            "seconds_left": round(max(0.0, one.ends - time.monotonic()), 1),
        }

    def families(self) -> list[Family]:
        """For /metrics; of one that is judged the last counts stay."""
        for name, one in self._open.items():
            self._note(name, one)
        labelled = [((("model", name), ("version", v)), n, a) for name, (v, n, a) in sorted(self._counts.items())]
        compared = tuple(Sample(float(n), labels) for labels, n, _ in labelled)
        agreed = tuple(Sample(float(a), labels) for labels, _, a in labelled)
        words = "Requests that a version in shadow answered too"
        return [
            Family("edgekit_store_shadow_compared_total", "counter", f"{words}.", compared),
            Family("edgekit_store_shadow_agreed_total", "counter", f"{words}, alike.", agreed),
        ]

    def _note(self, name: str, one: _Open) -> None:
        found = one.beside.compared
        self._counts[name] = (one.beside.served.version, found.requests, found.agreed)

    def _memory(self) -> float:
        return sum(one.beside.served.peak_mb or 0.0 for one in self._open.values())


def _make_sure(facts: Served, service: Service) -> None:
    """There is memory for it, beside all that is served."""
    if not service.fits(facts):
        raise Exceeded(
            f"it takes {facts.peak_mb:g} MB beside what is served, more than --max-memory leaves",
            hint="raise --max-memory, or install without --shadow",
            limit="memory",
        )
    free = free_mb() * OF_FREE
    if facts.peak_mb is not None and facts.peak_mb > free:
        raise Exceeded(
            f"it takes {facts.peak_mb:g} MB beside what is served, and {free:,.0f} MB can be had",
            hint="free memory on the device, or install without --shadow",
            limit="memory",
        )

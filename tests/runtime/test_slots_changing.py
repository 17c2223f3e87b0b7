"""What a server of a device does where changes meet: a reload in a trial, a clock that jumps, two models at once."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgekit_runtime.beside import Verdict
from edgekit_runtime.deciding import Deciding, Hands
from edgekit_runtime.device import Device
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.files import in_folder
from edgekit_runtime.lane import Lane
from edgekit_runtime.on_drift import end_on_drift
from edgekit_runtime.probation import Terms
from edgekit_runtime.service import Change, Policy, Service, open_service
from edgekit_runtime.slots import Slots, open_slots
from edgekit_runtime.store import Store, Trial
from edgekit_runtime.watching import Watch

from tests.runtime.devices import Maker, soon
from tests.runtime.live import Live, live
from tests.runtime.test_store_source import does_not_open

pytestmark = pytest.mark.slow


@pytest.fixture
def slots(device: Device) -> Iterator[Slots]:
    made = open_slots(device.folder)
    yield made
    made.close()


def put(device: Device, folder: Path, good: bool = True, name: str = "tiny") -> str:
    """Live, without a trial in a child."""
    version = device.store.add(in_folder(folder))
    device.store.activate(name, version.id, Trial(None, device.clock(), 600.0), again=True)
    if good:
        device.store.good(name)
    return version.id


def opened(slots: Slots) -> Service:
    return open_service([], None, Policy(source=slots.source))


def do(server: Live, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, server.loop).result(60)


def reload(server: Live) -> None:
    server.loop.call_soon_threadsafe(server.server.reload)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Lane, Terms]]:
    """The trials that begin; none ends by itself, but for drift."""
    begun: list[tuple[Lane, Terms]] = []

    async def watched(lane: Lane, terms: Terms) -> str:
        begun.append((lane, terms))
        while not terms.drifted():
            await asyncio.sleep(0.01)
        return "it drifted"

    monkeypatch.setattr("edgekit_runtime.slots.shortcoming", watched)
    return begun


def test_a_version_that_is_unloaded_and_loaded_in_its_trial_is_watched_on(
    device: Device, maker: Maker, slots: Slots, trials: list[tuple[Lane, Terms]]
) -> None:
    put(device, maker.bundle("1"))
    put(device, maker.bundle("2"), good=False)
    service = opened(slots)
    with live(service, watch=Watch(slots=slots)) as server:
        soon(lambda: len(trials) == 1)
        do(server, service.unload("tiny"))
        do(server, service.load("tiny"))
        soon(lambda: len(trials) == 2)
        assert trials[1][0] is service.find("tiny")
        time.sleep(2.5)
        assert len(trials) == 2


def test_a_version_that_went_and_came_back_before_the_server_looked_is_on_trial(
    device: Device, maker: Maker, slots: Slots, trials: list[tuple[Lane, Terms]]
) -> None:
    put(device, maker.bundle("1"))
    two = put(device, maker.bundle("2"))
    with live(opened(slots), watch=Watch(slots=slots)) as server:
        device.store.roll_back("tiny", "asked for")
        assert put(device, maker.folder / "v2", good=False) == two
        reload(server)
        soon(lambda: len(trials) == 1)


def test_a_drift_alarm_counts_though_the_clock_was_set_back_and_an_old_one_does_not(
    device: Device, maker: Maker, slots: Slots, trials: list[tuple[Lane, Terms]]
) -> None:
    one = put(device, maker.bundle("1"))
    two = put(device, maker.bundle("2"), good=False)
    end_on_drift(device, "tiny", two)
    service = opened(slots)
    service.history.append(Change(2**50, "drift raised", "tiny", "2"))
    with live(service, watch=Watch(slots=slots)) as server:
        soon(lambda: len(trials) == 1)
        time.sleep(0.3)
        assert service.find("tiny").served.version == "2"
        server.loop.call_soon_threadsafe(service.history.append, Change(1000, "drift raised", "tiny", "2"))
        soon(lambda: service.find("tiny").served.version == "1")
    assert device.store.slot("tiny").live == one


def test_one_model_that_cannot_be_changed_keeps_no_other_from_it(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Maker(tmp_path / "other", maker.root, maker.key)
    put(device, other.bundle("1", name="alpha"), name="alpha")
    put(device, maker.bundle("1"))
    with live(opened(slots), watch=Watch(slots=slots)) as server:
        does_not_open(monkeypatch, "7")
        whole = Store.roll_back

        def full(self: Store, name: str, why: str, id: str | None = None) -> Any:
            if name == "alpha":
                raise EdgeKitError("the disk is full", hint="make room")
            return whole(self, name, why, id)

        monkeypatch.setattr(Store, "roll_back", full)
        put(device, other.bundle("7", name="alpha"), good=False, name="alpha")
        put(device, maker.bundle("2"))
        reload(server)
        soon(lambda: server.server.service.find("tiny").served.version == "2", 20)
        assert server.server.service.find("alpha").served.version == "1"


def test_one_shadow_that_cannot_be_promoted_keeps_no_other_from_being_judged() -> None:
    done: list[tuple[str, str]] = []

    def promote(name: str, *given: object) -> bool:
        if name == "alpha":
            raise EdgeKitError("it is not whole in the store", hint="install it again")
        done.append((name, "promoted"))
        return True

    comparing = SimpleNamespace(
        verdicts=lambda: [(name, "0" * 12, Verdict(True, "it agrees")) for name in ("alpha", "tiny")],
        beside=lambda name: SimpleNamespace(served=None, terms=SimpleNamespace(probation=1.0)),
        let_go=lambda name, service: None,
        tell=lambda served, compare: None,
        ids={},
    )

    async def nothing(*given: object) -> None:
        return None

    service: Any = SimpleNamespace(remark=lambda *given: None)
    hands = Hands(service, nothing, nothing, dict, lambda: None, lambda beside: None)
    device: Any = SimpleNamespace(store=SimpleNamespace(promote=promote), clock=lambda: 0.0)

    async def story() -> None:
        deciding = Deciding(device, comparing, hands, asyncio.Lock())  # type: ignore[arg-type]
        task = asyncio.ensure_future(deciding.run(dict))
        await asyncio.sleep(0.3)
        task.cancel()

    asyncio.run(story())
    assert ("tiny", "promoted") in done


def test_where_the_version_before_was_spoilt_the_one_before_that_is_served(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, maker.bundle("1"))
    put(device, maker.bundle("2"))
    labels = device.store.live("tiny").manifest.files["labels.txt"].sha256
    put(device, maker.bundle("3"), good=False)

    async def bad(lane: Lane, terms: Terms) -> str:
        return "" if lane.served.version == "1" else "it answers wrongly"

    monkeypatch.setattr("edgekit_runtime.slots.shortcoming", bad)
    spoilt = device.store.root / "objects" / labels[:2] / labels
    spoilt.write_bytes(spoilt.read_bytes().replace(b"dog", b"god"))
    service = opened(slots)
    with live(service, watch=Watch(slots=slots)):
        soon(lambda: service.find("tiny").served.version == "1", 20)


def test_an_error_of_any_class_while_a_version_is_opened_goes_back_from_it(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit_runtime.bundle import Bundle

    one = put(device, maker.bundle("1"))
    with live(opened(slots), watch=Watch(slots=slots)) as server:
        whole: Callable[[Bundle], Any] = Bundle.open_model

        def open_model(self: Bundle) -> Any:
            if self.manifest.version == "2":
                raise RuntimeError("the delegate is not what it was")
            return whole(self)

        monkeypatch.setattr(Bundle, "open_model", open_model)
        put(device, maker.bundle("2"), good=False)
        reload(server)
        soon(lambda: device.store.slot("tiny").live == one, 20)
        assert server.server.service.find("tiny").served.version == "1"

"""The state of a version in shadow, on the disk: what ends it, what keeps it, what is told of it."""

from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.store import Store, Terms

from tests.runtime.simulated_disk import started, survivors
from tests.runtime.store.crashes import check_whole, fresh, live, opened
from tests.runtime.store.steps import (
    FIRST_BOOT,
    MODEL,
    NOW,
    SECOND_BOOT,
    back,
    bundle,
    id_of,
    install,
    installed,
    shadowed,
    trial,
)


@pytest.fixture
def store() -> Store:
    return opened(fresh())


def in_shadow(store: Store) -> str | None:
    slot = store.slot(MODEL)
    return slot.shadow.id if slot is not None and slot.shadow is not None else None


def whats(store: Store) -> list[str]:
    return [event.what for event in store.history(MODEL)]


def test_it_is_kept_with_its_terms_through_a_power_cut_and_through_gc() -> None:
    disk = fresh()
    store = opened(disk)
    installed(store, 1)
    version = shadowed(store, 2)
    for tree in survivors(disk.root):
        after = opened(started(tree))
        assert after.boot(SECOND_BOOT, NOW) == ()
        after.gc()
        slot = after.slot(MODEL)
        assert slot is not None
        assert slot.shadow is not None
        assert (slot.shadow.id, slot.shadow.terms, slot.shadow.started) == (version.id, Terms(0.5), NOW)
        check_whole(after, version.id)
        assert live(after) == id_of(1)


def test_without_a_live_version_or_beside_one_on_trial_there_is_none(store: Store) -> None:
    version = store.add(bundle(1))
    with pytest.raises(EdgeKitError, match="to compare with"):
        store.shadow(MODEL, version.id, Terms(0.5))
    install(store, 1)
    with pytest.raises(EdgeKitError, match="on trial still"):
        shadowed(store, 2)
    store.good(MODEL)
    with pytest.raises(EdgeKitError, match="live already"):
        shadowed(store, 1)
    assert in_shadow(store) is None


def test_it_is_promoted_on_trial_and_can_be_gone_back_from(store: Store) -> None:
    installed(store, 1)
    shadowed(store, 2)
    assert not store.promote(MODEL, id_of(1), trial(), "it agrees")
    assert store.promote(MODEL, id_of(2), trial(), "it agrees")
    slot = store.slot(MODEL)
    assert slot is not None
    assert (slot.live, slot.on_trial is not None, slot.shadow) == (id_of(2), True, None)
    assert not store.promote(MODEL, id_of(2), trial(), "it agrees")
    assert whats(store) == ["activated", "good", "shadowing", "promoted", "activated"]
    assert back(store, 2) is not None
    assert (live(store), in_shadow(store)) == (id_of(1), None)


def test_a_bad_one_is_dropped_and_not_taken_again(store: Store) -> None:
    installed(store, 1)
    shadowed(store, 2)
    assert store.drop(MODEL, "it disagrees", id_of(3)) is None
    event = store.drop(MODEL, "it disagrees", id_of(2), bad=True)
    assert event is not None
    assert (event.what, event.version, event.live, event.why) == ("dropped", "2", id_of(1), "it disagrees")
    with pytest.raises(EdgeKitError, match="dropped on this device"):
        store.shadow(MODEL, id_of(2), Terms(0.5))
    shadowed(store, 2)
    assert store.drop(MODEL, "asked for") is not None
    store.shadow(MODEL, id_of(2), Terms(0.5))
    assert in_shadow(store) == id_of(2)


@pytest.mark.parametrize("end", [lambda store: install(store, 3), lambda store: back(store, 2)])
def test_another_live_version_ends_it_for_good(store: Store, end) -> None:
    installed(store, 1, 2)
    shadowed(store, 4)
    end(store)
    assert in_shadow(store) is None
    store.roll_back(MODEL, "no reason")
    assert in_shadow(store) is None
    assert "dropped" in whats(store)
    store.gc()
    assert id_of(4) not in store.ids(MODEL)


def test_servers_that_do_not_end_well_are_counted_and_those_that_do_are_not(store: Store) -> None:
    installed(store, 1)
    shadowed(store, 2)
    for _ in range(9):
        assert store.boot(FIRST_BOOT, NOW) == ()
        store.shadow_rested(MODEL)
    for _ in range(3):
        assert store.boot(SECOND_BOOT, NOW) == ()
    (event,) = store.boot(SECOND_BOOT, NOW)
    assert (event.what, event.id) == ("dropped", id_of(2))
    assert (live(store), in_shadow(store)) == (id_of(1), None)
    with pytest.raises(EdgeKitError, match="dropped on this device"):
        store.shadow(MODEL, id_of(2), Terms(0.5))


@pytest.mark.parametrize(
    "rubbish", [b"", b"{", b"[]", b'{"id": 1}', b'{"id": "x", "beside": "y", "terms": {}}', b"\xff"]
)
def test_a_state_that_does_not_read_is_none(tmp_path: Path, rubbish: bytes) -> None:
    store = Store(tmp_path / "store", tmp_path / "floor.json", clock=lambda: NOW)
    installed(store, 1)
    shadowed(store, 2)
    path = tmp_path / "store" / "slots" / MODEL / "shadow.json"
    path.write_bytes(rubbish)
    assert in_shadow(store) is None
    assert live(store) == id_of(1)
    store.boot(SECOND_BOOT, NOW)
    assert not path.exists()


def test_the_time_of_one_goes_on_when_it_is_installed_again_on_the_same_terms(store: Store) -> None:
    installed(store, 1)
    version = shadowed(store, 2)

    def begun() -> float | None:
        slot = store.slot(MODEL)
        assert slot is not None
        assert slot.shadow is not None
        return slot.shadow.started

    store.shadow_opened(MODEL, version.id, NOW)
    shadowed(store, 2)
    assert begun() == NOW
    store.shadow(MODEL, version.id, Terms(0.25))
    assert begun() is None
    store.shadow_opened(MODEL, version.id, NOW + 1)
    shadowed(store, 3)
    assert begun() is None

"""Making a version live: what a leave to go back does to the floor, and what the floor does to one that comes late."""

import pytest
from edgekit_runtime.errors import EdgeKitError, Untrusted
from edgekit_runtime.store import Store

from tests.runtime.simulated_disk import started, survivors
from tests.runtime.store.crashes import Operation, cut_everywhere, fresh, live, opened
from tests.runtime.store.steps import MODEL, NOW, SECOND_BOOT, back, bundle, id_of, install, installed, trial


@pytest.fixture
def store() -> Store:
    """Version 3 is live, 2 is before it, and what is below 2 is not taken."""
    made = opened(fresh())
    installed(made, 1, 2, 3)
    assert made.floor.least(MODEL) == 2
    return made


def with_leave(store: Store, number: int, again: bool = False) -> None:
    store.activate(MODEL, store.add(bundle(number)).id, trial(), again, leave=True)


def test_a_leave_lowers_the_floor_for_the_version_that_it_is_for(store: Store) -> None:
    with_leave(store, 1)
    assert (live(store), store.floor.least(MODEL)) == (id_of(1), 1)
    store.good(MODEL)
    assert (live(store), store.floor.least(MODEL)) == (id_of(1), 1)


def test_where_the_trial_of_an_older_version_fails_the_floor_is_as_it_was(store: Store) -> None:
    with_leave(store, 1)
    back(store, 1)
    assert (live(store), store.floor.least(MODEL)) == (id_of(3), 2)


def test_it_is_as_it_was_where_no_version_is_left_to_speak_for_it(store: Store) -> None:
    back(store, 3)
    with_leave(store, 1)
    back(store, 1)
    assert (live(store), store.floor.least(MODEL)) == (id_of(2), 2)


def test_it_is_as_it_was_where_another_version_came_over_the_trial_and_failed(store: Store) -> None:
    with_leave(store, 1)
    install(store, 4)
    back(store, 4)
    assert (live(store), store.floor.least(MODEL)) == (id_of(3), 2)


def test_a_leave_for_a_version_that_is_refused_lowers_nothing(store: Store) -> None:
    with_leave(store, 1)
    back(store, 1)
    with pytest.raises(EdgeKitError, match="was rolled back on this device"):
        with_leave(store, 1)
    assert (live(store), store.floor.least(MODEL)) == (id_of(3), 2)


def test_a_floor_that_rose_since_a_version_was_verified_shuts_it_out(store: Store) -> None:
    version = store.add(bundle(1))
    with pytest.raises(Untrusted) as caught:
        store.activate(MODEL, version.id, trial())
    assert (caught.value.reason, live(store)) == ("downgrade", id_of(3))


def test_power_lost_before_an_older_version_is_good_brings_the_floor_back() -> None:
    base = fresh()
    installed(opened(base), 1, 2, 3)
    cuts = 0
    for left in cut_everywhere(base, Operation("go back", lambda store: None, lambda store: with_leave(store, 1))):
        cuts += 1
        for tree in survivors(left.root):
            store = opened(started(tree))
            assert live(store) in (id_of(1), id_of(3))
            version = store.live(MODEL)
            assert version is not None
            assert store.floor.least(MODEL) <= version.manifest.release
            store.boot(SECOND_BOOT, NOW)
            assert (live(store), store.floor.least(MODEL)) == (id_of(3), 2)
    assert cuts > 20


def test_a_floor_that_is_lost_amid_a_trial_is_made_of_what_is_installed(store: Store) -> None:
    install(store, 4)
    store._at.disk.unlink(store.floor.path)
    assert store.floor.least(MODEL) == 2

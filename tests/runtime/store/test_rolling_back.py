"""Starts and ways back where the disk takes nothing any more, or what is to be gone back to is gone."""

import errno
import os

import pytest
from edgekit_runtime.store import Store

from tests.runtime.simulated_disk import SimulatedDisk
from tests.runtime.store.crashes import fresh, live, opened
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
    trial,
)


@pytest.fixture
def disk() -> SimulatedDisk:
    return fresh()


@pytest.fixture
def store(disk: SimulatedDisk) -> Store:
    return opened(disk)


def fails(disk: SimulatedDisk, number: int, *primitives: str) -> None:
    """From now on, in these (without any: in all)."""

    def fail(primitive: str) -> None:
        if not primitives or primitive in primitives:
            raise OSError(number, os.strerror(number))

    disk.fails = fail


def lost(store: Store, number: int) -> None:
    """A bad disk takes the weights of that version."""
    entry = store.version(MODEL, id_of(number)).manifest.files["model.onnx"]
    store._at.disk.unlink(store._at.object(entry.sha256))


def test_a_start_that_a_full_disk_does_not_count_ends_the_trial(store: Store, disk: SimulatedDisk) -> None:
    installed(store, 1)
    install(store, 2)
    fails(disk, errno.ENOSPC, "write", "create")
    (event,) = store.boot(FIRST_BOOT, NOW)
    assert (event.what, event.id, "cannot be counted" in event.why) == ("rolled back", id_of(2), True)
    assert live(store) == id_of(1)


def test_the_only_version_starts_on_a_full_disk(store: Store, disk: SimulatedDisk) -> None:
    install(store, 1)
    fails(disk, errno.ENOSPC, "write", "create")
    assert store.boot(FIRST_BOOT, NOW) == ()
    assert store.boot(SECOND_BOOT, NOW) == ()
    assert live(store) == id_of(1)


def test_a_disk_that_cannot_be_written_keeps_no_server_from_starting(store: Store, disk: SimulatedDisk) -> None:
    installed(store, 1)
    install(store, 2)
    other = store.add(bundle(5, name="sounds"))
    store.activate("sounds", other.id, trial(None))
    fails(disk, errno.EROFS)
    assert store.boot(SECOND_BOOT, NOW) == ()
    assert store.unsettled == {MODEL}
    disk.fails = lambda _: None
    assert [event.id for event in store.boot(SECOND_BOOT, NOW)] == [id_of(2)]
    assert store.unsettled == frozenset()


def test_where_the_version_before_is_gone_the_one_before_that_is_gone_back_to(store: Store) -> None:
    installed(store, 1, 2)
    install(store, 3)
    lost(store, 2)
    version = back(store, 3)
    assert version is not None
    assert (version.id, live(store)) == (id_of(1), id_of(1))
    slot = store.slot(MODEL)
    assert slot is not None
    assert (slot.previous, slot.on_trial, slot.left, slot.refused) == (None, None, None, (id_of(3),))
    assert store.boot(SECOND_BOOT, NOW) == ()
    assert live(store) == id_of(1)


def test_where_all_before_it_are_gone_it_stays(store: Store) -> None:
    installed(store, 1, 2)
    install(store, 3)
    lost(store, 2)
    lost(store, 1)
    assert back(store, 3) is None
    assert live(store) == id_of(3)

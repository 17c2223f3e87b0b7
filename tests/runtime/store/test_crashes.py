"""Power cuts, kills and failing disks at every primitive of every operation of the store."""

import copy
import errno
import os
import sys

import pytest
from edgekit_runtime.errors import EdgeKitError

from tests.runtime import simulated_disk
from tests.runtime.simulated_disk import Folder, SimulatedDisk
from tests.runtime.store.crashes import OPERATIONS, Operation, check_clean, crash, fresh, live, opened
from tests.runtime.store.steps import MODEL, back, bundle, id_of, install, installed

pytestmark = pytest.mark.slow

EACH = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
RARE = (errno.EIO, errno.EROFS)
SECOND = next(one for one in OPERATIONS if one.name == "install, the second")


def test_a_cut_anywhere_in_an_installation_leaves_the_old_version_or_the_new_one() -> None:
    told = crash(SECOND)
    assert told.cuts > 30
    assert told.states > 20


@pytest.mark.slow
@EACH
def test_a_cut_anywhere_and_one_more_in_the_next_try_leave_the_old_version_or_the_new_one(operation: Operation) -> None:
    told = crash(operation, twice=True)
    sys.stdout.write(
        f"\n{told.name}: cut {told.cuts} times, {told.states} different disks, each with a whole version\n"
    )
    assert told.cuts > 5


class _Unsynced(simulated_disk._Sink):
    def sync(self) -> None:
        """A disk that lies."""


class _NoFolders(SimulatedDisk):
    def sync_folder(self, path: os.PathLike[str]) -> None:
        """A disk that lies."""


def test_the_proof_finds_bytes_that_were_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_disk, "_Sink", _Unsynced)
    with pytest.raises((AssertionError, EdgeKitError, FileNotFoundError)):
        crash(SECOND)


def test_the_proof_finds_names_that_were_not_synced() -> None:
    with pytest.raises((AssertionError, EdgeKitError, FileNotFoundError)):
        crash(SECOND, _NoFolders(Folder({"data": Folder(), "state": Folder()})))


@pytest.mark.parametrize("part", ["objects", "versions", "slots"])
def test_the_proof_finds_one_folder_that_was_not_synced(part: str) -> None:
    class Lying(SimulatedDisk):
        def sync_folder(self, path: os.PathLike[str]) -> None:
            if part not in str(path):
                super().sync_folder(path)  # type: ignore[arg-type]

    with pytest.raises((AssertionError, EdgeKitError, FileNotFoundError)):
        crash(SECOND, Lying(Folder({"data": Folder(), "state": Folder()})))


@pytest.mark.parametrize("number", [errno.ENOSPC, *(pytest.param(one, marks=pytest.mark.slow) for one in RARE)])
@pytest.mark.parametrize("for_good", [True, False], ids=["from then on", "once"])
@EACH
def test_a_disk_that_fails_anywhere_is_said_and_costs_no_version(
    operation: Operation, number: int, for_good: bool
) -> None:
    base = fresh()
    operation.before(opened(base))
    done = copy.deepcopy(base)
    done.count = 0
    operation.act(opened(done))
    ends = (live(opened(base)), live(opened(done)))
    for at in range(done.count):
        disk = copy.deepcopy(base)
        told = _act_with_error(disk, operation, at, number, for_good)
        assert told is None or (told.hint and "\n" not in told.what)
        assert live(opened(disk)) in ends
        operation.act(opened(disk))
        assert live(opened(disk)) == ends[1]
        opened(disk).gc()
        check_clean(disk)


def _act_with_error(
    disk: SimulatedDisk, operation: Operation, at: int, number: int, for_good: bool
) -> EdgeKitError | None:
    calls = 0

    def fail(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == at + 1 or (for_good and calls > at):
            raise OSError(number, os.strerror(number))

    disk.fails = fail
    try:
        operation.act(opened(disk))
    except EdgeKitError as error:
        return error
    finally:
        disk.fails = lambda _: None
    return None


def test_a_full_disk_keeps_no_bad_version_alive() -> None:
    disk = fresh()
    store = opened(disk)
    installed(store, 1)
    install(store, 2)

    def full(primitive: str) -> None:
        if primitive == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.fails = full
    version = back(store, 2)
    assert version is not None
    assert version.manifest.version == "1"
    assert live(store) == version.id


def test_there_is_room_or_nothing_is_written() -> None:
    disk = fresh()
    store = opened(disk)
    installed(store, 1)
    disk.free = 16 * 2**20
    disk.fails = lambda primitive: pytest.fail(primitive) if primitive == "write" else None
    with pytest.raises(EdgeKitError, match="no room") as caught:
        store.add(bundle(2))
    assert "remove files" in caught.value.hint
    assert store.ids(MODEL) == (live(store),)


def test_a_small_disk_keeps_a_small_reserve() -> None:
    disk = fresh()
    disk.total, disk.free = 10**7, 6 * 10**5
    assert opened(disk).add(bundle(1)).name == MODEL


def test_what_nothing_needs_makes_room_by_itself() -> None:
    class Small(SimulatedDisk):
        def room(self, path: os.PathLike[str]) -> simulated_disk.Room:
            objects = sum(len(self.names(path / "objects" / one)) for one in self.names(path / "objects"))  # type: ignore
            return simulated_disk.Room(0 if objects > 3 else 10**9, 10**9)

    disk = Small(Folder({"data": Folder(), "state": Folder()}))
    store = opened(disk)
    disk.mkdir(store.root)
    disk.mkdir(store.root / "objects")
    installed(store, 1, 2, 3)
    store.add(bundle(4))
    assert set(store.ids(MODEL)) == {id_of(2), id_of(3), id_of(4)}

"""Every operation of the store, cut after each of its primitives, and what must be true of all that may be left.

Refuses (by `AssertionError`) a model without a whole version, and an operation that cannot be done again.

`python -m benchmarks.crash_points` prints the table of it; the suite runs it whole."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.store import Slot, Store

from tests.runtime.simulated_disk import Folder, Frozen, PowerCut, SimulatedDisk, started, survivors
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

ROOT, FLOOR = Path("/data/store"), Path("/state/floor.json")


@dataclass(frozen=True)
class Operation:
    """What is done (`act`) to a store that `before` has made, under its `name`."""

    name: str
    before: Callable[[Store], object]
    act: Callable[[Store], object]


def _trial_after(*numbers: int) -> Callable[[Store], object]:
    return lambda store: (installed(store, *numbers[:-1]), install(store, numbers[-1]))


def _loop(store: Store) -> None:
    _trial_after(1, 2)(store)
    for _ in range(3):
        store.boot(FIRST_BOOT, NOW)


def _rubbish(store: Store) -> None:
    installed(store, 1, 2, 3, 4)
    store.add(bundle(5))
    store.pin(MODEL, store.add(bundle(1)).id)


def _rolled_back(store: Store) -> None:
    _trial_after(1, 2)(store)
    back(store, 2)


def _shadow_after(*numbers: int) -> Callable[[Store], object]:
    return lambda store: (installed(store, *numbers[:-1]), shadowed(store, numbers[-1]))


def _over_a_shadow(store: Store) -> None:
    _shadow_after(1, 2)(store)
    install(store, 3)


def _go_back(store: Store) -> None:
    store.activate(MODEL, store.add(bundle(1)).id, trial(), again=True, leave=True)


def _promote(store: Store) -> None:
    if not store.promote(MODEL, id_of(2), trial(), "it agrees"):
        install(store, 2)  # it was promoted before the cut, or dropped by the server's start


def _shadow_loop(store: Store) -> None:
    _shadow_after(1, 2)(store)
    for _ in range(3):
        store.boot(FIRST_BOOT, NOW)


OPERATIONS = (
    Operation("install, the first", lambda store: None, lambda store: install(store, 1)),
    Operation("good, the first", _trial_after(1), lambda store: store.good(MODEL)),
    Operation("install, the second", lambda store: installed(store, 1), lambda store: install(store, 2)),
    Operation("good, the second", _trial_after(1, 2), lambda store: store.good(MODEL)),
    Operation("install, the third", lambda store: installed(store, 1, 2), lambda store: install(store, 3)),
    Operation("good, the third", _trial_after(1, 2, 3), lambda store: store.good(MODEL)),
    Operation("install over a trial", _trial_after(1, 2), lambda store: install(store, 3)),
    Operation("install the same again", lambda store: installed(store, 1, 2), lambda store: install(store, 2)),
    Operation("install the one before", lambda store: installed(store, 1, 2), lambda store: install(store, 1)),
    Operation("install what was rolled back", _rolled_back, lambda store: install(store, 2)),
    Operation("roll back a trial", _trial_after(1, 2, 3), lambda store: back(store, 3)),
    Operation("roll back a good one", lambda store: installed(store, 1, 2), lambda store: back(store, 2)),
    Operation("go back with a leave", lambda store: installed(store, 1, 2, 3), _go_back),
    Operation("start after a power cut", _trial_after(1, 2), lambda store: store.boot(SECOND_BOOT, NOW)),
    Operation("start in a crash loop", _loop, lambda store: store.boot(FIRST_BOOT, NOW)),
    Operation("start of the only one", _trial_after(1), lambda store: store.boot(SECOND_BOOT, NOW)),
    Operation("shadow", lambda store: installed(store, 1), lambda store: shadowed(store, 2)),
    Operation("shadow over a shadow", _shadow_after(1, 2), lambda store: shadowed(store, 3)),
    Operation("drop a shadow", _shadow_after(1, 2), lambda store: store.drop(MODEL, "it disagrees", bad=True)),
    Operation("promote a shadow", _shadow_after(1, 2), _promote),
    Operation("install over a shadow", _shadow_after(1, 2), lambda store: install(store, 3)),
    Operation("good, after a shadow", _over_a_shadow, lambda store: store.good(MODEL)),
    Operation("roll back with a shadow", _shadow_after(1, 2, 3), lambda store: back(store, 2)),
    Operation("start with a shadow", _shadow_after(1, 2), lambda store: store.boot(SECOND_BOOT, NOW)),
    Operation("start in a shadow's crash loop", _shadow_loop, lambda store: store.boot(FIRST_BOOT, NOW)),
    Operation("gc", _rubbish, lambda store: store.gc()),
)


@dataclass(frozen=True)
class Told:
    """How often an operation was cut, and how many different disks that left."""

    name: str
    cuts: int
    states: int


def opened(disk: SimulatedDisk) -> Store:
    """The store on a disk."""
    return Store(ROOT, FLOOR, disk, lambda: disk.clock)


def fresh() -> SimulatedDisk:
    """A disk with nothing on it but two folders."""
    return SimulatedDisk(Folder({"data": Folder(), "state": Folder()}))


def crash(operation: Operation, disk: SimulatedDisk | None = None, twice: bool = False) -> Told:
    """Cut it everywhere and look at all that is left. `disk`: an empty one, of the caller's make. `twice`: the
    operation that is done again after each cut, and after each kill, is cut everywhere too."""
    base = disk or fresh()
    operation.before(opened(base))
    done = copy.deepcopy(base)
    done.count = 0
    operation.act(opened(done))
    floors = [opened(disk).floor.least(MODEL) for disk in (base, done)]
    ends = End(operation, live(opened(base)), live(opened(done)), *floors)
    check_done(done, ends)
    seen: set[Frozen] = set()
    cuts = done.count
    for left in cut_everywhere(base, operation):
        check_killed(left, ends)
        found = survivors(left.root) - seen
        seen |= found
        for tree in found:
            check(tree, ends)
        for start in [alive(left), *map(started, found)] if twice else []:
            for left_again in cut_everywhere(start, operation):
                cuts += 1
                found = survivors(left_again.root) - seen
                seen |= found
                for tree in found:
                    check(tree, ends)
    return Told(operation.name, cuts, len(seen))


def cut_everywhere(base: SimulatedDisk, operation: Operation) -> Iterator[SimulatedDisk]:
    """The dead machines: one for each primitive that the operation does on such a disk."""
    cut = 0
    while True:
        cut += 1
        disk = copy.deepcopy(base)
        disk.count, disk.cut_after = 0, cut
        try:
            operation.act(opened(disk))
            return
        except PowerCut:
            yield disk


def alive(disk: SimulatedDisk) -> SimulatedDisk:
    """Only the process died: the machine goes on, with all that is in its memory."""
    disk = copy.deepcopy(disk)
    disk.dead, disk.cut_after = False, -1
    return disk


@dataclass(frozen=True)
class End:
    """The ids that may be live: before and after; and the floors. A leave to go back lowers the floor for as long as
    its version is served."""

    operation: Operation
    old: str | None
    new: str | None
    floor: int
    floor_after: int


def check(tree: Frozen, ends: End) -> None:
    """A machine starts with this on its disk."""
    check_start(tree, ends)
    cleaned = started(tree)
    before = live(opened(cleaned))
    opened(cleaned).gc()
    assert live(opened(cleaned)) == before
    check_clean(cleaned)
    again = started(tree)
    ends.operation.act(opened(again))
    assert live(opened(again)) == ends.new
    assert opened(again).floor.least(MODEL) == ends.floor_after
    opened(again).gc()
    assert live(opened(again)) == ends.new
    check_clean(again)
    check_boot(tree, ends)


def check_start(tree: Frozen, ends: End) -> None:
    """What there is, is whole: what is live, and every version beside it."""
    disk = started(tree)
    store = opened(disk)
    assert live(store) in (ends.old, ends.new)
    slot = store.slot(MODEL)
    for id in {*store.ids(MODEL), *(slot.kept if slot is not None else ())}:
        check_whole(store, id)
    check_floor(disk, ends)


def check_boot(tree: Frozen, ends: End) -> None:
    """The server starts after the cut, and then the operation is done again."""
    disk = started(tree)
    store = opened(disk)
    was = live(store)
    waits = store.slot(MODEL) if was is not None else None
    store.boot(SECOND_BOOT, NOW)
    if waits is not None and waits.on_trial is not None and waits.on_trial.previous is not None:
        assert live(store) == waits.on_trial.previous, "a version that was not proven good outlived a power cut"
    elif ends.old is not None or was is not None:
        assert live(store) is not None
    store.gc()
    assert (live(store) is None) == (was is None)
    check_floor(disk, ends)
    install(store, 9)
    store.good(MODEL)
    assert store.version(MODEL, live(store) or "").manifest.version == "9"


def check_killed(disk: SimulatedDisk, ends: End) -> None:
    """Only the process died. What others do then, or the same again with success, no power cut takes back."""
    again, cleaned = alive(disk), alive(disk)
    ends.operation.act(opened(again))
    check_done(again, ends)
    opened(cleaned).gc()
    for tree in survivors(cleaned.root):
        check_start(tree, ends)


def check_done(disk: SimulatedDisk, ends: End) -> None:
    """What was said to be done is done."""
    for tree in survivors(disk.root):
        assert live(opened(started(tree))) == ends.new
        assert opened(started(tree)).floor.least(MODEL) == ends.floor_after


def check_floor(disk: SimulatedDisk, ends: End) -> None:
    """It never sinks, and never shuts out what is live."""
    store = opened(disk)
    lowered = live(store) == ends.new or (store.slot(MODEL) or Slot("", None, None)).left is not None
    assert store.floor.least(MODEL) >= (min(ends.floor, ends.floor_after) if lowered else ends.floor)
    if (version := store.live(MODEL)) is not None:
        assert store.floor.least(MODEL) <= version.manifest.release


def check_clean(disk: SimulatedDisk) -> None:
    """Nothing half made is left, and what there is to go back to is whole."""
    waiting = [ROOT]
    while waiting:
        one = waiting.pop()
        assert not one.name.endswith(".tmp"), one
        waiting += [one / name for name in disk.names(one)] if disk.kind(one) == "folder" else []
    store = opened(disk)
    slot = store.slot(MODEL)
    assert slot is None or set(store.ids(MODEL)) == slot.kept


def live(store: Store) -> str | None:
    """The id of what is served, all its files read and compared."""
    version = store.live(MODEL)
    if version is not None:
        check_whole(store, version.id)
    return version.id if version is not None else None


def check_whole(store: Store, id: str) -> None:
    """Every byte is what the manifest says."""
    version = store.version(MODEL, id)
    files = store.files(version)
    assert files.names == {*version.manifest.files, "manifest.json", "model.sig"}
    for name, entry in version.manifest.files.items():
        with files.open(name) as file:
            assert hashlib.sha256(file.read()).hexdigest() == entry.sha256

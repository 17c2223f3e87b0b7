"""The store of a device: every version of every model, which one is served, and the way back.

Refuses what would leave a model with neither the old version nor the new; whole or absent, at every power cut."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from edgekit_runtime.disk import REAL, Disk, plain_errors
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.files import Files
from edgekit_runtime.manifest import PLAIN
from edgekit_runtime.store import (
    activating,
    adding,
    cleaning,
    history,
    layout,
    locks,
    rolling_back,
    settling,
    shadowing,
)
from edgekit_runtime.store.floor import Floor
from edgekit_runtime.store.history import Event
from edgekit_runtime.store.layout import Layout, Version, read_version
from edgekit_runtime.store.shadow_file import Shadowing, Terms
from edgekit_runtime.store.slot import PIN, Slot, Trial, read_slot, write_ids

__all__ = ["Event", "Floor", "Shadowing", "Slot", "Store", "Terms", "Trial", "Version"]


log = logging.getLogger("edgekit_runtime.store")


class Store:
    """A store in the folder `root`, with its rollback `floor` in a file elsewhere. Opening it changes nothing.

    Every method raises `EdgeKitError`, with a hint, where the disk is full, read-only or failing; what was live stays.
    """

    def __init__(self, root: Path, floor: Path, disk: Disk = REAL, clock: Callable[[], float] = time.time) -> None:
        root, floor = root.absolute(), floor.absolute()
        if floor.is_relative_to(root):
            raise EdgeKitError(
                f"the rollback floor {floor} lies in the store {root}", hint="keep it where the store's files do not go"
            )
        self._at = Layout(root, disk, clock)
        self._installer: int | None = None
        self.unsettled: frozenset[str] = frozenset()
        """The models of which the last `boot` could not write down what became of their trial."""
        self.floor = Floor(floor, disk, self._floors)

    @property
    def root(self) -> Path:
        """Its folder."""
        return self._at.root

    @property
    def incoming(self) -> Path:
        """The folder for what is being carried in; `gc` removes from it what has not grown for a day."""
        return self._at.incoming()

    @contextmanager
    def installing(self) -> Iterator[None]:
        """Keep all others from adding and cleaning, from the first file to the activation. Raises `Busy`."""
        if self._installer == threading.get_ident():
            yield
            return
        with ExitStack() as stack:
            with self._plainly():
                stack.enter_context(locks.installing(self._at))
            self._installer = threading.get_ident()
            try:
                yield
            finally:
                self._installer = None

    def add(self, files: Files) -> Version:
        """Keep a bundle that the caller verified. It is not served before `activate`."""
        with self._plainly(), self.installing():
            return adding.add(self._at, files)

    def activate(self, name: str, id: str, trial: Trial, again: bool = False, leave: bool = False) -> None:
        """Serve the version, on trial. `again`: even if it was rolled back here before. `leave`: the caller verified a
        signed leave to go back; the floor sinks to this version, until its trial fails."""
        with self._plainly():
            version = read_version(self._at, name, id)
            with locks.changing(self._at):
                activating.activate(self._at, self.floor, version, trial, again, leave)

    def good(self, name: str, id: str | None = None) -> None:
        """What is on trial (if it is `id`) has proven itself."""
        with self._changing(name) as known:
            if known:
                activating.good(self._at, self.floor, name, id)

    def shadow(self, name: str, id: str, terms: Terms, again: bool = False) -> None:
        """Put the version in shadow of the live one. `again`: even if it was rolled back or dropped here before."""
        with self._plainly():
            version = read_version(self._at, name, id)
            with locks.changing(self._at):
                shadowing.shadow(self._at, self.floor, version, terms, again)

    def drop(self, name: str, why: str, id: str | None = None, bad: bool = False) -> Event | None:
        """What is in shadow (if it is `id`) goes; what was noted, or None: there was none. `bad`: it is not to be tried
        again unless that is asked for."""
        with self._changing(name) as known:
            return shadowing.drop(self._at, self.floor, name, why, id, bad) if known else None

    def promote(self, name: str, id: str, trial: Trial, why: str) -> bool:
        """Serve the version that is in shadow, on trial; False where it is not in shadow any more."""
        with self._changing(name) as known:
            return known and shadowing.promote(self._at, self.floor, read_version(self._at, name, id), trial, why)

    def shadow_opened(self, name: str, id: str, now: float) -> None:
        """A server that runs opens what was put in shadow: its time begins."""
        with self._changing(name) as known:
            if known:
                shadowing.opened(self._at, name, id, now)

    def shadow_rested(self, name: str) -> None:
        """A server that had a version in shadow ends as it was told to."""
        with self._changing(name) as known:
            if known:
                shadowing.rested(self._at, name)

    def roll_back(self, name: str, why: str, id: str | None = None) -> Version | None:
        """Go back from what is live (if it is `id`); to which version, or None: there is none."""
        with self._changing(name) as known:
            return rolling_back.roll_back(self._at, self.floor, name, why, id) if known else None

    def boot(self, boot_id: str, now: float) -> tuple[Event, ...]:
        """A server starts: what was rolled back or dropped. A trial of another start of the machine has failed, and so
        has one in which the server started too often; what is in shadow is dropped where too many servers did not end
        well. Writes nothing where nothing is on trial, in shadow or half done. On a disk that cannot be written the
        others are served all the same: see `unsettled`."""
        self.unsettled = frozenset()
        with self._plainly():
            waiting = [name for name in self.names() if rolling_back.settles_at_boot(self._at, name)]
            if not waiting:
                return ()
            with locks.changing(self._at):
                events = [event for name in waiting for event in self._settled(name, boot_id, now)]
        return tuple(events)

    def _settled(self, name: str, boot_id: str, now: float) -> Iterator[Event]:
        try:
            found = [rolling_back.boot(self._at, self.floor, name, boot_id, now), shadowing.start(self._at, name, now)]
        except OSError as error:
            log.error("%s: how its trial goes cannot be written down: %s", name, error.strerror)
            self.unsettled |= {name}
            return
        yield from (event for event in found if event is not None)

    def live(self, name: str) -> Version | None:
        """The version that is served; None where there is none.

        Raises:
            BadBundle: what is said to be live is not here any more, or was touched.
        """
        with self._plainly():
            slot = read_slot(self._at, name)
            return read_version(self._at, name, slot.live) if slot is not None and slot.live is not None else None

    def slot(self, name: str) -> Slot | None:
        """What the model is now; None where nothing is known of it."""
        with self._plainly():
            return read_slot(self._at, name)

    def names(self) -> tuple[str, ...]:
        """The models that have a slot."""
        with self._plainly():
            return tuple(one for one in self._at.names(self.root / "slots") if PLAIN.fullmatch(one))

    def slots(self) -> tuple[Slot, ...]:
        """All models as they are now."""
        found = (self.slot(name) for name in self.names())
        return tuple(slot for slot in found if slot is not None)

    def version(self, name: str, id: str) -> Version:
        """One that is here. Raises `NotFound`, or `BadBundle` where it is broken."""
        with self._plainly():
            return read_version(self._at, name, id)

    def ids(self, name: str) -> tuple[str, ...]:
        """Of all versions of a model that are here."""
        with self._plainly():
            return tuple(self._at.ids(name))

    def files(self, version: Version) -> Files:
        """Its files as they were added; who loads them verifies them again."""
        with self._plainly():
            return layout.files(self._at, version)

    def history(self, name: str) -> list[Event]:
        """What happened, the oldest first."""
        with self._plainly():
            return history.read(self._at, name)

    def pin(self, name: str, id: str) -> None:
        """Keep the version until it is unpinned."""
        version = self.version(name, id)
        self._pin(name, lambda pinned: (*(one for one in pinned if one != version.id), version.id))

    def unpin(self, name: str, id: str) -> None:
        """Let `gc` remove it when nothing else needs it."""
        self._pin(name, lambda pinned: tuple(one for one in pinned if one != id))

    def gc(self) -> int:
        """Remove what nothing needs; the bytes that this freed. Raises `Busy` while something is installed."""
        with self._plainly():
            if self._at.disk.kind(self.root) is None:
                return 0
            with self.installing():
                return cleaning.clean(self._at)

    def _pin(self, name: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
        with self._changing(name) as known:
            slot = read_slot(self._at, name) if known else None
            if slot is None:
                raise EdgeKitError(f"no version of {name} was ever served here", hint="activate one first")
            write_ids(self._at, name, PIN, change(slot.pinned))

    @contextmanager
    def _changing(self, name: str) -> Iterator[bool]:
        """Hold the lock on slots, if the model has one."""
        with self._plainly():
            if self._at.disk.kind(self._at.slot(name)) is None:
                yield False
                return
            with locks.changing(self._at):
                yield True

    def _floors(self) -> Mapping[str, int]:
        found = {name: settling.floor_of(self._at, name) for name in self.names()}
        return {name: least for name, least in found.items() if least is not None}

    def _plainly(self) -> AbstractContextManager[None]:
        return plain_errors(str(self.root))

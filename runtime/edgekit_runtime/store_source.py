"""The store of a device as the place that a server takes its models from: the live version of each, verified.

Refuses what is not verified: a model whose live version is not is served in the version before, or not at all."""

import logging
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.device import Device
from edgekit_runtime.errors import BadBundle, EdgeKitError, NotFound
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.store import Slot, Version
from edgekit_runtime.verified import open_verified

log = logging.getLogger("edgekit_runtime.store_source")


@dataclass(frozen=True)
class StoreSource:
    """`repository.Source` over a device's store. `ids` are the versions that were handed out and are in use, by folder:
    each is held in memory in a folder of its own, until nobody uses its bundle any more."""

    device: Device
    ids: dict[Path, str] = field(default_factory=dict)

    def manifests(self) -> Iterable[Manifest]:
        """Of all live versions that read."""
        for name in self.device.store.names():
            try:
                version = self.device.store.live(name)
            except EdgeKitError:  # gone, touched, or on a disk that fails
                continue
            if version is not None:
                yield version.manifest

    def newest(self, name: str) -> Bundle:
        """The live version, verified. Raises `EdgeKitError` where there is none, or it is not."""
        version = self.device.store.live(name) if name in self.device.store.names() else None
        if version is None:
            raise NotFound(f"no model {name[:100]!r} is installed here", hint="install it: edgekit-runtime install")
        return self._opened(version)

    def of(self, name: str, id: str) -> Bundle:
        """A version that need not be live, verified."""
        return self._opened(self.device.store.version(name, id))

    def start(self) -> list[Bundle]:
        """All live versions; for one that is not verified, or not held, the one before it, if that is."""
        found = (self._first(name) for name in self.device.store.names())
        return [bundle for bundle in found if bundle is not None]

    def _first(self, name: str) -> Bundle | None:
        """What a server that begins serves of a model; None: nothing."""
        if name in self.device.store.unsettled:
            other = self._before(name, EdgeKitError("how its trial goes cannot be written down"))
            if other is not None:
                return other
        try:
            return self.newest(name)
        except NotFound:
            return None
        except EdgeKitError as error:
            return self._before(name, error)

    def again(self, manifest: Manifest) -> Bundle | None:
        """The version with this manifest, if it is here."""
        store = self.device.store
        for id in store.ids(manifest.name):
            try:
                version = store.version(manifest.name, id)
            except EdgeKitError as error:
                log.warning("%s %s is passed over: %s", manifest.name, id, error.what)
                continue
            if replace(version.manifest, encrypted=None) == replace(manifest, encrypted=None):  # held in clear
                return self._opened(version)
        return None

    def instead(self, bundle: Bundle, error: EdgeKitError) -> Bundle | None:
        """What to serve instead of a version that did not open: the one before it, if that is verified."""
        return self._before(bundle.manifest.name, error, self.ids.get(bundle.folder))

    def id_of(self, bundle: Bundle | None) -> str | None:
        """Which version a bundle is; None for one that is not of this store."""
        return None if bundle is None else self.ids.get(bundle.folder)

    def _before(self, name: str, error: EdgeKitError, id: str | None = None) -> Bundle | None:
        store = self.device.store
        try:
            slot = store.slot(name)
        except EdgeKitError as worse:
            log.error("%s is not served: %s", name, worse.what)
            return None
        if slot is None or id not in (None, slot.live):
            return None
        log.error("%s %s is not served: %s", name, slot.live, error.what)
        before = slot.on_trial.previous if slot.on_trial is not None else slot.previous
        try:
            other = None if before is None else self._opened(store.version(name, before))
        except EdgeKitError as worse:
            log.error("%s is not served: the version before is no better: %s", name, worse.what)
            return None
        if other is None or (is_final(slot, error) and not self._gone_back(slot, error)):
            log.error("%s is not served: there is no version of it to go back to", name)
            return None
        return other

    def _gone_back(self, slot: Slot, error: EdgeKitError) -> bool:
        """For good, if the disk takes it."""
        try:
            return self.device.store.roll_back(slot.name, error.what, slot.live) is not None
        except EdgeKitError as worse:
            log.error("%s: that it was gone back from is not written down: %s", slot.name, worse.what)
            return True

    def _opened(self, version: Version) -> Bundle:
        held = open_verified(self.device.store.files(version), self.device.serving_rules())
        folder = held.bundle.folder
        self.ids[folder] = held.digest[: len(version.id)]
        weakref.finalize(held.bundle, _let_go, self.ids, folder, held.close)
        return held.bundle


def is_final(slot: Slot, error: EdgeKitError) -> bool:
    """Whether a version that cannot be served for `error` is to be gone back from for good: one that was proven good
    here lacks memory or its engine for the moment only."""
    return slot.on_trial is not None or isinstance(error, BadBundle)


def _let_go(ids: dict[Path, str], folder: Path, close: Callable[[], None]) -> None:
    """Nobody uses the bundle any more."""
    ids.pop(folder, None)
    close()

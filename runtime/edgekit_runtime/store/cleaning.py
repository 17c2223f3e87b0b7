"""Remove from the store what nothing needs: versions, objects, and what cut operations left.

Refuses to touch a version that is live, on trial, pinned or the one to go back to, and every object that one names.

Versions go before objects, and for certain: after a cut none is there that lacks an object."""

import logging
from collections.abc import Collection

from edgekit_runtime.disk import LEFT, remove
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.files import SHA256
from edgekit_runtime.manifest import PLAIN
from edgekit_runtime.store.layout import Layout, read_version
from edgekit_runtime.store.locks import changing
from edgekit_runtime.store.slot import read_slot

OLD_SECONDS = 24 * 3600.0
"""What was being carried in, and has not grown for so long, is not waited for."""

log = logging.getLogger("edgekit_runtime.store")


def clean(at: Layout, wanted: Collection[str] = ()) -> int:
    """The bytes that were freed. The caller holds the lock on installations, and is about to need the objects `wanted`,
    by digest."""
    with changing(at):
        for name in _models(at, "versions"):
            _drop_versions(at, name)
        freed = sum(_remove_left(at, "slots", name) for name in _models(at, "slots"))
    freed += sum(_remove_left(at, "versions", name) for name in _models(at, "versions"))
    return freed + _clean_objects(at, wanted) + _clean_incoming(at)


def _models(at: Layout, part: str) -> list[str]:
    return [name for name in at.names(at.root / part) if PLAIN.fullmatch(name)]


def _drop_versions(at: Layout, name: str) -> None:
    """Take from the versions of a model, by one rename each, those that nothing needs."""
    folder, slot = at.versions(name), read_slot(at, name)
    if slot is not None:
        at.disk.sync_folder(at.slot(name))  # what we read there must not be undone by a cut
    # A file that says what to keep, and does not read, may have named any of them.
    kept = frozenset(at.ids(name)) if slot is not None and slot.unsound else slot.kept if slot is not None else ()
    for id in at.ids(name):
        if id not in kept:
            gone = folder / f"{id}{LEFT}"
            if at.disk.kind(gone) is not None:
                remove(at.disk, gone)
            at.disk.rename(folder / id, gone)
    at.disk.sync_folder(folder)


def _remove_left(at: Layout, part: str, name: str) -> int:
    folder = at.root / part / name
    return sum(remove(at.disk, folder / one) for one in at.names(folder) if one.endswith(LEFT))


def _clean_objects(at: Layout, wanted: Collection[str]) -> int:
    try:
        needed = _needed(at) | set(wanted)
    except (BadBundle, OSError) as error:
        log.warning("no object is removed: a version that is kept does not read: %s", error)
        return 0
    freed = 0
    for folder in at.names(at.root / "objects"):
        for one in at.names(at.root / "objects" / folder):
            sha256 = one.removesuffix(LEFT)
            if SHA256.fullmatch(sha256) and one not in needed:
                freed += remove(at.disk, at.root / "objects" / folder / one)
    return freed


def _needed(at: Layout) -> set[str]:
    versions = [read_version(at, name, id) for name in _models(at, "versions") for id in at.ids(name)]
    return {entry.sha256 for version in versions for entry in version.manifest.files.values()}


def _clean_incoming(at: Layout) -> int:
    now, folder = at.clock(), at.incoming()
    old = [one for one in at.names(folder) if now - at.disk.modified(folder / one) > OLD_SECONDS]
    return sum(remove(at.disk, folder / one) for one in old)

"""What the commands on a device's folder do: install, status, history, rollback, pin, gc, have, receive, trust.

Refuses a folder that is no device's, and files of trust that are too large. Gives what is to be told."""

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from edgekit_runtime import running
from edgekit_runtime.device import Device, become_owner, device_at
from edgekit_runtime.disk import REAL, make_folder, plain_errors
from edgekit_runtime.errors import BadBundle, EdgeKitError, NotFound
from edgekit_runtime.store import Slot, Store, Terms
from edgekit_runtime.trust import MAX_DOCUMENT

SWAP_SECONDS = 120.0


@dataclass(frozen=True)
class Told:
    """What came of a command: for a program, and in words; `code` is the exit code."""

    facts: Any
    words: str
    code: int = 0


@dataclass(frozen=True)
class Edge:
    """What a command may use of the process: where it tells its steps, and what comes in."""

    tell: Callable[[str], None]
    source: BinaryIO


def act(given: argparse.Namespace, edge: Edge) -> Told:
    """Do what was typed, as the user that the device's folder belongs to."""
    documents = {name: _document(path) for name, path in _documents(given)}
    become_owner(given.device)
    return ACTS[given.does](given, edge, documents)


Documents = dict[str, bytes]


def _install(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    from edgekit_runtime.installing import Wishes, install

    with plain_errors(str(given.device)):
        make_folder(REAL, given.device)
    trust = tuple(raw for name, raw in documents.items() if name != "downgrade")
    wishes = Wishes(
        trust, documents.get("downgrade"), given.again, given.probation, given.roll_back_on_drift, not given.no_activate
    )
    if given.shadow is not None:
        wishes = replace(wishes, shadow=_terms(given))
    done = install(Device(given.device), given.path, wishes, edge.tell)
    ended = done.outcome in ("rolled back", "dropped")
    facts = asdict(done) | {"reason": done.outcome.replace(" ", "_") if ended else ""}
    words = f"{done.name} {done.version} ({done.id}): {done.outcome}{f': {done.why}' if done.why else ''}"
    return Told(facts, words, int(ended))


def _terms(given: argparse.Namespace) -> Terms:
    for word, said in (("--no-activate", given.no_activate), ("--downgrade", given.downgrade)):
        if said:
            raise EdgeKitError(f"--shadow and {word} do not go together", hint="leave one of them out")
    numbers = (given.shadow, given.shadow_requests, given.shadow_seconds, given.agreement, given.slower)
    return Terms(*numbers, given.probation)


def _status(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    from edgekit_runtime.store_status import facts_of, words_of

    facts = facts_of(device_at(given.device))
    return Told(facts, words_of(facts))


def _history(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    store = device_at(given.device).store
    if given.name is not None and store.slot(given.name) is None:
        raise NotFound(f"no model {given.name[:100]!r} was ever served here", hint="see edgekit-runtime status")
    names = store.names() if given.name is None else (given.name,)
    events = sorted(((event, name) for name in names for event in store.history(name)), key=lambda one: one[0].when)
    facts = [{"model": name, **asdict(event)} for event, name in events]
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(max(event.when, 0)))}  {name} {event.version} ({event.id}) "
        f"{event.what}{f': {event.why}' if event.why else ''}"
        for event, name in events
    ]
    return Told(facts, "\n".join(lines) or "nothing happened yet")


def _rollback(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    device = device_at(given.device)
    if given.to is not None:
        return _to(given, edge, device)
    store = device.store
    if given.shadow:
        return _drop(given.name, device)
    back = store.roll_back(given.name, "asked for")
    if back is None:
        raise _no_way_back(given.name[:100], store)
    served = _followed(device, given.name, back.id)
    facts = {"name": given.name, "version": back.manifest.version, "id": back.id, "served": served}
    return Told(facts, f"{given.name} is {back.manifest.version} ({back.id}) again{'' if served else _LATER}")


def _no_way_back(name: str, store: Store) -> NotFound:
    names = store.names()
    if name not in names:
        return NotFound(f"there is no model {name!r} here", hint=f"here are {', '.join(names) or 'none'}")
    hint = "its versions: edgekit-runtime history; one that is there still comes with --to ID"
    return NotFound(f"there is no version of {name!r} to go back to", hint=hint)


def _drop(name: str, device: Device) -> Told:
    gone = device.store.drop(name, "asked for")
    if gone is None:
        raise NotFound(f"no version of {name[:100]!r} is in shadow", hint="see edgekit-runtime status")
    _followed(device, name, gone.live or "")
    return Told({"name": name, "dropped": gone.id, "id": gone.live}, f"{name} {gone.version} ({gone.id}) is dropped")


_LATER = "; the server takes it at its next start"


def _to(given: argparse.Namespace, edge: Edge, device: Device) -> Told:
    """As an installation of what is here already: verified and tried, then live on trial."""
    from edgekit_runtime.installing import Wishes, install_files

    version = device.store.version(given.name, given.to)
    with device.store.installing():
        done = install_files(device, device.store.files(version), Wishes(again=True), edge.tell)
    return Told(asdict(done), f"{done.name} {done.version} ({done.id}): {done.outcome}")


def _followed(device: Device, name: str, id: str) -> bool:
    """Whether a server serves it now."""

    def settled(found: running.Running | None) -> bool:
        slot = device.store.slot(name)
        shadow = slot.shadow.id if slot is not None and slot.shadow is not None else None
        return found is not None and found.versions.get(name) == id and found.shadows.get(name) == shadow

    return running.wait(device.folder, settled, SWAP_SECONDS)


def _pin(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    store = device_at(given.device).store
    slot = _slot(store.slot(given.name), given.name)
    ids = [given.id or slot.live or ""] if given.does == "pin" or given.id else list(slot.pinned)
    for id in ids:
        (store.pin if given.does == "pin" else store.unpin)(given.name, id)
    pinned = _slot(store.slot(given.name), given.name).pinned
    return Told({"name": given.name, "pinned": pinned}, f"{given.name}: pinned: {', '.join(pinned) or 'none'}")


def _slot(slot: Slot | None, name: str) -> Slot:
    if slot is None:
        raise NotFound(f"no model {name[:100]!r} was ever served here", hint="see edgekit-runtime status")
    return slot


def _gc(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    freed = device_at(given.device).store.gc()
    return Told({"freed": freed}, f"{freed / 1e6:,.1f} MB freed")


def _have(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    from edgekit_runtime.incoming import have

    facts = have(Device(given.device).store)
    return Told(facts, f"{len(facts['objects'])} files, {len(facts['parts'])} begun (--json tells which)")


def _receive(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    from edgekit_runtime.incoming import receive, receive_delta

    store = Device(given.device).store
    if given.delta is None:
        facts = receive(store, given.sha256, given.offset, edge.source, given.size)
    elif given.size is None or given.offset:
        raise EdgeKitError("--delta takes --size, and no --offset: a delta comes as a whole", hint="say --size N")
    else:
        facts = receive_delta(store, given.sha256, given.delta, edge.source, given.size)
    return Told(facts, f"{facts['size']:,} bytes{', whole' if facts['complete'] else ''}")


def _trust(given: argparse.Namespace, edge: Edge, documents: Documents) -> Told:
    device = Device(given.device)
    with plain_errors(str(given.device)):
        make_folder(REAL, given.device)
    before = device.trusted()
    trust = device.take_trust(tuple(documents.values()))
    assert trust is not None
    facts: dict[str, Any] = {
        "serial": trust.serial,
        "changed": before is None or before.serial != trust.serial,
        "keys": [key.name for key in trust.keys],
        "revoked": [one.fingerprint for one in trust.revoked],
    }
    served = False
    if facts["changed"] and (found := running.server(device.folder)) is not None:
        with suppress(EdgeKitError):
            running.wake(found)
            served = True
    told = ", ".join(facts["keys"]) or "nobody"
    return Told(facts | {"told": served}, f"trust document {trust.serial}: bundles may be signed by {told}")


def _documents(given: argparse.Namespace) -> list[tuple[str, Path]]:
    if given.does == "trust":
        return [(str(index), path) for index, path in enumerate(given.file)]
    if given.does != "install":
        return []
    found = [(str(index), path) for index, path in enumerate(given.trust)]
    return found + ([("downgrade", given.downgrade)] if given.downgrade is not None else [])


def _document(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise NotFound(f"{path} does not read: {error.strerror}", hint="name a file that you can read") from error
    if len(raw) > MAX_DOCUMENT:
        raise BadBundle(f"{path} is too large for a signed document", hint="name a trust.json")
    return raw


ACTS: dict[str, Callable[[argparse.Namespace, Edge, Documents], Told]] = {
    "install": _install, "status": _status, "history": _history, "rollback": _rollback, "pin": _pin, "unpin": _pin,
    "gc": _gc, "have": _have, "receive": _receive, "trust": _trust,
}  # fmt: skip

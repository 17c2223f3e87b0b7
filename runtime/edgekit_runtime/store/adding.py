"""Add a bundle's files to the store: each file once, whole, and last of all the manifest that makes them a version.

Refuses a file that is not what the manifest says, one that it does not list, and a disk that would be full after it.

The bundle was verified by who hands it in; here its bytes are compared with its manifest once more, while written."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.disk import LEFT, Room, make_folder, plain_errors, remove, replace, write
from edgekit_runtime.errors import BadBundle, EdgeKitError
from edgekit_runtime.files import Files
from edgekit_runtime.manifest import FileEntry, Manifest
from edgekit_runtime.store import layout
from edgekit_runtime.store.cleaning import clean
from edgekit_runtime.store.layout import MANIFEST, MAX_ALONGSIDE, SIGNATURE, Layout, Version, id_of, read_manifest

CHUNK = 2**20
RESERVE, RESERVE_PART = 16 * 2**20, 0.05
"""Bytes that stay free: so many, or this part of the disk where that is less."""
_AGAIN = "build or copy the bundle again"


def add(at: Layout, files: Files) -> Version:
    """Make the version of these files; objects that are here are not written again."""
    raw = _read(files, MANIFEST)
    manifest = read_manifest(raw, files.where)
    id = id_of(raw)
    alongside = {MANIFEST: raw} | ({SIGNATURE: _read(files, SIGNATURE)} if SIGNATURE in files.names else {})
    _same_names(files, manifest)
    # One file may stand in the manifest under several names.
    wanted = {entry.sha256: (name, entry) for name, entry in manifest.files.items()}
    make_folder(at.disk, at.root)
    missing = {sha: one for sha, one in wanted.items() if not _holds(at, one[1])}
    _make_room(at, sum(entry.size for _, entry in missing.values()) + sum(map(len, alongside.values())), wanted)
    folders = sorted({at.object(sha).parent for sha in wanted})
    _make_folders(at, folders)
    for name, entry in missing.values():
        _add_object(at, files, name, entry)
    for folder in folders:
        at.disk.sync_folder(folder)  # where nothing was written too: who wrote it may have died before this
    _add_version(at, manifest.name, id, alongside)
    return Version(id, manifest)


def _read(files: Files, name: str) -> bytes:
    if name not in files.names:
        raise BadBundle(f"{files.where} has no {name}", hint="name a folder that `edgekit build` made")
    data = b""
    with files.open(name) as file:
        while chunk := file.read(MAX_ALONGSIDE + 1 - len(data)):
            data += chunk
    if len(data) > MAX_ALONGSIDE:
        raise BadBundle(f"{files.where}: {name} is too large", hint=_AGAIN)
    return data


def _same_names(files: Files, manifest: Manifest) -> None:
    there = files.names - {MANIFEST, SIGNATURE}
    if unlisted := sorted(there - manifest.files.keys()):
        raise BadBundle(f"{files.where}: not in the manifest: {', '.join(unlisted[:10])}", hint="remove them")
    if missing := sorted(manifest.files.keys() - there):
        raise BadBundle(f"{files.where}: missing: {', '.join(missing[:10])}", hint=_AGAIN)


def _holds(at: Layout, entry: FileEntry) -> bool:
    """Whether the object is here and still what its name says: one that a disk has spoilt is written again."""
    if not layout.is_there(at, entry.sha256, entry.size):
        return False
    try:
        with at.disk.open(at.object(entry.sha256)) as file:
            digest = hashlib.sha256()
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == entry.sha256


def _make_room(at: Layout, needed: int, wanted: Collection[str]) -> None:
    """Look before the first byte is written; what nothing needs goes first, but none of the objects `wanted`."""
    if fits(at.disk.room(at.root), needed):
        return
    clean(at, wanted)
    room = at.disk.room(at.root)
    if not fits(room, needed):
        hint = f"remove files from the disk of {at.root}; versions that nothing needs are gone already"
        raise EdgeKitError(no_room(room, needed), hint=hint)


def fits(room: Room, needed: int) -> bool:
    """Whether so many bytes can be written, and some stay free."""
    return room.free >= needed + _reserve(room)


def no_room(room: Room, needed: int) -> str:
    """What is said where they cannot."""
    told = f"{_mb(needed)} are needed and {_mb(_reserve(room))} stay free, but only {_mb(room.free)} are left"
    return f"no room: {told}"


def _reserve(room: Room) -> int:
    return int(min(RESERVE, room.total * RESERVE_PART))


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _make_folders(at: Layout, folders: list[Path]) -> None:
    """Those of objects, with one sync for all."""
    above = at.root / "objects"
    make_folder(at.disk, above)
    for folder in folders:
        if at.disk.kind(folder) is None:
            at.disk.mkdir(folder)
    at.disk.sync_folder(above)


def _add_object(at: Layout, files: Files, name: str, entry: FileEntry) -> None:
    path = at.object(entry.sha256)
    beside = path.with_name(path.name + LEFT)
    with files.open(name) as source:
        write(at.disk, beside, _checked(source, entry, f"{files.where}: {name}"))
    at.disk.rename(beside, path)


def _checked(source: BinaryIO, entry: FileEntry, where: str) -> Iterator[bytes]:
    """The bytes; the last are given only if all are what they must be."""
    digest, left = hashlib.sha256(), entry.size
    while chunk := _chunk(source, min(CHUNK, left + 1), where):
        digest.update(chunk)
        left -= len(chunk)
        if left < 0:
            raise BadBundle(f"{where} is longer than the manifest says", hint=_AGAIN)
        yield chunk
    if left or digest.hexdigest() != entry.sha256:
        raise BadBundle(f"{where} is not what the manifest says", hint=_AGAIN)


def _chunk(source: BinaryIO, size: int, where: str) -> bytes:
    with plain_errors(where):  # it is not the store's disk that fails
        return source.read(size)


def _add_version(at: Layout, name: str, id: str, alongside: dict[str, bytes]) -> None:
    """The folder that makes the objects a version: it comes whole, by one rename."""
    folder = at.version(name, id)
    make_folder(at.disk, folder.parent)
    if at.disk.kind(folder) == "folder":
        _mend(at, folder, alongside)
    else:
        beside = folder.with_name(folder.name + LEFT)
        if at.disk.kind(beside) is not None:
            remove(at.disk, beside)
        at.disk.mkdir(beside)
        for file, data in alongside.items():
            write(at.disk, beside / file, [data])
        at.disk.sync_folder(beside)
        at.disk.rename(beside, folder)
    at.disk.sync_folder(folder.parent)


def _mend(at: Layout, folder: Path, alongside: dict[str, bytes]) -> None:
    """The version is here: it may have a new signature, or a disk has spoilt it."""
    for name, data in alongside.items():
        path = folder / name
        if at.disk.kind(path) != "file" or at.disk.size(path) != len(data) or at.read(path, len(data)) != data:
            replace(at.disk, path, data)
    at.disk.sync_folder(folder)

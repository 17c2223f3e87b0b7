"""Where things lie in a store, and its versions as they are read back.

Refuses a name that could lead elsewhere, and a version whose manifest is not the one that its id was made of.

    objects/<2>/<sha256>              every file once, named by what is in it
    versions/<name>/<id>/             manifest.json and model.sig; the id is the start of the manifest's SHA-256
    slots/<name>/live                 a link to the version that is served
    slots/<name>/previous             the id of the one to go back to
    slots/<name>/trial.json           of the version that is not proven yet
    slots/<name>/shadow.json          of the version that answers a copy of some requests
    slots/<name>/refused, pin         ids: not to be tried again; never to be removed
    slots/<name>/history.jsonl        what happened, a line each
    incoming/                         what is being carried here
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.disk import Disk
from edgekit_runtime.errors import BadBundle, NotFound
from edgekit_runtime.files import SHA256, Files
from edgekit_runtime.manifest import PLAIN, Manifest, parse

MANIFEST, SIGNATURE = "manifest.json", "model.sig"
MAX_ALONGSIDE = 16 * 2**20
"""Bytes of a manifest or of a signature."""
MAX_STATE = 2**20
"""Bytes of any other file that the store reads."""
ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Version:
    """A version in the store. `id` tells it from all others, its manifest's `version` is for people."""

    id: str
    manifest: Manifest

    @property
    def name(self) -> str:
        """Of the model."""
        return self.manifest.name


@dataclass(frozen=True)
class Layout:
    """The paths of a store, on a disk, and the clock that it is stamped by."""

    root: Path
    disk: Disk
    clock: Callable[[], float]

    def object(self, sha256: str) -> Path:
        """Where a file lies."""
        return self.root / "objects" / sha256[:2] / sha256

    def versions(self, name: str) -> Path:
        """The folder of all versions of a model."""
        return self.root / "versions" / _plain(name)

    def version(self, name: str, id: str) -> Path:
        """The folder of one."""
        if not ID.fullmatch(id):
            raise NotFound(f"{id[:100]!r} is no id of a version", hint="see `edgekit-runtime history`")
        return self.versions(name) / id

    def slot(self, name: str) -> Path:
        """The folder of what a model is now."""
        return self.root / "slots" / _plain(name)

    def incoming(self) -> Path:
        """The folder of what is not whole yet."""
        return self.root / "incoming"

    def names(self, path: Path) -> list[str]:
        """What is in a folder; nothing where there is none."""
        return self.disk.names(path) if self.disk.kind(path) == "folder" else []

    def ids(self, name: str) -> list[str]:
        """Of all versions of a model."""
        return [one for one in self.names(self.versions(name)) if ID.fullmatch(one)]

    def read(self, path: Path, limit: int = MAX_STATE) -> bytes:
        """A whole file of so many bytes at most."""
        with self.disk.open(path) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise BadBundle(f"{path} is too large", hint="copy the bundle there again")
        return data


def _plain(name: str) -> str:
    if not PLAIN.fullmatch(name):
        raise NotFound(f"no model {name[:100]!r}", hint="names are made of letters, digits, . _ -")
    return name


def id_of(manifest: bytes) -> str:
    """The id of the version that these bytes are the manifest of."""
    return hashlib.sha256(manifest).hexdigest()[:12]


def read_manifest(raw: bytes, where: str) -> Manifest:
    """The manifest, every file of it named by a digest that can be a file's name here.

    Raises:
        BadBundle: it does not read.
    """
    try:
        manifest = parse(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"{where}: {MANIFEST} is not JSON: {error}") from error
    for path, entry in manifest.files.items():
        if not _is_digest(entry.sha256) or not is_count(entry.size):
            raise BadBundle(f"{where}: the digest or size of {path!r} does not read", hint="build the bundle again")
    return manifest


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def is_count(value: object) -> bool:
    """Whether it is a whole number of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_version(at: Layout, name: str, id: str) -> Version:
    """A version that is here.

    Raises:
        NotFound: it is not.
        BadBundle: its manifest is not the one that was added.
    """
    folder = at.version(name, id)
    if at.disk.kind(folder) != "folder":
        raise NotFound(f"no version {id} of {name} in the store", hint="see `edgekit-runtime history`")
    again = "install it again: what is broken is written anew"
    if at.disk.kind(folder / MANIFEST) != "file":
        raise BadBundle(f"{name} {id} has no manifest", hint=again)
    raw = at.read(folder / MANIFEST, MAX_ALONGSIDE)
    if id_of(raw) != id:
        raise BadBundle(f"the manifest of {name} {id} was touched", hint=again)
    manifest = read_manifest(raw, f"{name} {id}")
    if manifest.name != name:
        raise BadBundle(f"{name} {id} is a version of {manifest.name}", hint=again)
    return Version(id, manifest)


def whole(at: Layout, name: str, id: str) -> Version | None:
    """The version, if all its files are there, by their sizes (`add` and who loads them look at the bytes)."""
    try:
        version = read_version(at, name, id)
        entries = version.manifest.files.values()
        return version if all(is_there(at, entry.sha256, entry.size) for entry in entries) else None
    except (NotFound, BadBundle, OSError):
        return None


def is_there(at: Layout, sha256: str, size: int) -> bool:
    """Whether the object is, by its size."""
    path = at.object(sha256)
    return at.disk.kind(path) == "file" and at.disk.size(path) == size


def files(at: Layout, version: Version) -> Files:
    """The files of a version as they were added."""
    folder = at.version(version.name, version.id)
    alongside = {name: folder / name for name in (MANIFEST, SIGNATURE) if at.disk.kind(folder / name) == "file"}
    paths = {name: at.object(entry.sha256) for name, entry in version.manifest.files.items()} | alongside
    return Files(str(folder), frozenset(paths), lambda name: at.disk.open(paths[name]))

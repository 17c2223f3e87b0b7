"""A bundle on disk: a folder with a manifest, the artifact and what proves it. Opened whole or not at all.

Refuses a touched, missing, unlisted or linked file."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from edgekit_runtime.engines import open_model
from edgekit_runtime.errors import BadBundle, EdgeKitError, NotFound, Untrusted
from edgekit_runtime.manifest import FileEntry, Manifest, parse
from edgekit_runtime.ports import connect
from edgekit_runtime.preprocess import Preprocess, parse_preprocess
from edgekit_runtime.signature import SIGNATURE
from edgekit_runtime.tensors import Array, Feeds, Runner

if TYPE_CHECKING:
    from edgekit_runtime.drift import Baseline

MANIFEST = "manifest.json"
MAX_MANIFEST = 16 * 2**20
MAX_BASELINE = 4 * 2**20
PIECE = 2**20
SHOWN = 5
"""Names that one message tells."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    def place(self, name: str) -> Path:
        """Where one of its files lies. Raises `BadBundle` where it is encrypted there."""
        found = self.manifest.encrypted
        if found is not None and name in found.files:
            raise BadBundle(
                f"{self.folder}: {name} is encrypted for the device {found.device[:12]}",
                hint="flash it to that device, which opens it in memory; here use the bundle that was encrypted",
            )
        return self.folder / name

    def open_model(self) -> Runner:
        """The model as a function on the user's tensors, with the engine and options of the manifest."""
        manifest = self.manifest
        run = open_model(manifest.engine, self.place(manifest.entry), manifest.options)
        return connect(run, manifest.inputs, manifest.outputs)

    def labels(self) -> tuple[str, ...]:
        """The words for the classes, in their order; empty where the bundle has none. Raises `BadBundle` where they are
        no text."""
        name = self.manifest.labels
        if name is None:
            return ()
        try:
            return tuple(self.place(name).read_text(encoding="utf-8").splitlines())
        except UnicodeDecodeError as error:
            raise BadBundle(f"{name} is not text: {error}", hint="build it again, with UTF-8") from error

    def golden(self) -> list[tuple[Feeds, Feeds]]:
        """The recorded (inputs, outputs), in the user's tensors."""
        if self.manifest.golden is None:
            return []
        return read_golden(self.place(self.manifest.golden.file))

    def open_shadow(self) -> Runner | None:
        """The float artifact as a function on the user's tensors; None where the bundle carries none."""
        manifest, shadow = self.manifest, self.manifest.shadow
        if shadow is None:
            return None
        options = replace(manifest.options, precision="float32")
        return connect(open_model(shadow.engine, self.place(shadow.entry), options), shadow.inputs, shadow.outputs)

    def baseline(self) -> "Baseline | None":
        """What inputs and outputs looked like when it was built; None where that was not recorded."""
        if self.manifest.baseline is None:
            return None
        from edgekit_runtime.drift import parse_baseline

        if self.manifest.files[self.manifest.baseline].size > MAX_BASELINE:
            raise BadBundle(f"{self.folder}: {self.manifest.baseline} is too large for a baseline")
        try:
            return parse_baseline(json.loads(self.place(self.manifest.baseline).read_bytes()))
        except (ValueError, RecursionError) as error:
            raise BadBundle(f"{self.folder}: {self.manifest.baseline} is not JSON: {error}") from error

    def preprocess(self) -> Preprocess | None:
        """How a photo, a sound or a text becomes inputs; None where the bundle takes tensors only."""
        if self.manifest.preprocess is None:
            return None
        if (vocab := self.manifest.preprocess.get("vocab")) in self.manifest.files:
            self.place(str(vocab))
        try:
            return parse_preprocess(self.manifest.preprocess, self.folder)
        except EdgeKitError as error:
            raise BadBundle(f"{self.folder}: {error.what}", hint=error.hint) from error


def open_bundle(folder: Path | str) -> Bundle:
    """Read the manifest and verify every byte; `open_model` of what comes back is a function on named arrays.

    Who made it is not asked: a signature beside the manifest is left alone (see `verified`).

    Raises:
        NotFound: there is no bundle there.
        BadBundle: it is not whole, or holds what its manifest does not list.
    """
    folder = Path(folder)
    if not is_bundle(folder):
        raise NotFound(f"no bundle at {folder}", hint="name a folder that `edgekit build` made")
    manifest = read_manifest(folder)
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    refuse_other_names(str(folder), manifest.files, found.keys() - {MANIFEST, SIGNATURE})
    for name, path in found.items():
        if path.is_symlink() or not path.is_file():
            raise BadBundle(f"{folder}: {name} is not a plain file", hint="copy the bundle with its files, not links")
    for name, entry in manifest.files.items():
        with found[name].open("rb") as file:
            for _ in checked(f"{folder}: {name}", file, entry):
                pass
    return fitting(Bundle(folder, manifest))


def fitting(bundle: Bundle) -> Bundle:
    """The bundle, whose files were verified, if its preprocessing fits its model. Raises `BadBundle` where not."""
    wanted = None if bundle.manifest.encrypted is not None else bundle.preprocess()
    names = {port.spec.name for port in bundle.manifest.inputs}
    if wanted is not None and (extra := [name for name in wanted.inputs if name not in names]):
        many = ", ".join(map(repr, extra))
        raise BadBundle(f"{bundle.folder}: preprocessing for {many}, which is no input of the model")
    return bundle


def refuse_other_names(where: str, listed: Collection[str], found: Collection[str]) -> None:
    """Raise `Untrusted` if what lies at `where` is not just what is listed."""
    if unlisted := sorted(set(found) - set(listed)):
        shown = ", ".join(unlisted[:SHOWN])
        more = f" and {len(unlisted) - SHOWN} more" if len(unlisted) > SHOWN else ""
        what = f"{where}: files that the manifest does not list: {shown}{more}"
        raise Untrusted(what, hint="remove them", reason="unlisted")
    if missing := sorted(set(listed) - set(found)):
        what = f"{where}: {missing[0]} is missing"
        raise Untrusted(what, hint="build or copy the bundle again", reason="missing")


def checked(where: str, file: BinaryIO, entry: FileEntry) -> Iterator[bytes]:
    """The bytes of a file in pieces. They are good only if this ends without raising: its digest is known then.

    Raises:
        Untrusted: these are not the bytes that `entry` describes. What is longer is not read to its end.
    """
    digest, size = hashlib.sha256(), 0
    while piece := file.read(min(PIECE, entry.size - size + 1)):  # to one byte more than it should have
        digest.update(piece)
        size += len(piece)
        yield piece
    if FileEntry(digest.hexdigest(), size) != entry:
        what = f"{where} was touched after the build"
        raise Untrusted(what, hint="build or copy the bundle again", reason="touched")


def is_bundle(folder: Path) -> bool:
    """Whether `folder` looks like a bundle (its bytes are not verified)."""
    return folder.is_dir() and (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle whose other bytes are not verified. Raises as `open_bundle` does."""
    path = folder / MANIFEST
    if path.is_symlink() or path.stat().st_size > MAX_MANIFEST:
        raise BadBundle(
            f"{path} is a link, or too large for a manifest", hint="copy the bundle with its files, not links"
        )
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """The manifest in `raw`. Raises `BadBundle` where it is none that this runtime reads."""
    try:
        return parse(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"{where} is not JSON: {error}") from error


def describe(path: Path) -> FileEntry:
    """The SHA-256 and size of a file, read in pieces."""
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def write_golden(path: Path, pairs: list[tuple[Feeds, Feeds]]) -> None:
    """Record pairs of inputs and outputs as one `.npz`."""
    arrays: Feeds = {}
    for index, (feeds, answer) in enumerate(pairs):
        arrays |= {f"{index}/in/{name}": _storable(value) for name, value in feeds.items()}
        arrays |= {f"{index}/out/{name}": _storable(value) for name, value in answer.items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_golden(path: Path) -> list[tuple[Feeds, Feeds]]:
    """What `write_golden` wrote."""
    pairs: dict[int, tuple[Feeds, Feeds]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                index, side, name = key.split("/", 2)
                pairs.setdefault(int(index), ({}, {}))[("in", "out").index(side)][name] = _usable(arrays[key])
    except (ValueError, OSError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadBundle(f"{path.name} does not read: {error}") from error
    return [pairs[index] for index in sorted(pairs)]


def _storable(value: Array) -> Array:
    """Strings as numpy's own fixed-width ones: objects would be pickled, and pickles are never read."""
    return value.astype(np.str_) if value.dtype.kind == "O" else value


def _usable(value: Array) -> Array:
    return value.astype(object) if value.dtype.kind == "U" else value

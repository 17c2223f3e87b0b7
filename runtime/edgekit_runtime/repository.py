"""The folder that a server may load bundles from, as it is now: which models lie there, and the newest of one.

Refuses a bundle that is not whole; nothing outside the folder is ever looked at."""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekit_runtime.bundle import Bundle, is_bundle, open_bundle, read_manifest
from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound
from edgekit_runtime.manifest import Manifest

log = logging.getLogger("edgekit_runtime.repository")


class Source(Protocol):
    """Where a server finds the models that it may load by name."""

    def manifests(self) -> Iterable[Manifest]:
        """What is there; not verified yet."""
        ...

    def newest(self, name: str) -> Bundle:
        """The one to serve. Raises `EdgeKitError` where there is none, or it is not whole."""
        ...

    def start(self) -> list[Bundle]:
        """One of each name: what a server begins with."""
        ...

    def again(self, manifest: Manifest) -> Bundle | None:
        """The bundle with this manifest, if it is still there."""
        ...

    def instead(self, bundle: Bundle, error: EdgeKitError) -> Bundle | None:
        """What a server that begins serves instead of a bundle that does not open; None: nothing. Raises `error` where
        it must not begin without."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder of bundles as a `Source`."""

    path: Path

    def manifests(self) -> Iterable[Manifest]:
        """Of all bundles there."""
        return (manifest for _, manifest in listed(self.path))

    def newest(self, name: str) -> Bundle:
        """As the function of that name."""
        return newest(self.path, name)

    def start(self) -> list[Bundle]:
        """The newest of each name that is whole."""
        return newest_whole(self.path)

    def again(self, manifest: Manifest) -> Bundle | None:
        """The bundle with the same files."""
        for folder, known in listed(self.path, manifest.name):
            if known.files == manifest.files:
                return open_bundle(folder)
        return None

    def instead(self, bundle: Bundle, error: EdgeKitError) -> Bundle | None:
        """Nothing: who named the folder has to look."""
        raise error


def listed(folder: Path, name: str | None = None) -> Iterator[tuple[Path, Manifest]]:
    """The bundles in `folder` (of that `name`) by their manifests, which are not verified yet."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        log.error("the repository does not read: %s", error)
        return
    for path in found:
        if path.name.startswith(".") or not is_bundle(path):
            continue
        try:
            manifest = read_manifest(path)
        except EdgeKitError as error:
            _passed_over(path, error)
            continue
        if name in (None, manifest.name):
            yield path, manifest


def newest(folder: Path, name: str) -> Bundle:
    """The newest bundle of that name, verified.

    Raises:
        NotFound: there is none.
        BadRequest: it is not whole; why stands in the log.
    """
    found = max(listed(folder, name), key=lambda one: age(one[1].version), default=None)
    if found is None:
        raise NotFound(f"no bundle of model {name[:100]!r} in the repository", hint="put it there first")
    try:
        return open_bundle(found[0])
    except EdgeKitError as error:
        log.warning("%s", error.what)
        version = found[1].version
        raise BadRequest(f"version {version} of model {name} is not whole", hint="copy it there again") from error


def newest_whole(folder: Path) -> list[Bundle]:
    """The newest bundle of each name that is whole; those that are not are said in the log."""
    names: dict[str, list[tuple[str, Path]]] = {}
    for path, manifest in listed(folder):
        names.setdefault(manifest.name, []).append((manifest.version, path))
    made = []
    for candidates in names.values():
        for _, path in sorted(candidates, key=lambda one: age(one[0]), reverse=True):
            try:
                made.append(open_bundle(path))
                break
            except EdgeKitError as error:
                _passed_over(path, error)
    return made


def _passed_over(path: Path, error: EdgeKitError) -> None:
    log.warning("%s is passed over: %s", path.name, error.what)


def age(version: str) -> list[tuple[int, int, str]]:
    """A sort key: "10" is newer than "9", "1.2.10" than "1.2.9"."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[^\d.]+", version)]

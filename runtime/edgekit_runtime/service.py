"""The models that are served, and the one function that runs them. Knows no protocol and no socket.

Refuses a model or version that is not served, and feeds that do not fit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import MappingProxyType

from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import BadRequest, NotFound
from edgekit_runtime.preprocess import Preprocess
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec


@dataclass(frozen=True)
class Served:
    """One opened model. An engine's request is not reentrant: `run` is called under `lock` alone."""

    name: str
    version: str
    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Runner
    labels: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    lock: Lock = field(default_factory=Lock, compare=False, repr=False)

    def infer(self, feeds: Feeds) -> Feeds:
        """Run the model; calls from several threads wait for each other."""
        with self.lock:
            return self.run(feeds)


@dataclass(frozen=True)
class Service:
    """The served models by (name, version)."""

    models: Mapping[tuple[str, str], Served]

    def find(self, name: str, version: str | None = None) -> Served:
        """The model of that name, the newest where no version is given.

        Raises:
            NotFound: it is not served.
        """
        versions = self.versions(name)
        if not versions:
            raise NotFound("no such model", hint=f"this server has {', '.join(self.names())}")
        if version is not None and version not in versions:
            raise NotFound(f"model {name} has no such version", hint=f"use one of {', '.join(versions)}")
        return self.models[name, version or versions[-1]]

    def infer(self, name: str, version: str | None, feeds: Feeds) -> Feeds:
        """Run a served model on the user's tensors."""
        return self.find(name, version).infer(feeds)

    def versions(self, name: str) -> list[str]:
        """The served versions of a model, oldest first; numbers in them count as numbers."""
        return sorted((version for known, version in self.models if known == name), key=_age)

    def names(self) -> list[str]:
        """The names of the served models."""
        return sorted({name for name, _ in self.models})


def open_service(folders: Sequence[Path]) -> Service:
    """Open and warm up the bundles in `folders`.

    Raises:
        EdgeKitError: one of them is not whole or does not run here, or two are the same model and version.
    """
    models: dict[tuple[str, str], Served] = {}
    for folder in folders:
        one = serve_bundle(open_bundle(folder))
        if (one.name, one.version) in models:
            raise BadRequest(f"{folder}: model {one.name} version {one.version} is given twice", hint="serve it once")
        models[one.name, one.version] = one
    return Service(MappingProxyType(models))


def serve_bundle(bundle: Bundle) -> Served:
    """Open the bundle's model and run its first golden input, so that no client waits for a cold engine."""
    manifest, run = bundle.manifest, bundle.open_model()
    for feeds, _ in bundle.golden()[:1]:
        run(feeds)
    return Served(
        manifest.name,
        manifest.version,
        manifest.engine,
        tuple(port.spec for port in manifest.inputs),
        tuple(port.spec for port in manifest.outputs),
        run,
        bundle.labels(),
        bundle.preprocess(),
    )


def _age(version: str) -> list[tuple[int, int, str]]:
    """A sort key: "10" is newer than "9", "1.2.10" than "1.2.9"."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[^\d.]+", version)]

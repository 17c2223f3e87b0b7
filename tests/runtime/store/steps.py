"""What tests do to a store: versions of a few bytes, installed, proven good, rolled back.

Refuses nothing."""

import hashlib
import io
import json
from typing import BinaryIO

from edgekit_runtime.files import Files
from edgekit_runtime.manifest import FileEntry, Manifest, to_json
from edgekit_runtime.ports import Port
from edgekit_runtime.store import Store, Terms, Trial, Version
from edgekit_runtime.tensors import TensorSpec

NOW = 1_800_000_000.0
MODEL = "photos"
FIRST_BOOT, SECOND_BOOT = "boot-1", "boot-2"
LABELS = b"cat\ndog\n"


class Dripping(io.BytesIO):
    """Gives few bytes at a time, so that a small file is written in several pieces."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(16, size) if size is not None and size >= 0 else 16)


def bundle(number: int, name: str = MODEL, release: int | None = None, signature: bytes = b"signed") -> Files:
    """Version `number` of a model: a file of its own, one that all versions share."""
    contents = {"model.onnx": b"weights of %d, in forty bytes or so......" % number, "sub/labels.txt": LABELS}
    spec = TensorSpec("x", "float32", (None, 4))
    manifest = Manifest(
        name=name,
        version=str(number),
        target="here",
        format="onnx",
        precision="float32",
        engine="onnx",
        entry="model.onnx",
        inputs=(Port(spec, spec),),
        outputs=(Port(spec, spec),),
        files={path: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for path, data in contents.items()},
        release=number if release is None else release,
    )
    contents |= {"manifest.json": json.dumps(to_json(manifest)).encode(), "model.sig": signature}
    return in_memory(contents)


def in_memory(contents: dict[str, bytes]) -> Files:
    """Files that are nowhere."""

    def open_one(name: str) -> BinaryIO:
        big = name in ("manifest.json", "model.sig")
        return io.BytesIO(contents[name]) if big else Dripping(contents[name])

    return Files("memory", frozenset(contents), open_one)


def trial(boot: str | None = FIRST_BOOT) -> Trial:
    """One that began now."""
    return Trial(boot, NOW, 60)


def install(store: Store, number: int, release: int | None = None) -> Version:
    """Add and activate."""
    with store.installing():
        version = store.add(bundle(number, release=release))
        store.activate(MODEL, version.id, trial(), again=True)
    return version


def shadowed(store: Store, number: int) -> Version:
    """Add, and put in shadow of what is live."""
    with store.installing():
        version = store.add(bundle(number))
        store.shadow(MODEL, version.id, Terms(0.5), again=True)
    return version


def installed(store: Store, *numbers: int) -> None:
    """One after the other, each proven good."""
    for number in numbers:
        install(store, number)
        store.good(MODEL)


def id_of(number: int) -> str:
    """The id that the version gets."""
    with bundle(number).open("manifest.json") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def back(store: Store, number: int) -> Version | None:
    """Roll back from this version."""
    return store.roll_back(MODEL, "it answers wrongly", id_of(number))

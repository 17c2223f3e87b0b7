"""An image as a folder: the OCI image layout, whole or absent.

Refuses to replace anything that is not such a folder, and to read one that is no layout of a single model."""

import json
import shutil
from pathlib import Path

from edgekit_runtime.bundle import describe
from edgekit_runtime.errors import BadBundle, EdgeKitError

from edgekit.bundle import sync, whole_folder
from edgekit.oci.image import Layer, Packed
from edgekit.oci.manifest import (
    INDEX,
    MAX_MANIFEST,
    Descriptor,
    compact,
    digest_of,
    files_of,
    parse_image,
    parse_index,
)  # fmt: skip

MARKER = "oci-layout"
NAMED = "org.opencontainers.image.ref.name"


def is_layout(folder: Path) -> bool:
    """Whether `folder` looks like a layout (its bytes are not verified)."""
    return (folder / MARKER).is_file() and (folder / "index.json").is_file()


def refuse_to_replace(place: Path) -> None:
    """Raise if something that is no layout lies at `place`, or what it should lie in is no folder."""
    above = next((path for path in place.absolute().parents if path.exists()), place)
    if not above.is_dir():
        raise EdgeKitError(f"{above} is no folder", hint="say --out with a new name; nothing was touched")
    empty = place.is_dir() and not any(place.iterdir())
    if (place.exists() or place.is_symlink()) and not is_layout(place) and not empty:
        hint = "say --out with a new name; nothing was touched"
        raise EdgeKitError(f"{place} exists and is not an OCI layout", hint=hint)


def write_layout(packed: Packed, place: Path) -> None:
    """Put the image at `place`; an older layout there stays until the new one is whole."""
    with whole_folder(place, refuse_to_replace) as folder:
        _fill(packed, folder)


def read_layout(folder: Path) -> Packed:
    """The image in a layout. What its layers hold is verified by the registry that they are sent to.

    Raises:
        BadBundle: it holds no image, several, or one that is not whole.
    """
    if not is_layout(folder):
        raise EdgeKitError(f"no OCI layout at {folder}", hint="name a folder that edgekit pack made")
    listed = parse_index(_read(folder, folder / "index.json"))
    if len(listed) != 1:
        raise BadBundle(f"{folder} holds {len(listed)} images", hint="name a layout of one image")
    manifest = _blob(folder, listed[0])
    image = parse_image(manifest)
    files_of(image)
    layers = tuple(Layer(layer, _place(folder, layer.digest)) for layer in image.layers)
    for layer in layers:
        if layer.path.is_symlink() or not layer.path.is_file() or layer.path.stat().st_size != layer.descriptor.size:
            raise BadBundle(f"{folder}: {layer.descriptor.digest} is missing, or cut", hint="pack the bundle again")
    return Packed(manifest, _blob(folder, image.config), layers, dict(image.annotations))


def _fill(packed: Packed, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for content in (packed.manifest, packed.config):
        _write(_place(folder, digest_of(content)), content)
    for layer in packed.layers:
        place = _place(folder, layer.descriptor.digest)
        shutil.copyfile(layer.path, place)
        if f"sha256:{describe(place).sha256}" != layer.descriptor.digest:
            raise BadBundle(f"{layer.path} changed while it was packed", hint="pack it again")
        sync(place)
    version = packed.annotations.get("org.opencontainers.image.version", "latest")
    entry = packed.descriptor.to_json() | {"annotations": {NAMED: version}}
    _write(folder / "index.json", compact({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))
    _write(folder / MARKER, json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
    for path in (blobs, blobs.parent, folder):
        sync(path)


def _place(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _blob(folder: Path, descriptor: Descriptor) -> bytes:
    """The bytes of a manifest or config, which must be those that were named."""
    found = _read(folder, _place(folder, descriptor.digest))
    if digest_of(found) != descriptor.digest:
        raise BadBundle(f"{folder}: {descriptor.digest} was touched", hint="pack the bundle again")
    return found


def _read(folder: Path, path: Path) -> bytes:
    """A small file, which is a plain one."""
    if path.is_symlink() or not path.is_file():
        raise BadBundle(f"{folder}: {path.name} is missing, or no plain file", hint="pack the bundle again")
    if path.stat().st_size > MAX_MANIFEST:
        raise BadBundle(f"{folder}: {path.name} is larger than {MAX_MANIFEST:,} bytes", hint="do not use this image")
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sync(path)

"""What an order leaves out and its model or data declare: preprocessing, and the shapes of a factory's inputs.

Refuses nothing that was said: a flag stands above what is declared."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Photo, Preprocess, Sound, Text, parse_preprocess

from edgekit import sources
from edgekit.data import shapes_in
from edgekit.extras import needs
from edgekit.job import Order, anchored
from edgekit.model import Origin, Shape
from edgekit.userland import load_constant

CONSTANT = "PREPROCESS"
"""The name in the module of a factory; in an ONNX file it is the metadata property `preprocess`, as JSON."""


def completed(order: Order) -> Order:
    """The order with what its model and its data declare."""
    preprocess = order.preprocess if order.preprocess is not None else _preprocess(order.origin)
    order = replace(order, preprocess=preprocess)
    if order.origin.shapes or sources.kind(order.origin) not in sources.SHAPELESS:
        return order
    return replace(order, origin=replace(order.origin, shapes=_shapes(order)))


def _preprocess(origin: Origin) -> Mapping[str, Any] | None:
    kind = sources.kind(origin)
    if kind == "module:factory":
        found, home = load_constant(origin.model, CONSTANT), _home(origin.model.rpartition(":")[0])
    elif kind == ".onnx":
        found, home = _in_onnx(origin.path), origin.path.parent
    else:
        return None
    if found is not None and not isinstance(found, Mapping):
        raise EdgeKitError(
            f"{origin.model} declares preprocessing that is no table: {found!r}", hint="say --preprocess"
        )
    return None if found is None else anchored(found, home)


def _home(module: str) -> Path:
    """The folder of a module that was given by its file; where we are, of one that was given by its name."""
    return Path(module).parent if module.endswith(".py") else Path()


def _in_onnx(path: Path) -> Any:
    """The metadata property `preprocess` of an ONNX file; None where there is none, or the file is damaged."""
    with needs(f"reading {path}"):
        import onnx
        from google.protobuf.message import DecodeError
    try:
        properties = {p.key: p.value for p in onnx.load(str(path), load_external_data=False).metadata_props}
    except (DecodeError, OSError):
        return None
    if CONSTANT.lower() not in properties:
        return None
    try:
        return json.loads(properties[CONSTANT.lower()])
    except ValueError as error:
        raise EdgeKitError(f"{path}: its metadata preprocess is not JSON: {error}", hint="say --preprocess") from error


def _shapes(order: Order) -> tuple[Shape, ...]:
    """Input shapes that the data or the preprocessing tell; the batch stays free."""
    where = order.data or order.calibration
    if where is not None and where.endswith(".npz"):
        return tuple(Shape(name, ("batch", *shape), dtype) for name, (shape, dtype) in shapes_in(where).items())
    if order.preprocess is None or "input" not in order.preprocess:
        return ()
    return _shapes_after(parse_preprocess(order.preprocess))


def _shapes_after(declared: Preprocess) -> tuple[Shape, ...]:
    """The shapes of the inputs that are made; none where a size is left open."""
    if isinstance(declared, Text):
        return _text_shapes(declared)
    shape = _image_shape(declared) if isinstance(declared, Photo) else _sound_shape(declared)
    return () if shape is None else (shape,)


def _text_shapes(declared: Text) -> tuple[Shape, ...]:
    if declared.tokenizer == "none" or not declared.pad:
        return ()
    sizes: dict[str, int | str] = {"N": "batch", "T": declared.max_length}
    return tuple(Shape(name, _axes(declared.layout, sizes), declared.dtype) for name in declared.inputs)


def _sound_shape(declared: Sound) -> Shape | None:
    if declared.samples is None:
        return None
    mel = declared.features
    time = declared.samples if mel is None else mel.count(declared.samples)
    sizes: dict[str, int | str] = {"N": "batch", "C": 1, "T": time, "F": mel.n_mels if mel else 1}
    return Shape(declared.input, _axes(declared.layout, sizes), declared.dtype)


def _image_shape(declared: Photo) -> Shape | None:
    size = declared.crop if declared.crop is not None else declared.resize
    if size is None or (declared.crop is None and isinstance(size, int)):
        return None
    height, width = (size, size) if isinstance(size, int) else size
    sizes: dict[str, int | str] = {"N": "batch", "C": 1 if declared.channels == "GRAY" else 3, "H": height, "W": width}
    return Shape(declared.input, _axes(declared.layout, sizes), declared.dtype)


def _axes(layout: str, sizes: Mapping[str, int | str]) -> tuple[int | str, ...]:
    return tuple(sizes[axis] for axis in layout)

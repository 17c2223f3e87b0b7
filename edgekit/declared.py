"""What an order leaves out and its model or data declare: preprocessing, and the shapes of a factory's inputs.

Refuses nothing that was said: a flag stands above what is declared."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Preprocess, parse_preprocess

from edgekit import sources
from edgekit.data import shapes_in
from edgekit.extras import needs
from edgekit.job import Order
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
        found = load_constant(origin.model, CONSTANT)
    elif kind == ".onnx":
        found = _in_onnx(origin.path)
    else:
        return None
    if found is not None and not isinstance(found, Mapping):
        raise EdgeKitError(
            f"{origin.model} declares preprocessing that is no table: {found!r}", hint="say --preprocess"
        )
    return found


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
    shape = _image_shape(parse_preprocess(order.preprocess))
    return () if shape is None else (shape,)


def _image_shape(declared: Preprocess) -> Shape | None:
    """The shape that an image has after preprocessing; None where its size is left open."""
    size = declared.crop if declared.crop is not None else declared.resize
    if size is None or (declared.crop is None and isinstance(size, int)):
        return None
    height, width = (size, size) if isinstance(size, int) else size
    sizes: dict[str, int | str] = {"N": "batch", "C": 1 if declared.channels == "GRAY" else 3, "H": height, "W": width}
    return Shape(declared.input, tuple(sizes[axis] for axis in declared.layout), declared.dtype)

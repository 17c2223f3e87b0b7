"""Whether samples and labels fit what the model takes, and the digests that samples are known by.

Refuses NaN, wrong types and widths, numbers that do not fit, one class, and labels out of range."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array, TensorSpec

LOSSLESS = {"ff", "if", "uf", "ii", "ui", "iu", "uu", "bb"}
"""From which kinds of numbers to which; what of it loses values is found by looking at them."""


def check_form(spec: TensorSpec, dtype: np.dtype[Any], shape: Sequence[int], where: str) -> None:
    """Raise unless samples of this dtype and shape, with or without a batch axis of one, may become `spec`."""
    if not spec.accepts(shape) and not (spec.shape and spec.shape[0] in (None, 1) and spec.accepts((1, *shape))):
        raise EdgeKitError(
            f"{where}: {spec.name} has samples of shape {list(shape)}; the model takes {spec}",
            hint="make the first axis the sample, the rest the model's input",
        )
    if dtype.kind + np.dtype(spec.dtype).kind not in LOSSLESS:
        raise EdgeKitError(
            f"{where}: {spec.name} is {dtype.name}; the model takes {spec.dtype}", hint=f"write it as {spec.dtype}"
        )


def cast(values: Array, spec: TensorSpec, where: str) -> Array:
    """`values` in the spec's dtype. Raises unless that loses nothing but the precision of real numbers."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise EdgeKitError(f"{where}: {spec.name} holds NaN or infinity", hint="take those samples out")
    if values.dtype == np.dtype(spec.dtype):
        return values
    with np.errstate(over="ignore"):
        found = values.astype(spec.dtype)
    lost = not np.isfinite(found).all() if found.dtype.kind == "f" else not np.array_equal(found, values)
    if lost:
        raise EdgeKitError(f"{where}: values of {spec.name} do not fit {spec.dtype}", hint=f"write it as {spec.dtype}")
    return found


def fitted(array: Array, spec: TensorSpec, where: str) -> Array:
    """One sample in the spec's dtype, checked."""
    check_form(spec, array.dtype, array.shape, where)
    return cast(array, spec, where)


def keys_of(arrays: Sequence[tuple[TensorSpec, Array]]) -> list[str]:
    """The digests of samples that stand one after the other, one array for each input: equal samples, equal keys."""
    parts = []
    for spec, array in arrays:
        shape = array.shape[1:]
        if len(shape) == len(spec.shape) and shape and shape[0] == 1 and spec.shape[0] in (None, 1):
            shape = shape[1:]  # a batch axis of one is no part of the sample
        rows = np.ascontiguousarray(array).reshape(len(array), -1)
        parts.append((str((array.dtype, shape)).encode(), rows))
    keys = []
    for index in range(len(arrays[0][1])):
        hasher = hashlib.sha256()
        for head, rows in parts:
            hasher.update(head)
            hasher.update(rows[index].data)
        keys.append(hasher.hexdigest())
    return keys


def check_labels(labels: Array | None, classes: int | None, where: str) -> None:
    """Raise unless they are numbers, and, where there are `classes`, indices of several of those."""
    if labels is None:
        return
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise EdgeKitError(f"{where}: labels hold NaN or infinity", hint="take those samples out")
    if labels.dtype.kind not in "iuf":
        raise EdgeKitError(f"{where}: labels are {labels.dtype.name}", hint="give class indices or numbers")
    if labels.dtype.kind == "f" or labels.ndim > 1 or classes is None:
        return
    if labels.min() < 0 or labels.max() >= classes:
        raise EdgeKitError(
            f"{where}: labels from {labels.min()} to {labels.max()}; the model has classes 0 to {classes - 1}",
            hint="number the classes from 0, as the model does",
        )
    if len(labels) > 1 and len(np.unique(labels)) == 1:
        raise EdgeKitError(
            f"{where}: every label is {labels[0]}: one class proves nothing", hint="give samples of several classes"
        )

"""Samples by index, fitted to what the model takes; split so that nothing calibrates and evaluates at once.

Refuses NaN, wrong types and widths, no samples, one class, and labels out of range."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Preprocess
from edgekit_runtime.tensors import Array, Feeds, TensorSpec


@dataclass(frozen=True)
class Dataset:
    """Samples by index: `feeds(i)` is a batch of one in the user's tensors, `labels[i]` what is right.

    `keys[i]` is a digest of sample i's content: equal samples have equal keys. `batchable` says
    whether feeds may be joined along their first axis.
    """

    where: str
    keys: tuple[str, ...]
    feeds: Callable[[int], Feeds]
    labels: Array | None
    batchable: bool

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def fingerprint(self) -> str:
        """A hex digest of all samples and labels, in their order."""
        labels = b"" if self.labels is None else np.ascontiguousarray(self.labels).tobytes()
        return hashlib.sha256("".join(self.keys).encode() + labels).hexdigest()

    def take(self, indices: Sequence[int]) -> "Dataset":
        """The samples at `indices`, in that order."""
        chosen = list(indices)
        return replace(
            self,
            keys=tuple(self.keys[i] for i in chosen),
            feeds=lambda i: self.feeds(chosen[i]),
            labels=None if self.labels is None else self.labels[chosen],
        )

    def batches(self, size: int) -> Iterator[Feeds]:
        """Feeds of up to `size` samples joined, or of one where they cannot be joined."""
        step = size if self.batchable else 1
        for start in range(0, len(self), step):
            parts = [self.feeds(i) for i in range(start, min(start + step, len(self)))]
            yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if step > 1 else parts[0]


@dataclass(frozen=True)
class Wanted:
    """What the data must fit: the model's inputs, its number of classes if any, words for them, preprocessing."""

    inputs: tuple[TensorSpec, ...]
    classes: int | None = None
    names: tuple[str, ...] = ()
    preprocess: Preprocess | None = None


def split(data: Dataset, calibration: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """(calibration, evaluation): at most `calibration` samples, at most a quarter, calibrate; none is in both."""
    if len(data) < 4:
        raise EdgeKitError(
            f"{data.where}: {len(data)} samples are too few to calibrate on some and evaluate on others",
            hint="give more, or say --calibration CALIBRATION_DATA",
        )
    chosen = np.random.default_rng(seed).permutation(len(data))[: max(1, min(calibration, len(data) // 4))]
    held = {data.keys[i] for i in chosen}
    rest = [i for i in range(len(data)) if data.keys[i] not in held]
    if not rest:
        raise EdgeKitError(f"{data.where}: all samples are the same", hint="give data with different samples")
    return data.take(sorted(int(i) for i in chosen)), data.take(rest)


def refuse_overlap(calibration: Dataset, evaluation: Dataset) -> None:
    """Raise unless no sample of one is in the other."""
    shared = set(calibration.keys) & set(evaluation.keys)
    if shared:
        raise EdgeKitError(
            f"{len(shared)} samples of the calibration data {calibration.where} "
            f"are in the evaluation data {evaluation.where} too",
            hint="leave out --calibration (it is split off --data), or take them out of one of the two",
        )


def make_dataset(
    where: str, keys: tuple[str, ...], feeds: Callable[[int], Feeds], labels: Array | None,
    inputs: tuple[TensorSpec, ...], grown: bool,
) -> Dataset:  # fmt: skip
    if not keys:
        raise EdgeKitError(
            f"{where} holds no samples", hint="give at least one sample to calibrate on and some to evaluate on"
        )
    free = all(spec.shape and spec.shape[0] is None for spec in inputs)
    same = {tuple(array.shape[1:] for array in feeds(i).values()) for i in {0, len(keys) // 2, len(keys) - 1}}
    return Dataset(where, keys, feeds, labels, grown and free and len(same) == 1)


def fitted(array: Array, spec: TensorSpec, where: str, stacked: bool) -> Array:
    """`array` in the spec's dtype, if that loses nothing but float precision and the shape fits; with `stacked`
    its first axis is the sample."""
    sample = array.shape[1:] if stacked else array.shape
    if not spec.accepts(sample) and not (spec.shape and spec.shape[0] in (None, 1) and spec.accepts((1, *sample))):
        raise EdgeKitError(
            f"{where}: {spec.name} has samples of shape {list(sample)}; the model takes {spec}",
            hint="make the first axis the sample, the rest the model's input",
        )
    kinds = (array.dtype.kind, np.dtype(spec.dtype).kind)
    if kinds[0] not in "fiub" or kinds not in {
        ("f", "f"),
        ("i", "f"),
        ("u", "f"),
        ("i", "i"),
        ("u", "i"),
        ("i", "u"),
        ("u", "u"),
        ("b", "b"),
    }:
        raise EdgeKitError(
            f"{where}: {spec.name} is {array.dtype.name}; the model takes {spec.dtype}",
            hint=f"write it as {spec.dtype}",
        )
    if kinds[0] == "f" and not np.isfinite(array).all():
        raise EdgeKitError(f"{where}: {spec.name} holds NaN or infinity", hint="take those samples out")
    cast = array.astype(spec.dtype)
    if kinds[1] in "iu" and not np.array_equal(cast, array):
        raise EdgeKitError(f"{where}: values of {spec.name} do not fit {spec.dtype}", hint=f"write it as {spec.dtype}")
    return cast


def check_labels(data: Dataset, classes: int | None) -> None:
    labels = data.labels
    if labels is None:
        return
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise EdgeKitError(f"{data.where}: labels hold NaN or infinity", hint="take those samples out")
    if labels.dtype.kind not in "iuf":
        raise EdgeKitError(f"{data.where}: labels are {labels.dtype.name}", hint="give class indices or numbers")
    if labels.dtype.kind == "f" or labels.ndim > 1 or classes is None:
        return
    if labels.min() < 0 or labels.max() >= classes:
        raise EdgeKitError(
            f"{data.where}: labels from {labels.min()} to {labels.max()}; the model has classes 0 to {classes - 1}",
            hint="number the classes from 0, as the model does",
        )
    if len(labels) > 1 and len(np.unique(labels)) == 1:
        raise EdgeKitError(
            f"{data.where}: every label is {labels[0]}: one class proves nothing",
            hint="give samples of several classes",
        )


def key_of(arrays: Iterator[Array]) -> str:
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(str((array.dtype, array.shape)).encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()

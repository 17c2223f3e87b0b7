"""Samples by index, fitted to what the model takes; split so that nothing calibrates and evaluates at once.

Refuses too few samples, and samples or copies of pictures that stand in both parts."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Preprocess
from edgekit_runtime.tensors import Array, Feeds, TensorSpec
from PIL import Image

from edgekit.likeness import Looks, copies, joined, look
from edgekit.pictures import opened, pixels_of, stretched

BLOCK = 1000
"""Pictures looked at together when copies are sought."""


@dataclass(frozen=True)
class Dataset:
    """Samples by index: `feeds(i)` is a batch of one in the user's tensors, `labels[i]` what is right.

    `keys[i]` is a digest of sample i's content: equal samples have equal keys. `batchable` says
    whether feeds may be joined along their first axis. `files[i]` is the picture that sample i was
    made from; empty where samples are no files. `places[i]` is where sample i stood before any was
    taken; empty where none was.
    """

    where: str
    keys: tuple[str, ...]
    feeds: Callable[[int], Feeds]
    labels: Array | None
    batchable: bool
    files: tuple[Path, ...] = ()
    places: tuple[int, ...] = ()

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
            files=tuple(self.files[i] for i in chosen) if self.files else (),
            places=tuple(self.place_of(i) for i in chosen),
        )

    def batches(self, size: int) -> Iterator[Feeds]:
        """Feeds of up to `size` samples joined, or of one where they cannot be joined."""
        step = size if self.batchable else 1
        for start in range(0, len(self), step):
            parts = [self.feeds(i) for i in range(start, min(start + step, len(self)))]
            yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if step > 1 else parts[0]

    def place_of(self, index: int) -> int:
        """Where sample `index` stands in the data as they were given, from 0."""
        return self.places[index] if self.places else index

    def name_of(self, index: int) -> str:
        """What a person finds the sample by: the name of its file, or its place."""
        return self.files[index].name if self.files else f"sample {self.place_of(index)}"


@dataclass(frozen=True)
class Wanted:
    """What the data must fit: the model's inputs, its number of classes if any, words for them, preprocessing."""

    inputs: tuple[TensorSpec, ...]
    classes: int | None = None
    names: tuple[str, ...] = ()
    preprocess: Preprocess | None = None


def split(data: Dataset, calibration: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """(calibration, evaluation): at most `calibration` samples, at most a quarter, calibrate; none is in both, nor
    a copy of its picture."""
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
    ours, theirs = data.take(sorted(int(i) for i in chosen)), data.take(rest)
    near = {j for _, j in near_duplicates(ours, theirs)}
    if 0 < 2 * len(near) < len(rest):  # were it most of them, being alike would be the nature of these pictures
        theirs = theirs.take([j for j in range(len(theirs)) if j not in near])
    return ours, theirs


def refuse_overlap(calibration: Dataset, evaluation: Dataset) -> None:
    """Raise unless no sample of one, and no copy of its picture, is in the other."""
    first = {key: i for i, key in reversed(list(enumerate(calibration.keys)))}
    pairs = [(first[key], j) for j, key in enumerate(evaluation.keys) if key in first]
    what = "are in the evaluation data {} too"
    if not pairs:
        pairs = near_duplicates(calibration, evaluation)
        what = "are copies of pictures in the evaluation data {}, encoded or cut otherwise"
    if pairs:
        named = [f"{calibration.name_of(i)} = {evaluation.name_of(j)}" for i, j in pairs[:3]]
        raise EdgeKitError(
            f"{len({i for i, _ in pairs})} samples of the calibration data {calibration.where} "
            f"{what.format(evaluation.where)}: {', '.join(named)}{', ...' * (len(pairs) > 3)}",
            hint="leave out --calibration (it is split off --data), or take them out of one of the two",
        )


def near_duplicates(calibration: Dataset, evaluation: Dataset) -> list[tuple[int, int]]:
    """(i, j) where picture i of one is a copy of picture j of the other: encoded again, resized, brighter, cropped
    by a hair. Empty where the samples are no pictures, or where all pictures look alike.

    Pictures are files, or the one input of a model where that is of rank 4 with 1, 3 or 4 channels.
    Of the larger set each picture stands in one pair at most; 1.2 kB are held for each of the smaller.
    """
    from_files = bool(calibration.files and evaluation.files)
    if not from_files and not (_is_pictures(calibration) and _is_pictures(evaluation)):
        return []
    swap = len(calibration) > len(evaluation)
    held, streamed = (evaluation, calibration) if swap else (calibration, evaluation)
    found = copies(joined(_looks(held, from_files)), _looks(streamed, from_files))
    return sorted((j, i) if swap else (i, j) for i, j in found)


def duplicates_within(data: Dataset) -> int:
    """How many samples stand there before: they make intervals narrower than they are."""
    return len(data.keys) - len(set(data.keys))


def coverage_of_classes(data: Dataset, classes: int | None, names: Sequence[str] = ()) -> dict[str, Any]:
    """{"classes": {word: samples}, "missing": [word of each of `classes` without a sample]}; None and [] where the
    labels are no classes. A word is the class's name, or its number as text."""
    labels = data.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        return {"classes": None, "missing": []}
    counts = np.bincount(labels.astype(np.int64), minlength=classes or 0)
    words = [names[i] if i < len(names) else str(i) for i in range(len(counts))]
    seen = {f"{word} ({i})" if words.count(word) > 1 else word: int(counts[i]) for i, word in enumerate(words)}
    return {
        "classes": {word: count for word, count in seen.items() if count},
        "missing": [word for word, count in seen.items() if not count] if classes else [],
    }


def make_dataset(data: Dataset, inputs: tuple[TensorSpec, ...]) -> Dataset:
    """`data`, batchable where that is said, every input's first axis is free and its samples are of one shape.

    Raises:
        EdgeKitError: there are no samples.
    """
    if not len(data):
        raise EdgeKitError(
            f"{data.where} holds no samples", hint="give at least one sample to calibrate on and some to evaluate on"
        )
    free = all(spec.shape and spec.shape[0] is None for spec in inputs)
    some = {0, len(data) // 2, len(data) - 1}
    same = {tuple(array.shape[1:] for array in data.feeds(i).values()) for i in some}
    return replace(data, batchable=data.batchable and free and len(same) == 1)


def _is_pictures(data: Dataset) -> bool:
    feeds = list(data.feeds(0).values())
    return len(feeds) == 1 and pixels_of(feeds[0]) is not None


def _looks(data: Dataset, from_files: bool) -> Iterator[Looks]:
    for start in range(0, len(data), BLOCK):
        yield look(_picture(data, i, from_files) for i in range(start, min(start + BLOCK, len(data))))


def _picture(data: Dataset, index: int, from_files: bool) -> Image.Image | None:
    if from_files:
        return opened(data.files[index], 4 * 32)
    pixels = pixels_of(next(iter(data.feeds(index).values())))
    return None if pixels is None else stretched(pixels)

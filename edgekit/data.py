"""Calibration and evaluation data: opened, checked against the model, split, fingerprinted.

Refuses NaN, wrong types and widths, no samples, one class, labels out of range, and evaluation on what calibrated."""

import csv
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Preprocess, apply
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

from edgekit.userland import load_function

DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged `.npz` raises."""
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


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


def open_data(where: str, wanted: Wanted) -> Dataset:
    """Open `where`: an `.npz`, a folder of images, or `module:function` that yields samples.

    Raises:
        EdgeKitError: it is not there, does not fit the model, or cannot be evidence of anything.
    """
    path = Path(where)
    if path.is_dir():
        dataset = _open_folder(path, wanted)
    elif path.suffix == ".npz":
        dataset = _open_npz(path, wanted)
    elif ":" in where and not path.exists():
        dataset = _open_function(where, wanted)
    else:
        raise EdgeKitError(
            f"no data at {where}" if not path.exists() else f"{where} is not data that EdgeKit reads",
            hint="give an .npz, a folder of images, or module:function",
        )
    _check_labels(dataset, wanted.classes)
    return dataset


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


def shapes_in(where: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """The arrays of an `.npz` as name -> (shape of a sample, dtype); labels left out."""
    shapes = {}
    try:
        with _arrays(Path(where)) as arrays:
            for name in arrays.files:
                if name != "label":
                    shapes[name] = (arrays[name].shape[1:], arrays[name].dtype.name)
    except DAMAGED as error:
        raise EdgeKitError(
            f"{where} does not read: {error}", hint="write it with numpy.savez, without objects"
        ) from error
    return shapes


def raw_fingerprint(where: str) -> str | None:
    """A digest of the files that `where` names, unread; None for a function, which may yield what it likes."""
    path = Path(where)
    if not path.exists():
        return None
    hasher = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        hasher.update(str(file.relative_to(path)).encode())
        with file.open("rb") as opened:
            hasher.update(hashlib.file_digest(opened, "sha256").digest())
    return hasher.hexdigest()


def _arrays(path: Path) -> Any:
    try:
        opened = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise EdgeKitError(f"no data at {path}", hint="give an .npz, a folder of images, or module:function") from error
    except DAMAGED as error:
        raise EdgeKitError(f"{path} does not read as an .npz: {error}", hint="write it with numpy.savez") from error
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise EdgeKitError(
            f"{path} is a single array", hint="write it with numpy.savez, its arrays named as the inputs"
        )
    return opened


def _open_npz(path: Path, wanted: Wanted) -> Dataset:
    try:
        with _arrays(path) as file:
            arrays = {name: file[name] for name in file.files}
    except DAMAGED as error:
        raise EdgeKitError(
            f"{path} does not read: {error}", hint="write it with numpy.savez, without objects"
        ) from error
    labels = arrays.pop("label", None)
    names = [spec.name for spec in wanted.inputs]
    if set(arrays) != set(names):
        raise EdgeKitError(
            f"{path} holds arrays {', '.join(sorted(arrays)) or '(none)'}; the model takes {', '.join(names)}",
            hint="name the arrays as the model's inputs, the labels 'label'",
        )
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if labels is not None:
        lengths["label"] = len(labels) if labels.ndim else 0
    if len(set(lengths.values())) > 1:
        raise EdgeKitError(
            f"{path}: arrays of different lengths: {lengths}", hint="make the first axis the sample in each"
        )
    fitted = {spec.name: _fitted(arrays[spec.name], spec, str(path), stacked=True) for spec in wanted.inputs}
    count = len(next(iter(arrays.values())))
    keys = tuple(_key(fitted[name][i] for name in names) for i in range(count))
    grown = {spec.name: fitted[spec.name].ndim == len(spec.shape) for spec in wanted.inputs}

    def feeds(i: int) -> Feeds:
        return {name: array[i : i + 1] if grown[name] else np.asarray(array[i]) for name, array in fitted.items()}

    return _dataset(str(path), keys, feeds, labels, wanted.inputs, all(grown.values()))


def _open_function(where: str, wanted: Wanted) -> Dataset:
    """Samples of the user's function: dicts of arrays, or (dict or array, label); held in memory."""
    samples: list[Feeds] = []
    labels: list[Any] = []
    grown = True
    for index, item in enumerate(_yielded(where)):
        value, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(value, dict):
            value = {wanted.inputs[0].name: value}
        if set(value) != {spec.name for spec in wanted.inputs}:
            raise EdgeKitError(
                f"{where}: sample {index} holds {', '.join(map(str, value))}; the model takes "
                f"{', '.join(spec.name for spec in wanted.inputs)}",
                hint="yield a dict of arrays named as the model's inputs, or (dict, label)",
            )
        feeds = {}
        for spec in wanted.inputs:
            array = _fitted(np.asarray(value[spec.name]), spec, f"{where}: sample {index}", stacked=False)
            alone = array.ndim == len(spec.shape) - 1
            grown &= alone
            feeds[spec.name] = array[np.newaxis] if alone else array
        samples.append(feeds)
        labels.append(label)
    if any(label is None for label in labels) and any(label is not None for label in labels):
        raise EdgeKitError(
            f"{where}: some samples have a label, others not", hint="yield (feeds, label) for all or for none"
        )
    keys = tuple(_key(feeds[name] for name in feeds) for feeds in samples)
    told = np.asarray(labels) if labels and labels[0] is not None else None
    return _dataset(where, keys, lambda i: samples[i], told, wanted.inputs, grown)


def _yielded(where: str) -> Iterator[Any]:
    function = load_function(where)
    try:
        yield from function()
    except Exception as error:  # the user's own code may raise anything
        raise EdgeKitError(
            f"{where} raised {type(error).__name__}: {error}", hint="mend the function, or run it alone"
        ) from error


def _open_folder(folder: Path, wanted: Wanted) -> Dataset:
    """Images in class folders, images listed in labels.csv (file,label), or plain images without labels."""
    preprocess = wanted.preprocess
    if preprocess is None:
        raise EdgeKitError(
            f"{folder} holds images, and nothing says how they become the model's input",
            hint="say --preprocess FILE.toml (see README, Preprocessing)",
        )
    listed = folder / "labels.csv"
    if listed.is_file():
        files, words = _read_csv(listed)
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
        classes = any(path.parent != folder for path in files)
        words = [path.relative_to(folder).parts[0] for path in files] if classes else []
    if not files:
        raise EdgeKitError(
            f"{folder} holds no images", hint="put them in a folder for each class, or list them in labels.csv"
        )
    keys = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    specs = {spec.name: spec for spec in wanted.inputs}

    def feeds(i: int) -> Feeds:
        made = apply(preprocess, files[i])
        return {name: _fitted(array, specs[name], str(files[i]), stacked=False) for name, array in made.items()}

    feeds(0)
    labels = _class_indices(words, wanted, folder) if words else None
    return _dataset(str(folder), keys, feeds, labels, wanted.inputs, True)


def _read_csv(listed: Path) -> tuple[list[Path], list[str]]:
    with listed.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise EdgeKitError(
            f"{listed} lacks the columns file,label or has no rows", hint="start it with the line file,label"
        )
    files = [listed.parent / row["file"] for row in rows]
    for line, path in enumerate(files, start=2):
        if not path.is_file():
            raise EdgeKitError(f"{listed}:{line}: no file {path.name}", hint="name files relative to labels.csv")
    return files, [row["label"] for row in rows]


def _class_indices(words: list[str], wanted: Wanted, folder: Path) -> Array:
    """Class words as indices: by the bundle's labels, as numbers, or in sorted order where every class has samples."""
    distinct = sorted(set(words))
    if wanted.names and set(distinct) <= set(wanted.names):
        order = {word: wanted.names.index(word) for word in distinct}
    elif all(word.isdigit() for word in distinct):
        order = {word: int(word) for word in distinct}
    elif wanted.classes is None or len(distinct) == wanted.classes:
        order = {word: i for i, word in enumerate(distinct)}
    else:
        raise EdgeKitError(
            f"{folder} has {len(distinct)} classes, the model {wanted.classes}: which is which?",
            hint="say --labels LABELS.txt with a class a line, or name the classes by their index",
        )
    return np.array([order[word] for word in words], dtype=np.int64)


def _dataset(
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


def _fitted(array: Array, spec: TensorSpec, where: str, stacked: bool) -> Array:
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


def _check_labels(data: Dataset, classes: int | None) -> None:
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


def _key(arrays: Iterator[Array]) -> str:
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(str((array.dtype, array.shape)).encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()

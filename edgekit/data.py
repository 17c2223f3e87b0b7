"""Open what the user calls data: an `.npz`, a folder of images, or a function that yields samples.

Refuses what is damaged, what is named otherwise than the model's inputs, and images that nothing says how to read."""

import csv
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import apply
from edgekit_runtime.tensors import Array, Feeds

from edgekit.dataset import Dataset, Wanted, check_labels, fitted, key_of, make_dataset
from edgekit.userland import load_function

DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged `.npz` raises."""
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


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
    check_labels(dataset, wanted.classes)
    return dataset


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
    held = {spec.name: fitted(arrays[spec.name], spec, str(path), stacked=True) for spec in wanted.inputs}
    count = len(next(iter(arrays.values())))
    keys = tuple(key_of(held[name][i] for name in names) for i in range(count))
    grown = {spec.name: held[spec.name].ndim == len(spec.shape) for spec in wanted.inputs}

    def feeds(i: int) -> Feeds:
        return {name: array[i : i + 1] if grown[name] else np.asarray(array[i]) for name, array in held.items()}

    return make_dataset(str(path), keys, feeds, labels, wanted.inputs, all(grown.values()))


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
            array = fitted(np.asarray(value[spec.name]), spec, f"{where}: sample {index}", stacked=False)
            alone = array.ndim == len(spec.shape) - 1
            grown &= alone
            feeds[spec.name] = array[np.newaxis] if alone else array
        samples.append(feeds)
        labels.append(label)
    if any(label is None for label in labels) and any(label is not None for label in labels):
        raise EdgeKitError(
            f"{where}: some samples have a label, others not", hint="yield (feeds, label) for all or for none"
        )
    keys = tuple(key_of(feeds[name] for name in feeds) for feeds in samples)
    told = np.asarray(labels) if labels and labels[0] is not None else None
    return make_dataset(where, keys, lambda i: samples[i], told, wanted.inputs, grown)


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
        return {name: fitted(array, specs[name], str(files[i]), stacked=False) for name, array in made.items()}

    feeds(0)
    labels = _class_indices(words, wanted, folder) if words else None
    return make_dataset(str(folder), keys, feeds, labels, wanted.inputs, True)


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

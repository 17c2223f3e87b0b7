"""Open what the user calls data: an `.npz`, photos, sounds or texts, or a function that yields samples.

Refuses what is damaged, what is named otherwise than the model's inputs, and files that nothing says how to read."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

from edgekit.admission import cast, check_form, check_labels, fitted, keys_of
from edgekit.dataset import Dataset, Wanted, make_dataset
from edgekit.encoded import TABLES, digest, open_folder, open_table
from edgekit.npz import Header, archive, headers, rows, whole
from edgekit.spooling import Spool, Spooled, scratch
from edgekit.userland import load_function

BLOCK = 4 * 2**20
"""Bytes of an `.npz` looked at together."""
MOST_SAMPLES, MOST_BYTES = 1_000_000, 32 * 2**30
"""What a function may yield: beyond that it is taken to be endless."""


def open_data(where: str, wanted: Wanted) -> Dataset:
    """Open `where`: an `.npz`, a folder of photos, sounds or texts, a table of texts, or `module:function`.

    Raises:
        EdgeKitError: it is not there, does not fit the model, or cannot be evidence of anything.
    """
    path = Path(where)
    if path.is_dir():
        dataset = open_folder(path, wanted)
    elif path.suffix == ".npz":
        dataset = _open_npz(path, wanted)
    elif path.suffix.lower() in TABLES and path.is_file():
        dataset = open_table(path, wanted)
    elif ":" in where and not path.exists():
        dataset = _open_function(where, wanted)
    else:
        raise EdgeKitError(
            f"no data at {where}" if not path.exists() else f"{where} is not data that EdgeKit reads",
            hint="give an .npz, a folder of images, .wav or .txt files, a .csv of text,label, or module:function",
        )
    check_labels(dataset.labels, wanted.classes, dataset.where)
    return dataset


def shapes_in(where: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """The arrays of an `.npz` as name -> (shape of a sample, dtype); labels left out. Reads their headers alone."""
    with archive(Path(where)) as opened:
        found = headers(opened)
    return {name: (header.shape[1:], header.dtype.name) for name, header in found.items() if name != "label"}


def raw_fingerprint(where: str) -> str | None:
    """A digest of the files that `where` names, unread; None for a function, which may yield what it likes."""
    path = Path(where)
    if not path.exists():
        return None
    hasher = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        hasher.update(str(file.relative_to(path)).encode())
        hasher.update(bytes.fromhex(digest(file)))
    return hasher.hexdigest()


def _open_npz(path: Path, wanted: Wanted) -> Dataset:
    """Samples read from the disk as they are asked for; each was looked at once."""
    with archive(path) as opened:
        found = headers(opened)
        _check_headers(path, found, wanted)
        labels = whole(opened, "label") if "label" in found else None
        held = [(spec, rows(opened, spec.name, found[spec.name], path)) for spec in wanted.inputs]
    count = held[0][1].shape[0] if held else 0
    each = sum(one.bytes_each for _, one in held)
    keys: list[str] = []
    for start in range(0, count, step := max(1, BLOCK // max(1, each))):
        stop = min(start + step, count)
        keys += keys_of([(spec, cast(one.block(start, stop), spec, str(path))) for spec, one in held])
    grown = {spec.name: len(one.shape) == len(spec.shape) for spec, one in held}

    def feeds(i: int) -> Feeds:
        read = {spec.name: cast(one.block(i, i + 1), spec, str(path)) for spec, one in held}
        return {name: array if grown[name] else np.asarray(array[0]) for name, array in read.items()}

    return make_dataset(Dataset(str(path), tuple(keys), feeds, labels, all(grown.values())), wanted.inputs)


def _check_headers(path: Path, found: Mapping[str, Header], wanted: Wanted) -> None:
    names = [spec.name for spec in wanted.inputs]
    given = set(found) - {"label"}
    if given != set(names):
        raise EdgeKitError(
            f"{path} holds arrays {', '.join(sorted(given)) or '(none)'}; the model takes {', '.join(names)}",
            hint="name the arrays as the model's inputs, the labels 'label'",
        )
    lengths = {name: header.shape[0] if header.shape else 0 for name, header in found.items()}
    if len(set(lengths.values())) > 1:
        raise EdgeKitError(
            f"{path}: arrays of different lengths: {lengths}", hint="make the first axis the sample in each"
        )
    for spec in wanted.inputs:
        check_form(spec, found[spec.name].dtype, found[spec.name].shape[1:], str(path))


def _open_function(where: str, wanted: Wanted) -> Dataset:
    """Samples of the user's function: dicts of arrays, or (dict or array, label); kept on disk as they come."""
    spool, keys, labels, grown = Spool(scratch(where)), [], [], True
    for index, item in enumerate(_yielded(where)):
        value, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        feeds = []
        for spec, array in _arrays_of(value, wanted, f"{where}: sample {index}"):
            made = fitted(array, spec, f"{where}: sample {index}")
            alone = array.ndim == len(spec.shape) - 1
            grown &= alone
            spool.append(array[np.newaxis] if alone else array)
            feeds.append((spec, made[np.newaxis]))
        keys += keys_of(feeds)
        labels.append(label)
        if index >= MOST_SAMPLES or spool.size > MOST_BYTES:
            raise EdgeKitError(
                f"{where} has yielded {index + 1:,} samples, {spool.size / 1e9:,.1f} GB, and goes on",
                hint="end it, for example with itertools.islice(samples, 10000), or write an .npz, which has no limit",
            )
    if any(label is None for label in labels) and any(label is not None for label in labels):
        raise EdgeKitError(
            f"{where}: some samples have a label, others not", hint="yield (feeds, label) for all or for none"
        )
    told = np.asarray(labels) if labels and labels[0] is not None else None
    return make_dataset(
        Dataset(where, tuple(keys), _from_spool(spool.reader(), wanted, where), told, grown), wanted.inputs
    )


def _arrays_of(value: Any, wanted: Wanted, where: str) -> Iterator[tuple[TensorSpec, Array]]:
    """What one yielded value holds for each input."""
    if not isinstance(value, dict):
        value = {wanted.inputs[0].name: value}
    if set(value) != {spec.name for spec in wanted.inputs}:
        raise EdgeKitError(
            f"{where} holds {', '.join(map(str, value))}; the model takes "
            f"{', '.join(spec.name for spec in wanted.inputs)}",
            hint="yield a dict of arrays named as the model's inputs, or (dict, label)",
        )
    for spec in wanted.inputs:
        try:
            yield spec, np.asarray(value[spec.name])
        except Exception as error:  # what was yielded may be of any class, and some refuse to become an array
            raise EdgeKitError(f"{where}: {spec.name} is no array: {error}", hint="yield numpy arrays") from error


def _from_spool(spooled: Spooled, wanted: Wanted, where: str) -> Callable[[int], Feeds]:
    inputs = wanted.inputs

    def feeds(i: int) -> Feeds:
        return {spec.name: cast(spooled[i * len(inputs) + k], spec, where) for k, spec in enumerate(inputs)}

    return feeds


def _yielded(where: str) -> Iterator[Any]:
    function = load_function(where)
    try:
        yield from function()
    except Exception as error:  # the user's own code may raise anything
        raise EdgeKitError(
            f"{where} raised {type(error).__name__}: {error}", hint="mend the function, or run it alone"
        ) from error

"""Photos, sounds and texts as data: in class folders, listed in labels.csv, plain, or texts as rows of a table.

Refuses files that nothing says how to read, lists that do not fit, and words that are no class of the model."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Photo, Preprocess, Sound, Source, Text, apply, to_json
from edgekit_runtime.tensors import Array, Feeds

from edgekit.admission import fitted
from edgekit.dataset import Dataset, Wanted, make_dataset

ENDINGS = {
    "image": ("images", {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}),
    "audio": ("sounds", {".wav", ".wave"}),
    "text": ("texts", {".txt"}),
}
"""What the files of a kind are called, and how they end."""
TABLES = {".csv": ",", ".tsv": "\t"}


def open_folder(folder: Path, wanted: Wanted) -> Dataset:
    """Files in class folders, files listed in labels.csv (file,label), or plain files without labels."""
    preprocess = wanted.preprocess
    if preprocess is None:
        raise EdgeKitError(
            f"{folder} holds {_held(folder)}, and nothing says how they become the model's input",
            hint="say --preprocess FILE.toml (see README, Preprocessing)",
        )
    called, endings = ENDINGS[preprocess.kind]
    listed = folder / "labels.csv"
    if listed.is_file():
        files, words = _listed(listed)
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings)
        classes = any(path.parent != folder for path in files)
        if isinstance(preprocess, Text):
            files = [path for path in files if _is_sample(path, folder, classes, preprocess)]
        words = [path.relative_to(folder).parts[0] for path in files] if classes else []
    if not files:
        raise EdgeKitError(
            f"{folder} holds no {called}", hint="put them in a folder for each class, or list them in labels.csv"
        )
    stamp = _stamp(preprocess)
    keys = tuple(_key(bytes.fromhex(digest(path)), stamp) for path in files)
    feeds = _feeds(lambda i: files[i], lambda i: str(files[i]), wanted)
    labels = class_indices(words, wanted, str(folder)) if words else None
    return make_dataset(Dataset(str(folder), keys, feeds, labels, _alike(preprocess), tuple(files)), wanted.inputs)


def open_table(path: Path, wanted: Wanted) -> Dataset:
    """Texts in the column `text` of a .csv or .tsv, their classes, where it has one, in the column `label`."""
    if not isinstance(wanted.preprocess, Text):
        raise EdgeKitError(
            f"{path} holds texts, and nothing says how they become the model's input",
            hint='say --preprocess FILE.toml with kind = "text" (see README, Preprocessing)',
        )
    texts, words = _table(path)
    stamp = _stamp(wanted.preprocess)
    keys = tuple(_key(text.encode("utf-8"), stamp) for text in texts)
    feeds = _feeds(lambda i: texts[i], lambda i: f"{path}: sample {i}", wanted)
    labels = class_indices(words, wanted, str(path)) if words else None
    return make_dataset(Dataset(str(path), keys, feeds, labels, _alike(wanted.preprocess)), wanted.inputs)


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def class_indices(words: list[str], wanted: Wanted, where: str) -> Array:
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
            f"{where} has {len(distinct)} classes, the model {wanted.classes}: which is which?",
            hint="say --labels LABELS.txt with a class a line, or name the classes by their index",
        )
    return np.array([order[word] for word in words], dtype=np.int64)


def _feeds(source: Callable[[int], Source], where: Callable[[int], str], wanted: Wanted) -> Callable[[int], Feeds]:
    """Samples as they are asked for; the first is looked at now."""
    preprocess = wanted.preprocess
    assert preprocess is not None
    specs = {spec.name: spec for spec in wanted.inputs}
    if missing := sorted(specs.keys() - set(preprocess.inputs)):
        raise EdgeKitError(
            f"preprocessing makes {', '.join(preprocess.inputs)}; the model takes {', '.join(missing)} too",
            hint="give an .npz with an array for each input, or module:function",
        )

    def feeds(i: int) -> Feeds:
        made = apply(preprocess, source(i))
        return {name: fitted(array, specs[name], where(i)) for name, array in made.items()}

    feeds(0)
    return feeds


def _stamp(preprocess: Preprocess) -> bytes:
    """What tells the tensors of one preprocessing from those of another, of the same files."""
    known = sorted(preprocess.words.items()) if isinstance(preprocess, Text) else []
    return json.dumps([to_json(preprocess) | {"vocab": None}, known], sort_keys=True).encode()


def _key(content: bytes, stamp: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(content).digest() + hashlib.sha256(stamp).digest()).hexdigest()


def _alike(preprocess: Preprocess) -> bool:
    """Whether samples may be of one shape; that they are is looked at only here and there."""
    if isinstance(preprocess, Photo):
        return True
    if isinstance(preprocess, Sound):
        return preprocess.samples is not None
    return preprocess.pad or preprocess.tokenizer == "none"


def _is_sample(path: Path, folder: Path, classes: bool, preprocess: Text) -> bool:
    """Beside the folders of classes lie a readme.txt and a labels.txt, beside texts the vocabulary."""
    vocab = preprocess.vocab
    return not (classes and path.parent == folder) and not (vocab is not None and path.samefile(vocab))


def _held(folder: Path) -> str:
    """What most files of a folder are called; images where none is known."""
    endings = [path.suffix.lower() for path in folder.rglob("*")]
    counts = {called: sum(ending in known for ending in endings) for called, known in ENDINGS.values()}
    return max(counts, key=lambda called: counts[called])


def _listed(listed: Path) -> tuple[list[Path], list[str]]:
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


def _table(path: Path) -> tuple[list[str], list[str]]:
    """(texts, labels or nothing). Tab-separated values know no quotes."""
    delimiter = TABLES[path.suffix.lower()]
    dialect = "excel" if delimiter == "," else _Plain
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, dialect=dialect)
            if "text" not in (rows.fieldnames or ()):
                raise EdgeKitError(f"{path} lacks the column text", hint=f"start it with the line text{delimiter}label")
            read = [(rows.line_num, row) for row in rows]
    except (csv.Error, UnicodeDecodeError) as error:
        raise EdgeKitError(f"{path} does not read: {error}", hint="save it in UTF-8, a sample a line") from error
    if not read:
        raise EdgeKitError(f"{path} holds no samples", hint="give a row for each text")
    labelled = any(row.get("label") for _, row in read)
    for line, row in read:
        if row["text"] is None or None in row or (labelled and not row.get("label")):
            raise EdgeKitError(
                f"{path}:{line}: not a text{delimiter}label as in the other rows",
                hint="give each row both, or none a label; a text with commas stands in quotes",
            )
    return [row["text"] for _, row in read], [row["label"] for _, row in read] if labelled else []


class _Plain(csv.excel_tab):
    """Tab-separated values as they come: a quote is a quote."""

    quoting = csv.QUOTE_NONE

"""One kept sample on disk: a folder with the source or the tensors, and facts.json. Written whole or absent.

Refuses to read a folder that is not as it was written: it is left aside.

Names are digests of the content, made here: nothing that a client says becomes part of a path."""

import errno
import hashlib
import json
import math
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.preprocess.media import sniff
from edgekit_runtime.samples.candidate import Candidate
from edgekit_runtime.samples.packing import pack, storable
from edgekit_runtime.samples.shelves import Kept, Worths
from edgekit_runtime.tensors import Array

FACTS, TENSORS, FLOORS = "facts.json", "tensors.npz", "floors.json"
NAME = re.compile("[0-9a-f]{32}")
ENDINGS = {
    "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/bmp": "bmp", "image/gif": "gif",
    "image/tiff": "tif", "audio/wav": "wav",
}  # fmt: skip
FILES = {TENSORS, "source.txt", *(f"source.{ending}" for ending in ENDINGS.values())}
BLOCK = 4096
"""A file takes whole blocks of the disk, and its folder one more."""
MOST_FACTS, MOST_FLOORS = 64 * 1024, 2**20
LATEST_MS, MOST_CLASSES = 2**33 * 1000, 10**9
"""A tar's times are of 33 bits."""
TOP, MOST_OUTPUTS, MOST_VALUES = 5, 4, 1_000_000
LONGEST = 256


def content(one: Candidate) -> tuple[str, bytes] | None:
    """The name and the bytes of the file to keep: the source where it is what its kind says, else the tensors."""
    if one.source is not None:
        if one.kind == "text":
            return "source.txt", one.source
        found = sniff(one.source[:16])
        if found is not None and found.partition("/")[0] == one.kind:
            return f"source.{ENDINGS[found]}", one.source
    arrays = storable(one.feeds)
    if not arrays or any(value.dtype.kind not in "fiubcU" for value in arrays.values()):
        return None
    return TENSORS, pack({name: [value] for name, value in arrays.items()})


def named(model: str, file: str, data: bytes) -> str:
    """The name of a sample: equal content of a model has equal names."""
    return hashlib.sha256(b"\0".join((model.encode(), file.encode(), data))).hexdigest()[:32]


def facts(one: Candidate, kept: Kept) -> dict[str, Any]:
    """What is told of a sample."""
    outputs = {name: _best(value) for name, value in list(one.outputs.items())[:MOST_OUTPUTS]}
    return {
        "schema": 1, "id": kept.id, "when_ms": kept.when_ms, "model": kept.model, "version": kept.version,
        "kind": kept.kind, "file": kept.file, "outputs": outputs, "answer": kept.answer, "worths": kept.worths,
        "label": kept.label, "index": kept.index,
    }  # fmt: skip


def room(*sizes: int) -> int:
    """Bytes that files of these sizes take on disk, in a folder of their own."""
    return BLOCK + sum(-(-size // BLOCK) * BLOCK for size in sizes)


def written(told: dict[str, Any]) -> bytes:
    """The text of facts.json."""
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def write(folder: Path, kept: Kept, data: bytes, told: bytes) -> None:
    """Write a sample, whole or not at all. Raises OSError."""
    made = folder / f".new-{kept.name}"
    try:
        made.mkdir(mode=0o700)
        for name, held in ((kept.file, data), (FACTS, told)):
            _write(made / name, held)
        _sync(made)
        made.rename(folder / kept.name)
    except OSError:
        _clear(made)
        raise
    _sync(folder)


def replace(path: Path, data: bytes) -> None:
    """Write a file anew, whole or not at all; a power cut within seconds may bring back the old one. Raises OSError."""
    made = path.with_name(f".new-{path.name}")
    try:
        made.unlink(missing_ok=True)
        _write(made, data)
        made.replace(path)
    except OSError:
        with suppress(OSError):
            made.unlink(missing_ok=True)
        raise


def read(path: Path) -> Kept | None:
    """What is remembered of a sample; None where it is not as it was written."""
    try:
        told = raw(path)
        file = told["file"]
        if told["schema"] != 1 or file not in FILES or (path / file).is_symlink() or not (path / file).is_file():
            return None
        when, index = int(told["when_ms"]), None if told["index"] is None else int(told["index"])
        if not 0 <= when < LATEST_MS or not 0 <= (index or 0) < MOST_CLASSES:
            return None
        size = (path / file).stat().st_size
        model, version, id, kind = (told[key] for key in ("model", "version", "id", "kind"))
        answer, label = told["answer"], told["label"]
        if not size or not all(isinstance(word, str) for word in (model, version, id, kind, answer or "", label or "")):
            return None
        taken = room(size, (path / FACTS).stat().st_size)
        worths = _worths(told["worths"])
        return Kept(path.name, model, version, id, when, kind, file, taken, worths, answer, label, index)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _worths(raw: Any) -> Worths:
    """Raises ValueError or TypeError."""
    confidence, drift, draw = (None if one is None else float(one) for one in raw)
    if draw is None or any(one is not None and not math.isfinite(one) for one in (confidence, drift, draw)):
        raise ValueError("no worths")
    return confidence, drift, draw


def raw(path: Path) -> dict[str, Any]:
    """The facts of a sample as they are on disk. Raises OSError or ValueError."""
    found = json.loads(held(path / FACTS, MOST_FACTS))
    if not isinstance(found, dict):
        raise ValueError("no facts")
    return found


def held(path: Path, most: int) -> bytes:
    """The first bytes of a plain file; what was put in its place, a link or a pipe, is not read. Raises OSError."""
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        return opened.read(most)


def remove(folder: Path, name: str) -> None:
    """Remove a sample: at once out of sight, then file by file. Raises OSError where it stays."""
    gone = folder / f".old-{name}"
    _clear(gone)
    (folder / name).rename(gone)
    _clear(gone)


def sweep(folder: Path) -> list[Path]:
    """Remove what a cut left behind, and list the samples."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".new-", ".old-")):
            _clear(path)
        elif NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            for litter in path.glob(".new-*"):
                _clear(litter)
            found.append(path)
    return found


def weighed(path: Path) -> int:
    """Bytes that a damaged sample takes."""
    try:
        return room(*(one.lstat().st_size for one in path.iterdir() if not one.is_dir()))
    except OSError:
        return BLOCK


def _best(value: Array) -> dict[str, Any]:
    """The largest values of an output's first row, by their place."""
    told: dict[str, Any] = {"shape": list(value.shape), "top": []}
    if value.dtype.kind not in "fiu" or not 0 < value.size <= MOST_VALUES:
        return told
    row = (value.reshape(len(value), -1)[0] if value.ndim > 1 else value.reshape(-1)).astype(np.float64)
    order = np.argsort(np.where(np.isfinite(row), -row, np.inf), kind="stable")[:TOP]
    told["top"] = [[int(i), float(f"{row[i]:.6g}")] for i in order if np.isfinite(row[i])]
    return told


def _write(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _clear(path: Path) -> None:
    """Remove a file, or a folder of files, as far as that goes."""
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        for inside in path.iterdir():
            with suppress(OSError):
                inside.unlink()
        path.rmdir()

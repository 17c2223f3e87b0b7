"""Samples of devices gathered in a folder: merged by content, laid out so that `edgekit build` takes them as data.

Refuses a folder that holds anything else, samples of another model, and a second process at the same time.

A sample is a file of its own, written whole or not at all; labels.csv and samples.json name none that is not there.
Tensors are kept one by one in TENSORS, and joined at the end into archives that a build reads."""

import csv
import fcntl
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.samples.packing import pack, unpack
from edgekit_runtime.tensors import Feeds

from edgekit.parcels import LIST, SCHEMA, TABLE, Parcel, Sample

SCRATCH, TENSORS = ".pulling", ".tensors"
SIDES = ("labelled", "unlabelled")
Row = dict[str, Any]
KEYS = {"name", "ending", "file", "row", "label", "index"}


class Collection:
    """What lies in a folder; `rows` by the samples' names. Use `collecting` to open one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, rows = _listed(folder)
        self.rows: dict[str, Row] = {row["name"]: row for row in rows}

    def add(self, parcel: Parcel) -> int:
        """Merge the samples of a parcel; how many are new.

        Raises:
            EdgeKitError: they are of another model.
        """
        if self.model not in (None, parcel.model):
            raise EdgeKitError(
                f"{self.folder} holds samples of {self.model}, these are of {parcel.model}",
                hint="say another --out, or --model",
            )
        self.model = parcel.model
        fresh = {one.name: one for one in parcel.samples}
        for one in fresh.values():
            self._write(one)
        before = len(self.rows)
        self.rows |= {name: self._row(one) for name, one in fresh.items()}
        self._list()
        for name in fresh:
            self._tidy(name)
        return len(self.rows) - before

    def finish(self) -> None:
        """Join the tensors into archives, where any is new or was moved."""
        tensors = [row for row in self.rows.values() if row["ending"] == "npz"]
        if all(row["file"] is not None for row in tensors):
            return
        made: dict[str, Path] = {}
        for file, rows in _grouped(tensors, self._shapes):
            made[file] = self._scratch(file.replace("/", "-"))
            with made[file].open("wb") as stream:
                _join(stream, rows, self.folder / TENSORS)
                stream.flush()
                os.fsync(stream.fileno())
            for place, row in enumerate(rows):
                row |= {"file": file, "row": place}
        for file, path in made.items():
            path.replace(_made(self.folder / file))
        for old in (old for side in SIDES for old in (self.folder / side).glob("*.npz")):
            if f"{old.parent.name}/{old.name}" not in made:
                old.unlink()
        self._list()

    def count(self, side: str) -> tuple[int, int]:
        """How many sources and how many tensors lie on that side."""
        rows = [row for row in self.rows.values() if _side(row) == side]
        tensors = sum(row["ending"] == "npz" for row in rows)
        return len(rows) - tensors, tensors

    def archives(self, side: str) -> list[str]:
        """The archives of that side, those of most samples first; without what no build takes."""
        files = [row["file"] for row in self.rows.values() if row["ending"] == "npz" and _side(row) == side]
        return sorted({file for file in files if file and "not-finite" not in file}, key=lambda one: (len(one), one))

    def _row(self, one: Sample) -> Row:
        row: Row = {"name": one.name, "ending": one.ending, "file": None, "row": None, "label": one.label}
        row |= {"index": one.index, **one.told}
        if one.tensors is None:
            return row | {"file": f"{_side(row)}/{one.name}.{one.ending}"}
        row["finite"] = all(np.isfinite(value).all() for value in one.tensors.values() if value.dtype.kind in "fc")
        old = self.rows.get(one.name)
        same = old is not None and old["index"] == one.index
        return row | {"file": old["file"], "row": old["row"]} if old is not None and same else row

    def _write(self, one: Sample) -> None:
        """Put the sample in its place, unless it lies there: its name tells its content."""
        side = SIDES[one.label is None]
        place = self.folder / (TENSORS if one.tensors is not None else side) / f"{one.name}.{one.ending}"
        if place.is_file() and (one.tensors is not None or place.stat().st_size == len(one.source)):
            return
        content = one.source
        if one.tensors is not None:
            content = pack({name: [value[np.newaxis]] for name, value in one.tensors.items()})
        self._replace(place, content)

    def _replace(self, place: Path, content: bytes) -> None:
        made = self._scratch(place.name)
        with made.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        made.replace(_made(place))

    def _scratch(self, name: str) -> Path:
        return self.folder / SCRATCH / name

    def _list(self) -> None:
        """Write labels.csv, then samples.json."""
        rows = [self.rows[name] for name in sorted(self.rows)]
        sources = [row for row in rows if row["ending"] != "npz" and row["label"] is not None]
        if sources:
            table = io.StringIO(newline="")
            written = [(row["file"].split("/")[1], row["label"]) for row in sources]
            csv.writer(table, lineterminator="\n").writerows([("file", "label"), *written])
            self._replace(self.folder / TABLE, table.getvalue().encode())
        told = {"schema": SCHEMA, "model": self.model, "samples": rows}
        self._replace(self.folder / LIST, json.dumps(told, indent=1).encode())

    def _tidy(self, name: str) -> None:
        """A sample whose label was told lies on one side only."""
        row = self.rows[name]
        if row["ending"] != "npz":
            other = SIDES[1 - SIDES.index(_side(row))]
            (self.folder / other / f"{name}.{row['ending']}").unlink(missing_ok=True)

    def _shapes(self, row: Row) -> str:
        arrays = unpack((self.folder / TENSORS / f"{row['name']}.npz").read_bytes())
        return repr([(name, value.shape, _kind(value.dtype)) for name, value in sorted(arrays.items())])


@contextmanager
def collecting(folder: Path) -> Iterator[Collection]:
    """The collection in `folder`, made where there is none.

    Raises:
        EdgeKitError: something else lies there, or another process gathers into it.
    """
    refuse_others(folder)
    scratch = folder / SCRATCH
    lock = _locked(scratch)
    try:
        for litter in scratch.iterdir():
            litter.unlink()
        found = Collection(folder)
        for name in found.rows:
            found._tidy(name)
        yield found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
        os.close(lock)


def _locked(scratch: Path) -> int:
    """An open descriptor of the scratch folder, exclusively locked."""
    scratch.mkdir(parents=True, exist_ok=True)
    lock = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not scratch.exists() or os.fstat(lock).st_ino != scratch.stat().st_ino:  # another took it away meanwhile
            raise BlockingIOError
    except BlockingIOError as error:
        os.close(lock)
        raise EdgeKitError(
            f"another pull writes into {scratch.parent}", hint="wait for it, or say another --out"
        ) from error
    return lock


def refuse_others(folder: Path) -> None:
    """Raise unless `folder` is a collection, empty or absent."""
    if not folder.exists() or (folder / LIST).is_file():
        return
    if not folder.is_dir() or any(path.name != SCRATCH for path in folder.iterdir()):
        raise EdgeKitError(
            f"{folder} holds something else than pulled samples",
            hint="say --out with a new name; nothing was touched",
        )


def _listed(folder: Path) -> tuple[str | None, list[Row]]:
    """(model, rows) of a collection; nothing of one that is yet to be made."""
    try:
        told = json.loads((folder / LIST).read_bytes())
        if told["schema"] != SCHEMA or not all(row.keys() >= KEYS for row in told["samples"]):
            raise ValueError
        return told["model"], told["samples"]
    except FileNotFoundError:
        return None, []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgeKitError(
            f"{folder / LIST} is not as pull-samples wrote it", hint="say --out with a new name; nothing was touched"
        ) from error


def _side(row: Mapping[str, Any]) -> str:
    """Tensors are of use as labelled where their class is known."""
    known = row["index"] if row["ending"] == "npz" else row["label"]
    return SIDES[known is None]


def _grouped(rows: list[Row], shapes: Any) -> Iterator[tuple[str, list[Row]]]:
    """(file, its rows): those of the same shapes together, the most first."""
    parts: dict[str, dict[str, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: str(row["name"])):
        kind = "tensors" if row["finite"] else "not-finite"
        parts.setdefault(f"{_side(row)}/{kind}", {}).setdefault(shapes(row), []).append(row)
    for stem, forms in sorted(parts.items()):
        for number, group in enumerate(sorted(forms.values(), key=len, reverse=True), start=1):
            yield f"{stem}{'' if number == 1 else f'-{number}'}.npz", group


def _kind(dtype: np.dtype[Any]) -> str:
    """Strings of all widths go together."""
    return "str" if dtype.kind == "U" else dtype.str


def _join(stream: IO[bytes], rows: list[Row], folder: Path) -> None:
    """Write an `.npz` of these samples, a sample at a time; with `label`, where their classes are known."""

    def opened() -> Iterator[Feeds]:
        return (unpack((folder / f"{row['name']}.npz").read_bytes()) for row in rows)

    first = next(opened())
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as made:
        for name in first:
            wide = max((one[name].dtype for one in opened()), key=lambda dtype: dtype.itemsize)
            head = {"shape": (len(rows), *first[name].shape[1:]), "fortran_order": False, "descr": wide.str}
            with made.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, head)
                for one in opened():
                    member.write(np.ascontiguousarray(one[name], wide).tobytes())
        if rows[0]["index"] is not None:
            with made.open(zipfile.ZipInfo("label.npy"), "w") as member:
                np.lib.format.write_array(member, np.array([row["index"] for row in rows], np.int64))


def _made(place: Path) -> Path:
    place.parent.mkdir(exist_ok=True)
    return place

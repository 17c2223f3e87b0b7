"""The exam of a bundle: samples by which a device scores the model where it runs; as a file, and as a manifest's field.

Refuses a file that does not fit the manifest: other shapes, types or numbers of samples, NaN, and samples too large to
hold. One sample at a time is in memory."""

import math
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgekit_runtime.errors import BadBundle
from edgekit_runtime.marks import METRICS, SHARES
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

MOST = 10_000
"""Samples of an exam; beyond these a device would learn nothing that the build does not know better."""
MOST_BYTES = 256 * 2**20
"""Of one array of one sample."""
BESIDE = ("source", "build")
WIDTHS: tuple[tuple[str, int], ...] = (("uint8", 2**8), ("uint16", 2**16))
"""Types that places in a table of values may have, and how many values there may be."""
RIGHT = "right"
DAMAGED = (OSError, ValueError, LookupError, EOFError, NotImplementedError, RuntimeError, struct.error, zlib.error,
           zipfile.BadZipFile)  # fmt: skip
"""What reading a damaged archive raises."""


@dataclass(frozen=True)
class Exam:
    """`n` samples in `file` that the model is scored on by `metric` of the output `output`.

    What it answers may score worse by at most `max_drop`, in the metric's own units, than the source model did; or,
    with `beside` "build", than this artifact did on the CPU that it was built on. `reference` is what that one scored
    on these samples, `built` what the artifact scored there.
    """

    file: str
    n: int
    metric: str
    output: str
    beside: str
    max_drop: float
    reference: float
    built: float


@dataclass(frozen=True)
class Sample:
    """What is sent, what the answer is held against, and how the reference's answer scored."""

    feeds: Feeds
    right: Array
    reference: float


def parse(raw: Mapping[str, Any]) -> Exam:
    """The manifest's field. Raises `BadBundle`, or `TypeError` where a field is missing or unknown."""
    exam = Exam(**raw)
    numbers = (exam.max_drop, exam.reference, exam.built)
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in numbers):
        raise BadBundle("manifest exam: max_drop, reference and built must be numbers")
    if not isinstance(exam.n, int) or isinstance(exam.n, bool) or not 1 <= exam.n <= MOST or exam.max_drop < 0:
        raise BadBundle(f"manifest exam: n must be 1 to {MOST}, max_drop 0 or more")
    if not isinstance(exam.file, str) or not isinstance(exam.output, str):
        raise BadBundle("manifest exam: file and output must be text")
    if exam.metric not in METRICS or exam.beside not in BESIDE:
        what = f"manifest exam: metric {exam.metric!r} beside {exam.beside!r} is not known"
        raise BadBundle(what, hint="update edgekit-runtime")
    return exam


def write_exam(path: Path, samples: Sequence[Sample], inputs: Sequence[TensorSpec]) -> None:
    """Write the samples as one archive, always the same bytes for the same samples.

    Each array of all samples lies there as one row of numbers, beside the shape that each sample has. Where there are
    few different numbers, as in what was made of photos, these are listed once, and the row holds their places.
    """
    columns = {str(index): [one.feeds[spec.name] for one in samples] for index, spec in enumerate(inputs)}
    columns[RIGHT] = [np.asarray(one.right) for one in samples]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _put(archive, "reference", np.array([one.reference for one in samples], np.float64))
        for name, arrays in columns.items():
            shapes = [array.shape for array in arrays]
            _put(archive, f"{name}.shapes", np.array(shapes, np.int64).reshape(len(arrays), arrays[0].ndim))
            row = np.concatenate([array.ravel() for array in arrays])
            table, places = _tabled(row)
            if table is not None:
                _put(archive, f"{name}.table", table)
            _put(archive, name, places)


def read_exam(path: Path, exam: Exam, inputs: Sequence[TensorSpec]) -> Generator[Sample, None, None]:
    """The samples, each read when it is asked for; `close` lets go of the file before the last.

    Raises:
        BadBundle: the file is not what the manifest says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _samples(archive, exam, inputs)
    except DAMAGED as error:
        raise BadBundle(f"{exam.file} does not read: {' '.join(str(error).split())[:200]}") from error


def _samples(archive: zipfile.ZipFile, exam: Exam, inputs: Sequence[TensorSpec]) -> Iterator[Sample]:
    reference = _whole(archive, "reference", exam.n, 1)
    if reference.dtype != np.float64 or not np.isfinite(reference).all():
        raise BadBundle(f"{exam.file}: what the reference scored are no numbers")
    columns = [_column(archive, str(index), exam, spec) for index, spec in enumerate(inputs)]
    answers = _column(archive, RIGHT, exam, None)
    for index in range(exam.n):
        feeds = {spec.name: next(column) for spec, column in zip(inputs, columns, strict=True)}
        yield Sample(feeds, next(answers), float(reference[index]))


def _column(archive: zipfile.ZipFile, name: str, exam: Exam, spec: TensorSpec | None) -> Iterator[Array]:
    """One array of each sample in turn; `spec` is what it has to fit, None for what answers are held against."""
    shapes = _whole(archive, f"{name}.shapes", exam.n, 2)
    if shapes.dtype != np.int64 or (shapes.size and int(shapes.min()) < 0):
        raise ValueError(f"the shapes of {name!r} are none")
    table = _whole(archive, f"{name}.table", None, 1) if f"{name}.table.npy" in archive.NameToInfo else None
    with archive.open(f"{name}.npy") as stream:
        (count,), dtype = _header(stream, name, 1)
        _check_type(dtype if table is None else table.dtype, name, exam, spec)
        if table is not None and dtype.name not in dict(WIDTHS):
            raise ValueError(f"{name!r} is no row of places")
        if count != sum(math.prod(map(int, shape)) for shape in shapes):
            raise ValueError(f"{name!r} is not as long as its shapes say")
        for row in shapes:
            shape = tuple(map(int, row))
            if spec is not None and not spec.accepts(shape):
                raise BadBundle(f"{exam.file}: a sample of shape {list(shape)} for {spec}")
            yield _read(stream, dtype, shape, name, table)


def _read(stream: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], name: str, table: Array | None) -> Array:
    wide = dtype.itemsize if table is None else max(dtype.itemsize, table.itemsize)
    if math.prod(shape) * wide > MOST_BYTES:
        raise BadBundle(f"the exam holds a sample of shape {list(shape)}: too large")
    raw = stream.read(size := math.prod(shape) * dtype.itemsize)
    if len(raw) != size:
        raise EOFError(f"{name!r} ends early")
    found = np.frombuffer(raw, dtype).reshape(shape)
    if table is not None:
        found = table[found]
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise BadBundle(f"the exam holds NaN or infinity in {name!r}")
    return found


def _check_type(dtype: np.dtype[Any], name: str, exam: Exam, spec: TensorSpec | None) -> None:
    if spec is not None and dtype.name != spec.dtype:
        raise BadBundle(f"{exam.file}: {dtype.name} for {spec}")
    if spec is None and dtype.kind not in ("iu" if exam.metric in SHARES else "fiu"):
        raise BadBundle(f"{exam.file}: {exam.metric} cannot be held against {dtype.name}")


def _header(stream: IO[bytes], name: str, rank: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that follows in `stream`."""
    if np.lib.format.read_magic(stream) != (1, 0):  # others may have headers of gigabytes
        raise ValueError(f"{name!r} has an unknown header")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "fiub" or len(shape) != rank or (fortran and rank > 1) or min(shape) < 0:
        raise ValueError(f"{name!r} is no row of numbers")
    return shape, dtype


def _whole(archive: zipfile.ZipFile, name: str, rows: int | None, rank: int) -> Array:
    """A small array, in memory; with None a table of values."""
    with archive.open(f"{name}.npy") as stream:
        shape, dtype = _header(stream, name, rank)
        if (shape[0] > WIDTHS[-1][1]) if rows is None else (shape[0] != rows or math.prod(shape[1:]) > 32):
            raise ValueError(f"{name!r} has the shape {list(shape)}")
        raw = stream.read(size := math.prod(shape) * dtype.itemsize)
        if len(raw) != size:
            raise EOFError(f"{name!r} ends early")
        return np.frombuffer(raw, dtype).reshape(shape)


def _tabled(row: Array) -> tuple[Array | None, Array]:
    """(the different numbers, their places) where that takes less, to the last bit the same; else (None, row)."""
    bits = row.view(f"u{row.itemsize}") if row.dtype.kind == "f" else row
    values, places = np.unique(bits, return_inverse=True)
    for name, most in WIDTHS:
        if len(values) <= most and np.dtype(name).itemsize < row.itemsize:
            return values.view(row.dtype), places.astype(name).ravel()
    return None, row


def _put(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    info = zipfile.ZipInfo(f"{name}.npy")  # of no time: the same samples make the same file
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as out:
        np.lib.format.write_array(out, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)

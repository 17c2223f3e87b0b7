"""An exam as a file: bit by bit what was packed, one sample in memory, and what does not fit the manifest refused."""

import io
import tracemalloc
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle, read_manifest
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.exam import MOST, Exam, Sample, parse, read_exam, write_exam
from edgekit_runtime.manifest import parse as parse_manifest
from edgekit_runtime.manifest import to_json
from edgekit_runtime.tensors import Array, TensorSpec

from tests.runtime.bundles import make_bundle
from tests.runtime.examined import make_examined

X, IDS = TensorSpec("x", "float32", (1, None, 2)), TensorSpec("ids", "int64", (1, None))
INPUTS = [X, IDS]
EXAM = Exam("exam.npz", 9, "top1", "y", "source", 0.01, 0.9, 0.9)
chance = np.random.default_rng(0)


def ragged(count: int = 9) -> list[Sample]:
    """Samples of different lengths; -0.0 among the numbers."""
    found = []
    for index in range(count):
        x = chance.normal(size=(1, index + 1, 2)).astype(np.float32)
        x[0, 0, 0] = -0.0
        ids = chance.integers(-(2**40), 2**40, (1, index % 3))
        found.append(Sample({"x": x, "ids": ids}, np.asarray(index % 4), float(index % 2)))
    return found


def same(one: Sample, other: Sample) -> bool:
    pairs = [(one.feeds[name], other.feeds[name]) for name in one.feeds] + [(one.right, other.right)]
    alike = all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
    return alike and one.reference == other.reference


def written(folder: Path, samples: list[Sample] | None = None, inputs: list[TensorSpec] = INPUTS) -> Path:
    write_exam(folder / "exam.npz", samples or ragged(), inputs)
    return folder / "exam.npz"


def test_what_was_packed_comes_back_bit_by_bit(tmp_path: Path) -> None:
    samples = ragged()
    found = list(read_exam(written(tmp_path, samples), EXAM, INPUTS))
    assert all(same(*pair) for pair in zip(samples, found, strict=True))


@pytest.mark.parametrize("kinds", [2, 200, 5_000, 100_000])
def test_few_different_numbers_take_less_and_are_the_same(tmp_path: Path, kinds: int) -> None:
    table = chance.normal(size=kinds).astype(np.float32)
    samples = [Sample({"x": chance.choice(table, (1, 8000, 2))}, np.asarray(0), 1.0) for _ in range(9)]
    path = written(tmp_path, samples, [X])
    assert all(same(*pair) for pair in zip(samples, read_exam(path, EXAM, [X]), strict=True))
    each = {2: 0.5, 200: 1.1, 5_000: 2.1, 100_000: 4.1}[kinds]
    assert path.stat().st_size < each * 9 * 16_000


def test_the_same_samples_make_the_same_file(tmp_path: Path) -> None:
    samples, paths = ragged(), []
    for name in "ab":
        (tmp_path / name).mkdir()
        paths.append(written(tmp_path / name, samples))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_one_sample_at_a_time_is_in_memory(tmp_path: Path) -> None:
    each = 2**15
    samples = [Sample({"x": chance.normal(size=(1, each, 2)).astype(np.float32)}, np.asarray(0), 1.0) for _ in range(9)]
    path = written(tmp_path, samples, [X])
    tracemalloc.start()
    try:
        for sample in read_exam(path, EXAM, [X]):
            assert sample.feeds["x"].shape == (1, each, 2)
        assert tracemalloc.get_traced_memory()[1] < 5 * each * 8
    finally:
        tracemalloc.stop()


def changed(path: Path, **arrays: Any) -> Path:
    """The archive with these members in place of its own; bytes as they are, None taken out."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for name, array in arrays.items():
        member = f"{name.replace('__', '.').lstrip('_')}.npy"
        if array is None:
            del held[member]
            continue
        if not isinstance(array, bytes):
            out = io.BytesIO()
            np.save(out, array)
            array = out.getvalue()
        held[member] = array
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in held.items():
            archive.writestr(name, raw)
    return path


def header(array: Array) -> bytes:
    """An array that says of itself what only a later version may."""
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=(2, 0))
    return out.getvalue()


BIG = np.array([[1, 2**31, 2]] * 9)
HOSTILE: dict[str, dict[str, Any]] = {
    "fewer samples than it says": {"reference": np.ones(8)},
    "scores that are no numbers": {"reference": np.array([1.0] * 8 + [np.nan])},
    "scores in text": {"reference": np.array(["1"] * 9)},
    "shapes of another rank": {"_0__shapes": np.ones((9, 2), np.int64)},
    "shapes that the model does not take": {"_0__shapes": np.array([[1, 5, 2]] * 8 + [[2, 5, 1]])},
    "negative shapes": {"_0__shapes": np.array([[1, -5, 2]] * 9)},
    "shapes of terabytes": {"_0__shapes": BIG},
    "shapes beyond 64 bits": {"_0__shapes": np.array([[2**62, 2**62, 2]] * 9)},
    "a row that ends early": {"_1": np.zeros(2, np.int64)},
    "another type": {"_1": np.zeros(9, np.float64), "_1__table": None},
    "places beyond the table": {"_1": np.full(9, 7, np.uint8), "_1__table": np.zeros(7, np.int64)},
    "places that are no places": {"_1": np.zeros(9, np.int64), "_1__table": np.zeros(7, np.int64)},
    "a table of gigabytes": {"_1": np.zeros(9, np.uint16), "_1__table": np.zeros(2**16 + 1, np.int64)},
    "NaN": {"_0": np.full(90, np.nan, np.float32), "_0__table": None},
    "objects": {"right": np.array([None] * 9, dtype=object)},
    "numbers as classes": {"right": np.zeros(9, np.float32)},
    "a header that may be of any length": {"reference": header(np.ones(9))},
    "no answers": {"right": None},
    "no array": {"right": b"\x93NUMPY\x01\x00\xff\xff{"},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_does_not_fit_the_manifest_is_refused(tmp_path: Path, what: str) -> None:
    path = changed(written(tmp_path), **HOSTILE[what])
    with pytest.raises(BadBundle):
        list(read_exam(path, EXAM, INPUTS))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """The header of gigabytes, of a shape that the model takes."""
    path = written(tmp_path)
    size = 2**26 + 2
    zeros = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        zeros, {"descr": "<f4", "fortran_order": False, "shape": (9 * size,)}
    )  # fmt: skip
    changed(path, _0__table=None, _0=zeros.getvalue(), _0__shapes=np.array([[1, size // 2, 2]] * 9))
    tracemalloc.start()
    try:
        with pytest.raises(BadBundle, match="too large"):
            list(read_exam(path, EXAM, INPUTS))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("raw", [b"", b"PK", b"no archive at all"])
def test_what_is_no_archive_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "exam.npz").write_bytes(raw)
    with pytest.raises(BadBundle, match="does not read"):
        list(read_exam(tmp_path / "exam.npz", EXAM, INPUTS))


def test_a_file_that_was_cut_is_refused_wherever_that_is(tmp_path: Path) -> None:
    raw = written(tmp_path).read_bytes()
    for size in range(0, len(raw), 97):
        (tmp_path / "exam.npz").write_bytes(raw[:size])
        with pytest.raises(BadBundle):
            list(read_exam(tmp_path / "exam.npz", EXAM, INPUTS))


def test_whatever_byte_is_changed_nothing_but_a_refusal_comes_of_it(tmp_path: Path) -> None:
    raw = written(tmp_path).read_bytes()
    refused = 0
    for place in range(0, len(raw), 7):
        (tmp_path / "exam.npz").write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        try:
            assert len(list(read_exam(tmp_path / "exam.npz", EXAM, INPUTS))) == 9
        except BadBundle:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0), ("n", MOST + 1), ("n", True), ("n", "9"), ("metric", "mine:score"), ("beside", "hope"),
        ("max_drop", -0.1), ("max_drop", float("nan")), ("max_drop", None), ("reference", float("inf")),
        ("built", "good"), ("output", "z"), ("file", "other.npz"), ("file", None), ("unknown", 1), ("metric", ["top1"]),
    ],
)  # fmt: skip
def test_a_manifest_whose_exam_cannot_be_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    raw = to_json(read_manifest(make_examined(tmp_path / "tiny", 9)))
    assert parse_manifest(raw).exam == Exam(**raw["exam"])
    with pytest.raises(BadBundle):
        parse_manifest({**raw, "exam": {**raw["exam"], field: value}})


def test_a_manifest_without_an_exam_says_nothing_of_it(tmp_path: Path) -> None:
    manifest = open_bundle(make_bundle(tmp_path / "tiny")).manifest
    assert "exam" not in to_json(manifest)
    assert parse_manifest(to_json(manifest)) == manifest
    assert parse(asdict(replace(EXAM, n=1))).n == 1

"""Data on disk: samples read piece by piece are those that were written, and memory does not grow with them."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import TensorSpec

from edgekit import data as data_module
from edgekit import spooling
from edgekit.data import open_data
from edgekit.dataset import Wanted

ROWS = Wanted((TensorSpec("x", "float32", (None, 3)),), classes=4)
BIG = Wanted((TensorSpec("x", "float32", (None, 3, 224, 224)),), classes=10)


def function(where: Path, body: str) -> str:
    (where / "mine.py").write_text(f"import itertools\nimport numpy as np\ndef samples():\n    {body}\n")
    return f"{where / 'mine.py'}:samples"


def test_a_function_that_never_ends_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "MOST_BYTES", 10_000)
    where = function(tmp_path, "yield from (np.full(3, i, np.float32) for i in itertools.count())")
    with pytest.raises(EdgeKitError, match="and goes on") as caught:
        open_data(where, ROWS)
    assert "islice" in caught.value.hint


def test_a_disk_without_room_is_told_before_it_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "RESERVE", 2**60)
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((4, 3), np.float32))
    with pytest.raises(EdgeKitError, match="no room in") as caught:
        open_data(str(tmp_path / "data.npz"), ROWS)
    assert "TMPDIR" in caught.value.hint


def test_a_disk_that_fills_up_meanwhile_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        file = spooling.Scratch(spooling.disk(full, "mine.py:samples"), "/var/tmp")
        with pytest.raises(EdgeKitError, match="no room in /var/tmp"):
            file.write(b"more")


def test_data_that_shrinks_meanwhile_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((8, 3), np.float32))
    data = open_data(str(tmp_path / "data.npz"), ROWS)
    os.truncate(tmp_path / "data.npz", 100)
    with pytest.raises(EdgeKitError, match="become shorter"):
        data.feeds(7)


def test_a_flipped_byte_in_a_stored_array_is_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((8, 3), np.float32))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[content.index(np.ones(3, np.float32).tobytes())] ^= 1
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(EdgeKitError, match="does not read"):
        open_data(str(tmp_path / "data.npz"), ROWS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "uint8", "int16", "float16"])
def test_samples_read_from_disk_are_those_that_were_written(
    tmp_path: Path, save: Callable[..., None], dtype: str
) -> None:
    values = np.random.default_rng(0).integers(0, 100, (50, 4, 5)).astype(dtype)
    keys = []
    for index, array in enumerate((values, np.asfortranarray(values))):
        where = tmp_path / f"{index}.npz"
        save(where, x=array)
        data = open_data(str(where), Wanted((TensorSpec("x", "float32", (None, 4, 5)),)))
        assert np.array_equal(np.concatenate([feeds["x"] for feeds in data.batches(7)]), values.astype(np.float32))
        assert data.feeds(3)["x"].flags.writeable
        keys.append(data.keys)
    assert keys[0] == keys[1]


def test_real_numbers_too_large_for_the_models_type_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.full((4, 3), 1e300))
    with pytest.raises(EdgeKitError, match="do not fit float32"):
        open_data(str(tmp_path / "data.npz"), ROWS)


def test_a_sample_has_one_key_wherever_it_comes_from(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(12, dtype=np.float32).reshape(4, 3))
    where = function(tmp_path, "yield from np.arange(12).reshape(4, 1, 3)")
    assert open_data(str(tmp_path / "data.npz"), ROWS).keys == open_data(where, ROWS).keys


PEAK = """
import sys
from tests.test_spooling import BIG
from edgekit.data import open_data
data = open_data(sys.argv[1], BIG)
seen = sum(len(feeds["x"]) for feeds in data.batches(8))
assert seen == len(data) == int(sys.argv[2])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def peak_mb(where: object, count: int) -> float:
    """Peak memory of a process that opens the data and reads all of it."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(where), str(count)], cwd=root, capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 1000


def write_pictures(where: Path, count: int, how: int) -> Path:
    """`count` samples of 600 kB, written one by one."""
    noise = np.random.default_rng(0).random((3, 224, 224), np.float32)
    with zipfile.ZipFile(where, "w", how, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            head = {"descr": "<f4", "fortran_order": False, "shape": (count, 3, 224, 224)}
            np.lib.format.write_array_header_1_0(file, head)
            for index in range(count):
                noise[:, index % 224] = index
                file.write((noise if how == zipfile.ZIP_STORED else np.full_like(noise, index)).tobytes())
        with archive.open("label.npy", "w") as file:
            np.lib.format.write_array(file, np.arange(count) % 10)
    return where


@pytest.mark.slow
@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "packed"])
def test_memory_does_not_grow_with_an_npz(tmp_path: Path, how: int) -> None:
    small = peak_mb(write_pictures(tmp_path / "small.npz", 20, how), 20)
    large = peak_mb(write_pictures(tmp_path / "large.npz", 2500, how), 2500)
    assert large < small + 200


@pytest.mark.slow
def test_memory_does_not_grow_with_what_a_function_yields(tmp_path: Path) -> None:
    body = "yield from ((np.full((3, 224, 224), i, np.float32), i % 10) for i in range({}))"
    small = peak_mb(function(tmp_path, body.format(20)), 20)
    large = peak_mb(function(tmp_path, body.format(2500)), 2500)
    assert large < small + 200

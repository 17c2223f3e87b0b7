"""What is shown of a sample: pictures as they were, curves with their peaks, the first numbers of the rest."""

import io
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.preprocess import apply, parse_preprocess
from edgekit_runtime.tensors import Array, TensorSpec
from PIL import Image

from edgekit.data import open_data
from edgekit.dataset import Dataset, Wanted
from edgekit.showing import picture_of, series_of, values_of

BGR = parse_preprocess(
    {"kind": "image", "input": "x", "channels": "BGR", "scale": 0.5, "mean": [10, 20, 30], "std": [2, 3, 4]}
)
NOTHING = Wanted((TensorSpec("x", "float32", (None,)),))


def holding(**feeds: Array) -> Dataset:
    return Dataset("here", ("a",), lambda i: feeds, None, True)


def shown(data: Dataset, wanted: Wanted = NOTHING) -> Image.Image:
    png = picture_of(data, 0, wanted)
    assert png is not None
    return Image.open(io.BytesIO(png))


def test_a_picture_file_is_shown_small_in_its_own_shape(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (250, 10, 20)).save(tmp_path / "a.jpg")
    preprocess = parse_preprocess({"kind": "image", "input": "x", "resize": [32, 32]})
    wanted = Wanted((TensorSpec("x", "float32", (None, 3, 32, 32)),), preprocess=preprocess)
    image = shown(open_data(str(tmp_path), wanted), wanted)
    assert image.size == (96, 48)
    assert np.abs(np.asarray(image, int)[20, 20] - [250, 10, 20]).max() < 4


def test_preprocessing_is_undone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    wanted = Wanted((TensorSpec("x", "float32", (None, 3, 20, 30)),), preprocess=BGR)
    assert np.array_equal(np.asarray(shown(holding(**apply(BGR, pixels)), wanted)), pixels)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-1, 1)])
def test_numbers_of_a_usual_range_are_shown_as_bright_as_they_are(low: float, high: float) -> None:
    grey = np.full((1, 1, 28, 28), low + 0.25 * (high - low), np.float32)
    grey[0, 0, 0, 0] = high
    image = shown(holding(x=grey))
    assert (image.mode, image.size) == ("L", (28, 28))
    assert np.asarray(image)[5, 5] == 64


def test_other_numbers_are_stretched() -> None:
    ramp = np.linspace(-7, 9, 32 * 32, dtype=np.float32).reshape(1, 32, 32, 1)
    values = np.asarray(shown(holding(x=ramp)))
    assert (values.min(), values.max()) == (0, 255)


def test_what_is_no_picture_and_no_series_is_shown_by_its_numbers() -> None:
    data = holding(ids=np.arange(16, dtype=np.int64)[None], rate=np.array(16000), table=np.array([[0.5, -1.25]]))
    assert picture_of(data, 0, NOTHING) is None
    assert series_of(data, 0) is None
    assert values_of(data, 0) == {
        "ids": "0, 1, 2, 3, 4, 5, 6, 7, ... (int64, 16 numbers)",
        "rate": "16000",
        "table": "0.5, -1.25 (float64, 2 numbers)",
    }


@pytest.mark.parametrize("shape", [(1, 24, 2), (1, 2, 24)])
def test_a_series_has_its_channels_first(shape: tuple[int, ...]) -> None:
    found = series_of(holding(x=np.zeros(shape, np.float32)), 0)
    assert found is not None
    assert [len(channel) for channel in found] == [24, 24]


def test_a_long_series_keeps_its_peaks() -> None:
    sound = np.zeros((1, 16000), np.float32)
    sound[0, [777, 15999]] = 3, -2
    found = series_of(holding(x=sound, state=np.zeros((1, 128), np.float32)), 0)
    assert found is not None
    assert len(found) == 1
    assert len(found[0]) == 200
    assert (max(found[0]), min(found[0])) == (3, -2)

"""Governance of data: copies of pictures on both sides, coverage of classes, samples that stand there twice."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import parse_preprocess
from edgekit_runtime.tensors import TensorSpec
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

from edgekit.data import open_data
from edgekit.dataset import (
    Dataset,
    Wanted,
    coverage_of_classes,
    duplicates_within,
    near_duplicates,
    refuse_overlap,
    split,
)

PHOTO = Wanted(
    (TensorSpec("x", "float32", (None, 3, 64, 64)),),
    preprocess=parse_preprocess(
        {"kind": "image", "input": "x", "channels": "RGB", "resize": [64, 64], "layout": "NCHW"}
    ),
)
PIXELS = Wanted((TensorSpec("x", "float32", (None, 64, 64, 3)),))
ROWS = Wanted((TensorSpec("x", "float32", (None, 3)),), classes=4)


def crops() -> list[Image.Image]:
    """17 places of two photographs that share nothing with one another, none of them mere sky."""
    found = []
    for pixels in load_sample_images().images:
        photo = Image.fromarray(pixels)
        found += [photo.crop((x, y, x + 150, y + 130)) for x in range(0, 600, 155) for y in range(0, 400, 135)]
    return [place for place in found if np.asarray(place.convert("L")).std() > 20]


def encoded(image: Image.Image, quality: int) -> Image.Image:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return Image.open(written)


def cut(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(width * share), round(height * share), width, height))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": lambda image: encoded(image, 30),
    "JPEG of quality 90": lambda image: encoded(image, 90),
    "half as wide": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "15 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "15 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "2 % cut off": lambda image: cut(image, 0.02),
    "all of it": lambda image: encoded(ImageEnhance.Brightness(cut(image, 0.02)).enhance(1.1).resize((75, 65)), 50),
}


def folder(where: Path, images: list[Image.Image]) -> Dataset:
    where.mkdir()
    for index, image in enumerate(images):
        image.convert("RGB").save(where / f"{index:02}.png")
    return open_data(str(where), PHOTO)


def pixels(where: Path, images: list[Image.Image], scale: float = 1 / 255) -> Dataset:
    stacked = np.stack([np.asarray(image.convert("RGB").resize((64, 64)), np.float32) for image in images])
    np.savez(where, x=stacked * np.float32(scale))
    return open_data(str(where), PIXELS)


@pytest.mark.slow
@pytest.mark.parametrize("what", COPIES)
def test_a_copy_of_a_picture_is_found_and_no_other_picture_is_taken_for_one(tmp_path: Path, what: str) -> None:
    images = crops()
    theirs = folder(tmp_path / "evaluation", images)
    ours = folder(tmp_path / "calibration", [COPIES[what](image) for image in images[:8]])
    assert near_duplicates(ours, theirs) == [(i, i) for i in range(8)]
    assert near_duplicates(ours, theirs.take(range(8, len(images)))) == []


def test_copies_are_found_in_arrays_too_whatever_they_are_scaled_by(tmp_path: Path) -> None:
    images = crops()
    theirs = pixels(tmp_path / "a.npz", images)
    ours = pixels(tmp_path / "b.npz", [encoded(image, 50) for image in images[3:6]], scale=1.0)
    assert near_duplicates(ours, theirs) == [(0, 3), (1, 4), (2, 5)]


def test_the_larger_set_may_be_the_calibration(tmp_path: Path) -> None:
    images = crops()
    ours = folder(tmp_path / "a", images)
    theirs = folder(tmp_path / "b", [encoded(images[5], 60)])
    assert near_duplicates(ours, theirs) == [(5, 0)]


def test_the_same_shapes_in_other_colours_are_no_copies(tmp_path: Path) -> None:
    image = np.asarray(crops()[0])
    theirs = folder(tmp_path / "a", [Image.fromarray(image)])
    assert near_duplicates(folder(tmp_path / "b", [Image.fromarray(np.roll(image, 1, axis=2))]), theirs) == []


def test_pictures_of_one_colour_are_like_no_other(tmp_path: Path) -> None:
    plain = [Image.new("RGB", (64, 64), (10 * i, 0, 0)) for i in range(4)]
    assert near_duplicates(folder(tmp_path / "a", plain), folder(tmp_path / "b", plain[1:])) == []


def test_where_all_pictures_look_alike_none_is_a_copy(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    scene = np.asarray(crops()[0], np.float32)
    noise = dice.normal(0, 2, (20, *scene.shape))
    shots = [Image.fromarray(np.clip(scene + one, 0, 255).astype(np.uint8)) for one in noise]
    assert near_duplicates(folder(tmp_path / "a", shots[:10]), folder(tmp_path / "b", shots[10:])) == []
    data = open_data(str(tmp_path / "a"), PHOTO)
    assert sum(map(len, split(data, 2))) == 10


def test_calibration_on_copies_of_the_evaluation_is_refused_by_name(tmp_path: Path) -> None:
    images = crops()
    theirs = folder(tmp_path / "evaluation", images)
    ours = folder(tmp_path / "calibration", [encoded(images[7], 40), encoded(images[2], 40)])
    with pytest.raises(EdgeKitError, match=r"2 samples .* copies .* 00\.png = 07\.png, 01\.png = 02\.png") as caught:
        refuse_overlap(ours, theirs)
    assert "--calibration" in caught.value.hint
    refuse_overlap(ours, theirs.take([0, 1, 3, 4]))


def test_copies_of_calibration_pictures_are_not_evaluated_on(tmp_path: Path) -> None:
    images = crops()
    everything = folder(tmp_path / "all", [*images, *(encoded(image, 50) for image in images)])
    ours, theirs = split(everything, 8)
    assert near_duplicates(ours, theirs) == []
    numbers = [{int(path.stem) for path in part.files} for part in (everything, ours, theirs)]
    dropped, twins = numbers[0] - numbers[1] - numbers[2], {(i + len(images)) % len(everything) for i in numbers[1]}
    assert len(dropped) > 4
    assert dropped == twins - numbers[1]


@pytest.mark.slow
def test_look_alike_garments_are_not_taken_for_copies() -> None:
    from tests import zoo

    net = zoo.fashion_cnn()
    wanted = Wanted((TensorSpec("x", "float32", (None, 1, 28, 28)),), 10)
    calibration, test = open_data(str(net.calibration), wanted), open_data(str(net.test), wanted)
    assert near_duplicates(calibration, test) == []


@pytest.mark.slow
def test_every_copy_of_a_real_photo_is_found_and_no_two_photos_are_copies(tmp_path: Path) -> None:
    from tests import zoo

    photos = sorted(zoo.efficientnet_lite0().photos.labelled.glob("imagenet_*"))
    originals = [ImageOps.contain(Image.open(path).convert("RGB"), (256, 256)) for path in photos]
    theirs = folder(tmp_path / "evaluation", originals)
    assert near_duplicates(theirs.take(range(0, 20, 2)), theirs.take(range(1, 20, 2))) == []
    for index, made in enumerate(COPIES.values()):
        ours = folder(tmp_path / str(index), [made(image) for image in originals])
        assert near_duplicates(ours, theirs) == [(i, i) for i in range(20)]


def labelled(labels: list[int] | list[float] | None) -> Dataset:
    told = None if labels is None else np.array(labels)
    keys = tuple(map(str, range(5 if labels is None else len(labels))))
    return Dataset("here", keys, lambda i: {"x": np.zeros((1, 3))}, told, True)


def test_the_classes_that_calibration_never_saw_are_named() -> None:
    words = ("cat", "dog", "cow", "crane", "crane")
    found = coverage_of_classes(labelled([0, 0, 2, 3]), 5, words)
    assert found == {"classes": {"cat": 2, "cow": 1, "crane (3)": 1}, "missing": ["dog", "crane (4)"]}
    assert coverage_of_classes(labelled([0, 2]), 3) == {"classes": {"0": 1, "2": 1}, "missing": ["1"]}
    assert coverage_of_classes(labelled([0, 2]), None) == {"classes": {"0": 1, "2": 1}, "missing": []}


@pytest.mark.parametrize("labels", [None, [0.5, 1.5]])
def test_without_classes_there_is_nothing_to_cover(labels: list[float] | None) -> None:
    assert coverage_of_classes(labelled(labels), 10) == {"classes": None, "missing": []}


def test_samples_know_their_place_however_often_they_were_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(30, dtype=np.float32).reshape(10, 3))
    data = open_data(str(tmp_path / "data.npz"), ROWS)
    again = data.take([9, 3, 5]).take([2, 0])
    assert [again.place_of(i) for i in range(2)] == [5, 9]
    assert again.name_of(1) == "sample 9"
    assert again.feeds(1)["x"][0, 0] == 27
    assert data.place_of(4) == 4


def test_samples_that_stand_there_twice_are_counted(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.savez(tmp_path / "data.npz", x=rows[[0, 1, 1, 2, 1, 3]])
    assert duplicates_within(open_data(str(tmp_path / "data.npz"), ROWS)) == 2

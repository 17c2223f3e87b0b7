"""Data: what fits the model, what is refused, and that nothing calibrates and evaluates at once."""

from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import parse_preprocess
from edgekit_runtime.tensors import TensorSpec
from PIL import Image

from edgekit.data import open_data, raw_fingerprint, shapes_in
from edgekit.dataset import Wanted, refuse_overlap, split

X = TensorSpec("x", "float32", (None, 3))
WANTED = Wanted((X,), classes=4)
PHOTO = Wanted(
    (TensorSpec("x", "float32", (None, 3, 8, 8)),),
    classes=2,
    preprocess=parse_preprocess({"kind": "image", "input": "x", "channels": "RGB", "resize": [8, 8], "layout": "NCHW"}),
)


def npz(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def rows(count: int = 8) -> np.ndarray:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def test_an_npz_gives_samples_of_batch_one_that_can_be_joined(tmp_path: Path) -> None:
    data = open_data(npz(tmp_path, x=rows(), label=np.arange(8) % 4), WANTED)
    assert len(data) == 8
    assert data.feeds(2)["x"].shape == (1, 3)
    assert [len(feeds["x"]) for feeds in data.batches(3)] == [3, 3, 2]


def test_samples_of_a_state_keep_their_own_axes(tmp_path: Path) -> None:
    wanted = Wanted((X, TensorSpec("state", "float32", (2, None, 4)), TensorSpec("rate", "int64", ())))
    data = open_data(npz(tmp_path, x=rows(), state=np.zeros((8, 2, 1, 4), np.float32), rate=np.full(8, 16000)), wanted)
    assert not data.batchable
    assert {name: value.shape for name, value in data.feeds(0).items()} == {"x": (1, 3), "state": (2, 1, 4), "rate": ()}


BAD = {
    "NaN": ({"x": np.full((8, 3), np.nan, np.float32)}, "NaN"),
    "wrong dtype": ({"x": np.array([["a"] * 3] * 8)}, "takes float32"),
    "complex": ({"x": rows().astype(np.complex64)}, "takes float32"),
    "wrong width": ({"x": np.zeros((8, 4), np.float32)}, "shape"),
    "no samples": ({"x": np.zeros((0, 3), np.float32)}, "no samples"),
    "one class": ({"x": rows(), "label": np.zeros(8, np.int64)}, "one class"),
    "labels out of range": ({"x": rows(), "label": np.arange(8)}, "classes 0 to 3"),
    "negative labels": ({"x": rows(), "label": np.arange(8) % 4 - 1}, "classes 0 to 3"),
    "labels NaN": ({"x": rows(), "label": np.full(8, np.nan)}, "labels hold NaN"),
    "labels of words": ({"x": rows(), "label": np.array(["cat"] * 8)}, "labels are"),
    "another name": ({"y": rows()}, "the model takes x"),
    "different lengths": ({"x": rows(), "label": np.arange(7) % 4}, "different lengths"),
    "a pickled object": ({"x": np.array([{"a": 1}] * 8, dtype=object)}, "does not read"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arrays_are_refused_in_one_line(tmp_path: Path, what: str) -> None:
    arrays, words = BAD[what]
    with pytest.raises(EdgeKitError, match=words) as caught:
        open_data(npz(tmp_path, **arrays), WANTED)
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_floats_are_not_token_ids(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="takes int64"):
        open_data(npz(tmp_path, x=rows()), Wanted((TensorSpec("x", "int64", (None, 3)),)))


def test_integers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="do not fit"):
        open_data(npz(tmp_path, x=np.full((4, 3), 2**40)), Wanted((TensorSpec("x", "int32", (None, 3)),)))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", b"PK"])
def test_a_damaged_npz_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(damage)
    with pytest.raises(EdgeKitError, match="does not read"):
        open_data(str(tmp_path / "data.npz"), WANTED)


def test_a_truncated_npz_is_refused(tmp_path: Path) -> None:
    where = npz(tmp_path, x=rows(500))
    Path(where).write_bytes(Path(where).read_bytes()[:2000])
    with pytest.raises(EdgeKitError, match="does not read"):
        open_data(where, WANTED)


def test_data_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for where in (str(tmp_path / "no.npz"), "nowhere", str(tmp_path / "no.csv")):
        with pytest.raises(EdgeKitError):
            open_data(where, WANTED)


def test_no_sample_is_in_both_parts_of_a_split_even_if_it_stands_there_twice(tmp_path: Path) -> None:
    data = open_data(npz(tmp_path, x=np.concatenate([rows(), rows()]), label=np.arange(16) % 4), WANTED)
    calibration, evaluation = split(data, 4)
    assert not set(calibration.keys) & set(evaluation.keys)
    assert len(calibration) == 4


def test_a_split_is_the_same_each_time(tmp_path: Path) -> None:
    data = open_data(npz(tmp_path, x=rows(100)), WANTED)
    assert split(data, 10)[0].keys == split(data, 10)[0].keys


def test_calibration_given_apart_must_not_be_evaluated_on(tmp_path: Path) -> None:
    data = open_data(npz(tmp_path, x=rows()), WANTED)
    with pytest.raises(EdgeKitError, match="3 samples"):
        refuse_overlap(data.take([0, 1, 2]), data)


def test_too_few_samples_to_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="too few"):
        split(open_data(npz(tmp_path, x=rows(3)), WANTED), 2)


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = open_data(npz(tmp_path, x=rows()), WANTED).fingerprint
    assert open_data(npz(tmp_path, x=rows()), WANTED).fingerprint == first
    assert open_data(npz(tmp_path, x=rows() + 1), WANTED).fingerprint != first
    assert raw_fingerprint(npz(tmp_path, x=rows())) is not None
    assert raw_fingerprint("module:function") is None


def test_shapes_can_be_read_off_the_data(tmp_path: Path) -> None:
    assert shapes_in(npz(tmp_path, x=rows(), label=np.arange(8))) == {"x": ((3,), "float32")}


def paint(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(path)


def test_a_folder_of_classes_is_labelled_by_its_folders(tmp_path: Path) -> None:
    for index in range(6):
        paint(tmp_path / ("cat", "dog")[index % 2] / f"{index}.png", index)
    data = open_data(str(tmp_path), PHOTO)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.feeds(0)["x"].shape == (1, 3, 8, 8)


def test_class_folders_follow_the_given_labels(tmp_path: Path) -> None:
    for index in range(6):
        paint(tmp_path / ("cat", "dog")[index % 2] / f"{index}.png", index)
    wanted = Wanted(PHOTO.inputs, 2, ("dog", "cat"), PHOTO.preprocess)
    labels = open_data(str(tmp_path), wanted).labels
    assert labels is not None
    assert labels.tolist() == [1, 1, 1, 0, 0, 0]


def test_labels_csv_labels_a_folder(tmp_path: Path) -> None:
    for index in range(4):
        paint(tmp_path / f"{index}.png", index)
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(4)))
    labels = open_data(str(tmp_path), PHOTO).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 0, 1]


def test_plain_images_have_no_labels(tmp_path: Path) -> None:
    for index in range(4):
        paint(tmp_path / f"{index}.png", index)
    assert open_data(str(tmp_path), PHOTO).labels is None


def test_images_without_preprocessing_are_refused_with_what_to_say(tmp_path: Path) -> None:
    paint(tmp_path / "0.png", 0)
    with pytest.raises(EdgeKitError) as caught:
        open_data(str(tmp_path), Wanted(PHOTO.inputs))
    assert "--preprocess" in caught.value.hint


@pytest.mark.parametrize(
    ("csv", "words"), [("name,class\na,b\n", "columns"), ("file,label\nno.png,1\n", "no file"), ("", "columns")]
)
def test_a_labels_csv_that_does_not_fit_is_refused(tmp_path: Path, csv: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(csv)
    with pytest.raises(EdgeKitError, match=words):
        open_data(str(tmp_path), PHOTO)


def test_a_function_yields_samples(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef samples():\n"
        "    for i in range(8):\n        yield {'x': np.full(3, i, np.float32)}, i % 4\n"
    )
    data = open_data(f"{tmp_path / 'mine.py'}:samples", WANTED)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3] * 2
    assert data.batchable


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no disk')\n    yield", "raised ValueError: no disk"),
        ("yield {'z': 1}", "the model takes x"),
        ("return iter(())", "no samples"),
        ("yield [1.0, 2.0]", "shape"),
    ],
)
def test_a_function_that_fails_is_told_in_one_line(tmp_path: Path, body: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(f"def samples():\n    {body}\n")
    with pytest.raises(EdgeKitError, match=words):
        open_data(f"{tmp_path / 'mine.py'}:samples", WANTED)


def test_a_function_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def samples(): pass\n")
    with pytest.raises(EdgeKitError) as caught:
        open_data(f"{tmp_path / 'mine.py'}:sample", WANTED)
    assert "samples" in caught.value.hint

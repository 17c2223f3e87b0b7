"""What a person gives as --input."""

import struct

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, NotFound
from edgekit_runtime.inputs import fitted, read_inputs
from edgekit_runtime.preprocess import parse_preprocess
from edgekit_runtime.tensors import TensorSpec
from PIL import Image

X = TensorSpec("x", "float32", (None, 3))
IDS = TensorSpec("ids", "int64", (None, 2))
PHOTO = TensorSpec("p", "float32", (None, 3, 4, 4))


@pytest.fixture
def saved(tmp_path):
    def save(name, *value, **named):
        path = tmp_path / name
        np.savez(path, **named) if named else np.save(path, *value)
        return str(path)

    return save


def test_one_array_is_the_one_input(saved):
    value = np.ones((2, 3), np.float32)
    assert np.array_equal(read_inputs([saved("v.npy", value)], [X], None)["x"], value)


def test_arrays_are_named_in_an_npz_or_on_the_command_line(saved):
    x, ids = np.ones((2, 3), np.float32), np.zeros((2, 2), np.int64)
    for given in ([saved("all.npz", x=x, ids=ids)], [f"x={saved('a.npy', x)}", f"ids={saved('b.npy', ids)}"]):
        assert read_inputs(given, [X, IDS], None).keys() == {"x", "ids"}


def test_a_photo_goes_through_the_bundles_preprocessing(tmp_path):
    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "a.PNG")
    wanted = parse_preprocess({"kind": "image", "input": "p"})
    for given in (f"{tmp_path}/a.PNG", f"p={tmp_path}/a.PNG"):
        assert read_inputs([given], [PHOTO], wanted)["p"][0, :, 0, 0].tolist() == [10, 20, 30]
    with pytest.raises(BadRequest, match="does not say how to turn a photo"):
        read_inputs([f"{tmp_path}/a.PNG"], [PHOTO], None)
    with pytest.raises(BadRequest, match="photos go to the input p"):
        read_inputs([f"x={tmp_path}/a.PNG"], [X, PHOTO], wanted)


def test_a_sound_and_a_text_go_through_it_too(tmp_path):
    samples = np.array([0, 16384, -32768], "<i2").tobytes()
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    (tmp_path / "a.WAV").write_bytes(b"RIFF\0\0\0\0" + head + b"data" + struct.pack("<I", 6) + samples)
    (tmp_path / "a.txt").write_text("ab\n")
    sound = parse_preprocess({"kind": "audio", "input": "x", "rate": 8000})
    text = parse_preprocess({"kind": "text", "input": "ids", "tokenizer": "bytes", "mask": "mask"})
    assert read_inputs([f"{tmp_path}/a.WAV"], [X], sound)["x"].tolist() == [[0, 0.5, -1]]
    mask = TensorSpec("mask", "int64", (None, 2))
    assert read_inputs([f"ids={tmp_path}/a.txt"], [IDS, mask], text)["ids"].tolist() == [[97, 98]]
    for given, specs, preprocess, words in [
        (f"{tmp_path}/a.txt", [X], sound, "takes a sound, not a text"),
        (f"{tmp_path}/a.WAV", [IDS], text, "takes a text, not a sound"),
        (f"{tmp_path}/a.WAV", [X], None, "does not say how to turn a sound"),
        (f"y={tmp_path}/a.WAV", [X], sound, "sounds go to the input x"),
        (f"{tmp_path}/a.txt", [IDS], text, "no such input: mask"),
    ]:
        with pytest.raises(BadRequest, match=words):
            read_inputs([given], specs, preprocess)


def test_a_file_whose_name_holds_an_equals_sign_is_a_file(saved):
    assert "x" in read_inputs([saved("a=b.npy", np.ones((2, 3), np.float32))], [X], None)


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        (np.ones((2, 3)), X),
        (np.ones((2, 3), np.uint8), X),
        (np.ones((2, 3), ">f4"), X),
        (np.asfortranarray(np.ones((2, 3), np.float32)), X),
        (np.ones(3), X),
        (np.ones((2, 2), np.int32), IDS),
        (np.ones((2, 2)), IDS),
        (np.ones(2, np.int8), IDS),
    ],
)
def test_a_harmless_difference_is_mended(value, spec):
    made = fitted(value, spec)
    spec.check(made)
    assert made.dtype.isnative
    assert made.flags.c_contiguous
    assert np.array_equal(made.reshape(value.shape), value)


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        (np.full((2, 2), 0.5), IDS),
        (np.full((2, 2), np.nan), IDS),
        (np.full((2, 2), 2**63, np.uint64), IDS),
        (np.full((2, 3), 2**24 + 1), X),
        (np.full((2, 3), 1e300), X),
        (np.full((2, 3), 1j), X),
        (np.full((2, 3), "1"), X),
        (np.ones((2, 4)), X),
        (np.ones((1, 2, 3)), X),
        (np.float32(1), X),
    ],
)
def test_a_difference_that_would_change_numbers_is_refused(value, spec):
    with pytest.raises(BadRequest):
        fitted(np.asarray(value), spec)


def test_wrong_names_and_files_say_what_the_model_takes(saved, tmp_path):
    one = saved("v.npy", np.ones((2, 3), np.float32))
    (tmp_path / "junk.npy").write_bytes(b"junk")
    (tmp_path / "notes.md").write_text("x")
    objects = saved("o.npy", np.array([{}], dtype=object))
    for given, words in [
        ([f"z={one}"], "no such input: z"),
        ([f"x={one}"], "missing input ids"),
        ([one], "takes 2 inputs"),
        ([f"x={one}", f"x={one}"], "given twice"),
        ([str(tmp_path / "junk.npy")], "takes 2 inputs|does not read"),
        ([f"x={tmp_path}/junk.npy"], "does not read"),
        ([f"x={objects}"], "does not read"),
        ([f"x={tmp_path}/notes.md"], "neither a photo"),
        ([f"x={saved('n.npz', x=np.ones(3))}"], "own names"),
    ]:
        with pytest.raises(BadRequest, match=words):
            read_inputs(given, [X, IDS], None)
    with pytest.raises(NotFound, match="no file"):
        read_inputs(["x=/none.npy"], [X], None)

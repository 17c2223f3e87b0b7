"""What is read off a sample: each shift moves the number that is named for it, and nothing odd breaks the reader."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from edgekit_runtime.drift import Reading, reader
from edgekit_runtime.drift.words import words
from edgekit_runtime.preprocess import LogMel, Photo, Preprocess, Sound, Text
from edgekit_runtime.tensors import Array, Feeds, TensorSpec
from scipy import ndimage

NAN = float("nan")
SCORES = TensorSpec("scores", "float32", (None, 3))


def spec(*shape: int | None, dtype: str = "float32", name: str = "x") -> TensorSpec:
    """An input."""
    return TensorSpec(name, dtype, shape)


def read(tensor: TensorSpec, value: Array, preprocess: Preprocess | None = None) -> dict[str, float]:
    """The numbers of one sample, answered with three scores."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = {"scores": np.array([[1, 2, 3]], np.float32)}
        (one,) = reader([tensor], [SCORES], preprocess, 3)({tensor.name: value}, answer)
    assert all(type(number) is float for number in one.numbers.values())
    return dict(one.numbers)


def photo(side: int = 96) -> Array:
    """Something with light and shade, edges and colours: (side, side, 3) in 0..1."""
    dice = np.random.default_rng(0)
    rough = ndimage.gaussian_filter(dice.random((side, side, 3)), (1.5, 4, 0))
    rough = (rough - rough.min()) / (rough.max() - rough.min())
    rough[: side // 2] *= 0.4
    return np.asarray(rough, np.float32)


@pytest.mark.parametrize(
    ("change", "name", "more"),
    [
        (lambda x: ndimage.gaussian_filter(x, (2, 2, 0)), "sharpness", False),
        (lambda x: x * 0.5, "brightness", False),
        (lambda x: x * 0.5, "contrast", False),
        (lambda x: x + 0.3, "brightness", True),
        (lambda x: 1 - x, "bright", True),
        (lambda x: x + np.random.default_rng(1).normal(0, 0.2, x.shape), "sharpness", True),
        (np.rot90, "orientation", True),
        (lambda x: np.rot90(x, 2), "top_bottom", True),
        (lambda x: x * [2.0, 1.0, 1.0], "first_colour", True),
    ],
)
def test_each_shift_of_a_photo_moves_its_number(change: Callable[[Array], Array], name: str, more: bool) -> None:
    chw = spec(None, 3, None, None)
    before, after = (
        read(chw, np.asarray(one, np.float32).transpose(2, 0, 1)[None]) for one in (photo(), change(photo()))
    )
    assert (after[name] > before[name]) is more
    assert abs(after[name] - before[name]) > 0.05 * abs(before[name])


@pytest.mark.parametrize("side", [8, 28, 64, 65, 224, 300])
def test_a_photo_reads_the_same_in_every_layout(side: int) -> None:
    hwc = photo(side)
    first = read(spec(None, 3, None, None), hwc.transpose(2, 0, 1)[None])
    assert read(spec(None, None, None, 3), hwc[None]) == pytest.approx(first)
    assert read(spec(None, None, None, 3), hwc[None], Photo(input="x", layout="NHWC")) == pytest.approx(first)
    gray = read(spec(None, None, None), hwc[None, :, :, 0], Photo(input="x", channels="GRAY", layout="NHW"))
    assert gray == pytest.approx(read(spec(None, 1, None, None), hwc[None, None, :, :, 0]))
    assert "first_colour" not in gray


def test_a_photo_without_a_batch_axis_is_one_row() -> None:
    chw = photo().transpose(2, 0, 1)
    one = Photo(input="x", layout="CHW")
    answer: Feeds = {"scores": np.ones(3, np.float32)}
    found = reader([spec(3, None, None)], [TensorSpec("scores", "float32", (3,))], one, 3)({"x": chw}, answer)
    assert len(found) == 1
    assert found[0].numbers["brightness"] == pytest.approx(photo().mean(), abs=0.02)


def test_a_batch_gives_a_reading_a_row() -> None:
    images = np.stack([np.full((1, 9, 9), level, np.uint8) for level in (10, 200)])
    found = reader([spec(None, 1, 9, 9, dtype="uint8")], [SCORES], None, 3)(
        {"x": images}, {"scores": np.array([[9, 0, 0], [0, 0, 9]], np.float32)}
    )
    assert [one.numbers["brightness"] for one in found] == [10, 200]
    assert [one.classes["class"] for one in found] == [0, 2]


@pytest.mark.parametrize("bad", [NAN, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("shape", [(1, 3, 80, 80), (1, 1, 8, 8), (1, 5000), (1, 40, 6), (1, 4), (1, 5, 5, 5)])
def test_numbers_beyond_all_measure_are_counted_and_poison_nothing(shape: tuple[int, ...], bad: float) -> None:
    value = np.random.default_rng(0).random(shape).astype(np.float32)
    good = read(spec(None, *shape[1:]), value)
    value.reshape(-1)[::7] = bad
    after = read(spec(None, *shape[1:]), value)
    assert good.keys() == after.keys()
    assert good["not_finite"] == 0
    if not np.isfinite(bad):
        assert after["not_finite"] > 0
        assert len(shape) == 2 or np.isfinite(list(after.values())).all()


@pytest.mark.parametrize("shape", [(1, 3, 0, 9), (1, 0), (1, 0, 2), (0, 5)])
def test_nothing_at_all_breaks_nothing(shape: tuple[int, ...]) -> None:
    for tensor in (spec(*[None] * len(shape)), spec(*[None] * len(shape), dtype="int64")):
        read_all = reader([tensor], [SCORES], None, 3)
        assert len(read_all({"x": np.zeros(shape, tensor.dtype)}, {"scores": np.ones((1, 3), np.float32)})) == shape[0]


def test_channels_of_a_series_are_told_apart_in_either_order() -> None:
    wave = np.stack([np.sin(np.arange(500) / 10), np.full(500, 2.0)], axis=1).astype(np.float32)
    found = read(spec(None, None, 2), wave[None])
    assert found == pytest.approx(read(spec(None, 2, None), wave.T[None]), abs=1e-6)
    assert found["mean_1"] == 2
    assert found["std_1"] == found["range_1"] == 0
    assert found["range_0"] == pytest.approx(2, rel=0.01)
    assert found["band_0"] > 0.5
    high = np.where(np.arange(500)[:, None] % 2, wave, -wave)
    assert read(spec(None, None, 2), high[None])["band_4"] > 0.5


def test_many_channels_are_told_apart_in_eight_groups() -> None:
    value = np.repeat(np.arange(40, dtype=np.float32)[None, None], 100, axis=1)
    found = read(spec(None, None, 40), value)
    assert [found[f"mean_{group}"] for group in range(8)] == [2, 7, 12, 17, 22, 27, 32, 37]


@pytest.mark.parametrize(
    ("layout", "turn"),
    [("NFT", (0, 1, 2)), ("NTF", (0, 2, 1)), ("NCFT", None), ("NTFC", None)],
)  # fmt: skip
def test_a_spectrogram_reads_the_same_in_every_layout(layout: str, turn: tuple[int, ...] | None) -> None:
    bands = np.random.default_rng(0).random((1, 16, 50)).astype(np.float32)
    values = {"NCFT": bands[:, None], "NTFC": bands.transpose(0, 2, 1)[..., None]}
    value = values[layout] if turn is None else bands.transpose(turn)
    sound = Sound(input="x", rate=16000, features=LogMel(n_mels=16), layout=layout)
    first = read(spec(None, 16, 50), bands, Sound(input="x", rate=16000, features=LogMel(n_mels=16), layout="NFT"))
    assert read(spec(*[None] * value.ndim), value, sound) == pytest.approx(first)


def test_a_text_is_read_by_its_length_and_what_is_unknown() -> None:
    text = Text(input="x", tokenizer="wordpiece", vocab="v", words={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3})
    found = read(spec(None, None, dtype="int64"), np.array([[2, 9, 1, 1, 3, 0, 0, 0]]), text)
    assert found["length"] == 5
    assert found["unknown"] == pytest.approx(0.4)
    assert found["variety"] == pytest.approx(0.8)
    empty = read(spec(None, None, dtype="int64"), np.zeros((1, 8), np.int64), text)
    assert empty.keys() == found.keys()
    assert empty["length"] == 0


def test_unsigned_tokens_do_not_wrap() -> None:
    text = Text(input="x", tokenizer="bytes", dtype="uint8")
    found = read(spec(None, None, dtype="uint8"), np.array([[200, 100, 200]], np.uint8), text)
    assert found["token_steps"] == 100


def test_an_output_that_was_not_asked_for_is_left_out() -> None:
    outputs = [SCORES, TensorSpec("box", "float32", (None, 2))]
    (one,) = reader([spec(None, 4)], outputs, None, 3)({"x": np.ones((1, 4))}, {"box": np.ones((1, 2))})
    assert not one.classes
    assert one.numbers["output_1"] == 1


def test_the_mask_of_a_text_is_not_read() -> None:
    text = Text(input="ids", mask="mask", tokenizer="bytes")
    specs = [spec(None, None, dtype="int64", name=name) for name in ("ids", "mask")]
    feeds = {"ids": np.array([[104, 105]]), "mask": np.array([[1, 1]])}
    (one,) = reader(specs, [SCORES], text, 3)(feeds, {"scores": np.ones((1, 3), np.float32)})
    assert not [name for name in one.numbers if " of " in name]


@pytest.mark.parametrize("given", [b"Hello W\xc3\xb6rld 42", "Hello W\u00f6rld 42"])
def test_a_text_as_it_is_is_read_by_its_characters(given: bytes | str) -> None:
    found = read(spec(None, 1, dtype="object"), np.array([[given]], object))
    assert found["length"] == 15
    assert found["digits"] == pytest.approx(2 / 15)
    assert found["capitals"] == found["not_ascii"] == pytest.approx(2 / 15)


def judged(scores: Array, output: TensorSpec, labels: int = 0) -> Reading:
    """One sample of four columns, answered so."""
    (one,) = reader([spec(None, 4)], [output], None, labels)({"x": np.ones((1, 4), np.float32)}, {output.name: scores})
    return one


def test_logits_and_probabilities_are_judged_alike() -> None:
    logits = np.array([[0.0, 2.0, 1.0]], np.float32)
    shares = np.exp(logits) / np.exp(logits).sum()
    first, second = (judged(one, SCORES, 3) for one in (logits, shares))
    assert first.classes == second.classes == {"class": 1}
    assert first.numbers == pytest.approx(dict(second.numbers))
    assert first.numbers["confidence"] == pytest.approx(shares[0, 1] - shares[0, 2])
    assert judged(np.full((1, 3), 1 / 3, np.float32), SCORES, 3).numbers["entropy"] == pytest.approx(1)
    assert judged(np.array([[0, NAN, 1]], np.float32), SCORES, 3).classes == {"class": -1}


def test_integer_scores_are_judged_as_what_they_stand_for() -> None:
    whole = TensorSpec("scores", "uint8", (None, 3), 1 / 256, 0)
    found = judged(np.array([[128, 96, 32]], np.uint8), whole, 3)
    assert found.numbers["confidence"] == pytest.approx(0.125)


def test_what_are_no_scores_is_read_as_values() -> None:
    assert judged(np.array([[7.5]], np.float32), TensorSpec("y", "float32", (None, 1))).numbers["output_0"] == 7.5
    assert judged(np.array([4]), TensorSpec("y", "int64", (None,))).classes == {"class": 4}
    many = judged(np.ones((1, 6, 5), np.float32), TensorSpec("y", "float32", (None, 6, 5)), 3)
    assert many.numbers["output_mean"] == 1
    assert not many.classes


def test_several_tensors_have_features_of_their_own() -> None:
    specs = [spec(None, 4), spec(None, 2, name="more\n")]
    outputs = [SCORES, TensorSpec("box", "float32", (None, 2))]
    feeds = {"x": np.ones((1, 4), np.float32), "more\n": np.ones((1, 2), np.float32)}
    answer = {"scores": np.ones((1, 3), np.float32), "box": np.ones((1, 2), np.float32)}
    (one,) = reader(specs, outputs, None, 3)(feeds, answer)
    assert {"value_0", "value_0 of more?", "confidence", "output_1"} <= one.numbers.keys()
    assert words("value_0 of more?") == "column 1 of more?"
    assert all(words(name) != name for name in one.numbers)


def test_a_state_beside_its_input_makes_one_row() -> None:
    specs = [spec(None, 576), spec(2, None, 128, name="state"), TensorSpec("sr", "int64", ())]
    outputs = [TensorSpec("output", "float32", (None, 1)), TensorSpec("stateN", "float32", (None, None, None))]
    feeds = {"x": np.ones((1, 576), np.float32), "state": np.ones((2, 1, 128), np.float32), "sr": np.array(16000)}
    answer = {"output": np.array([[0.5]], np.float32), "stateN": np.ones((2, 1, 128), np.float32)}
    assert len(reader(specs, outputs, None, 0)(feeds, answer)) == 1

"""Keras models and SavedModels to each format: the answers, at several batches, are the source's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.converters import convert, route
from edgekit.converters.matching import difference, example_feeds
from edgekit.model import Artifact, Model, Origin, parse_shape
from edgekit.quiet import quiet
from edgekit.sources import read
from edgekit.sources.tf_calls import keras

pytestmark = pytest.mark.slow
FORMATS = ("onnx", "openvino", "tflite")


def cnn(k: Any) -> Any:
    layers = k.layers
    image = k.Input((16, 16, 3), name="image")
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(image)))
    x = layers.Activation("hard_swish")(layers.DepthwiseConv2D(3, padding="same")(x))
    return k.Model(image, layers.Dense(10, activation="softmax", name="probs")(layers.GlobalAveragePooling2D()(x)))


def lstm(k: Any) -> Any:
    layers = k.layers
    series = k.Input((12, 3), name="series")
    return k.Sequential([series, layers.LSTM(8, return_sequences=True), layers.LSTM(4), layers.Dense(2)])


def gru(k: Any) -> Any:
    return k.Sequential([k.Input((12, 3), name="series"), k.layers.Bidirectional(k.layers.GRU(4)), k.layers.Dense(2)])


def text(k: Any) -> Any:
    layers = k.layers
    ids = k.Input((None,), dtype="int64", name="ids")
    return k.Sequential([ids, layers.Embedding(20, 4, mask_zero=True), layers.LSTM(4), layers.Dense(2)])


def transformer(k: Any) -> Any:
    layers = k.layers
    ids = k.Input((8,), dtype="int64", name="ids")
    x = layers.Embedding(20, 8)(ids)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))
    x = layers.Add()([x, layers.Dense(8)(layers.Dense(16, activation="gelu")(x))])
    return k.Model(ids, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def two(k: Any) -> Any:
    layers = k.layers
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    return k.Model([a, b], [layers.Dense(3, name="sum")(layers.Add()([a, b])), layers.Subtract(name="gap")([a, b])])


MAKERS: dict[str, Callable[[Any], Any]] = {f.__name__: f for f in (cnn, lstm, gru, text, transformer, two)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model as `.keras` file and as SavedModel."""
    place = tmp_path_factory.mktemp("models")
    k = keras()
    k.utils.set_random_seed(0)
    for name, make in MAKERS.items():
        with quiet():
            made = make(k)
            made.save(place / f"{name}.keras")
            feeds = [np.zeros([n or 2 for n in tensor.shape], tensor.dtype) for tensor in made.inputs]
            made(feeds if len(feeds) > 1 else feeds[0])
            made.export(place / name, verbose=False)
    return place


def converted(model: Model, format: str, folder: Path) -> Artifact:
    (step,) = route(model, format)
    return convert(step, model, folder, lambda _: None)


def worst(model: Model, artifact: Artifact) -> float:
    """The largest difference over batches and lengths that no converter saw."""
    run, found = artifact.open_model(), 0.0
    for seed, (batch, length) in enumerate([(1, 5), (3, 9)]):
        feeds = example_feeds(model, {"batch": batch, "axis1": length}, seed=seed + 3)
        want, got = model.run(feeds), run(feeds)
        found = max(found, *(difference(want[name], got[name]) for name in want))
    return found


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", [".keras", ""], ids=["keras", "saved_model"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_artifact_answers_as_the_source(folder: Path, tmp_path: Path, name: str, kind: str, format: str) -> None:
    model = read(Origin(str(folder / f"{name}{kind}")))
    artifact = converted(model, format, tmp_path)
    assert worst(model, artifact) < 1e-5
    assert artifact.path.name == {"onnx": "model.onnx", "openvino": "model.xml", "tflite": "model.tflite"}[format]
    assert [port.spec for port in artifact.inputs] == list(model.inputs)
    assert artifact.precision == "float32"


def test_a_short_recurrent_layer_is_written_out_and_keeps_its_batch(folder: Path, tmp_path: Path) -> None:
    artifact = converted(read(Origin(str(folder / "lstm.keras"))), "tflite", tmp_path)
    assert artifact.inputs[0].inside.shape == (None, 12, 3)
    assert "step by step" in artifact.notes[0]


def test_a_recurrent_layer_of_any_length_takes_one_sample_at_a_time(folder: Path, tmp_path: Path) -> None:
    artifact = converted(read(Origin(str(folder / "text.keras"))), "tflite", tmp_path)
    assert artifact.inputs[0].inside.shape == (1, None)
    assert "one sample at a time" in artifact.notes[0]


def test_a_length_that_the_user_fixes_is_written_out(folder: Path, tmp_path: Path) -> None:
    origin = Origin(str(folder / "text.keras"), shapes=(parse_shape("ids=batch,6"),))
    artifact = converted(read(origin), "tflite", tmp_path)
    assert artifact.inputs[0].inside.shape == (None, 6)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_printed(folder: Path, tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = read(Origin(str(folder / "cnn.keras")))
    converted(model, format, tmp_path)
    said = [line for line in "".join(capfd.readouterr()).splitlines() if "XNNPACK" not in line]
    assert said == []

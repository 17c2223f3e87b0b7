"""The TFLite source, on files that TensorFlow's converter has just made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.model import Origin
from edgekit.quiet import quiet
from edgekit.sources import fingerprint, read
from edgekit.sources.tf_calls import keras, tensorflow

pytestmark = pytest.mark.slow


def origin(path: Path) -> Origin:
    return Origin(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small net as float32, float16, int8 with integer and with float inputs, and with int8 weights."""
    tf: Any = tensorflow()
    k = keras()
    place = tmp_path_factory.mktemp("tflite")
    image = k.Input((8, 8, 3), name="image")
    x = k.layers.Flatten()(k.layers.Conv2D(8, 3, activation="relu")(image))
    net = k.Model(image, k.layers.Dense(64, name="scores")(x))
    chance = np.random.default_rng(0)
    kinds: dict[str, dict[str, Any]] = {
        "float32": {},
        "float16": {"target_spec": tf.lite.TargetSpec(supported_types=[tf.float16])},
        "int8": {"inference_input_type": tf.int8, "inference_output_type": tf.int8},
        "int8_float_io": {},
        "int8-weights": {},
    }
    for name, settings in kinds.items():
        with quiet():
            converter = tf.lite.TFLiteConverter.from_keras_model(net)
            if name != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if name in ("int8", "int8_float_io"):
                converter.representative_dataset = lambda: (
                    [chance.standard_normal((1, 8, 8, 3)).astype(np.float32)] for _ in range(8)
                )
            for key, value in settings.items():
                setattr(converter, key, value)
            (place / f"{name}.tflite").write_bytes(converter.convert())
    return place


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "int8_float_io", "int8-weights"])
def test_the_precision_is_read_from_the_file(folder: Path, name: str) -> None:
    facts = read(origin(folder / f"{name}.tflite")).facts
    assert facts.precision == name.partition("_")[0]
    assert facts.ops["CONV_2D"] == 1
    assert 0 <= facts.parameters - (8 * 3 * 3 * 3 + 6 * 6 * 8 * 64) <= 80


def test_names_are_those_of_the_signature_and_the_batch_is_free(folder: Path) -> None:
    model = read(origin(folder / "float32.tflite"))
    assert str(model.inputs[0]) == "image: float32[?, 8, 8, 3]"
    assert model.axes == {"image": ("batch", 8, 8, 3)}
    (answer,) = model.run({"image": np.zeros((3, 8, 8, 3), np.float32)}).values()
    assert answer.shape == (3, 64)


def test_scaled_integers_are_real_numbers_to_the_user(folder: Path) -> None:
    model, real = read(origin(folder / "int8.tflite")), read(origin(folder / "float32.tflite"))
    assert model.inputs == real.inputs
    feeds = {"image": np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)}
    (got,), (want,) = model.run(feeds).values(), real.run(feeds).values()
    assert got.dtype == np.float32
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused_before_it_can_do_harm(folder: Path, tmp_path: Path, part: float) -> None:
    content = (folder / "float32.tflite").read_bytes()
    (tmp_path / "m.tflite").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(EdgeKitError, match=r"damaged or cut short|not a TFLite file") as caught:
        read(origin(tmp_path / "m.tflite"))
    assert "\n" not in caught.value.what


def test_another_file_under_the_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(EdgeKitError, match="not a TFLite file"):
        read(origin(tmp_path / "m.tflite"))


def test_the_fingerprint_is_the_files(folder: Path) -> None:
    assert fingerprint(origin(folder / "int8.tflite")) != fingerprint(origin(folder / "float32.tflite"))

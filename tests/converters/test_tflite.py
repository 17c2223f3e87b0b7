"""TFLite files to each format: right, or refused in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.errors import Unsupported

from edgekit.converters import convert, route
from edgekit.converters.matching import difference, example_feeds
from edgekit.model import Artifact, Model, Origin
from edgekit.quiet import quiet
from edgekit.sources import read
from edgekit.sources.tf_calls import keras, tensorflow

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net in float32, float16 and int8, and one that counts its calls."""
    tf: Any = tensorflow()
    k = keras()
    place = tmp_path_factory.mktemp("tflite")
    image = k.Input((8, 8, 3), name="image")
    x = k.layers.Flatten()(k.layers.Conv2D(8, 3, activation="relu6")(image))
    net = k.Model(image, k.layers.Dense(4, name="scores")(x))

    def write(name: str, converter: Any, **settings: Any) -> None:
        for key, value in settings.items():
            setattr(converter, key, value)
        with quiet():
            (place / f"{name}.tflite").write_bytes(converter.convert())

    def samples() -> Any:
        return ([np.random.default_rng(i).standard_normal((1, 8, 8, 3)).astype(np.float32)] for i in range(8))

    make, small = tf.lite.TFLiteConverter.from_keras_model, [tf.lite.Optimize.DEFAULT]
    integer = {"inference_input_type": tf.int8, "inference_output_type": tf.int8}
    write("float32", make(net))
    write("float16", make(net), optimizations=small, target_spec=tf.lite.TargetSpec(supported_types=[tf.float16]))
    write("int8", make(net), optimizations=small, representative_dataset=samples, **integer)
    write("int8_float_io", make(net), optimizations=small, representative_dataset=samples)

    class Counter(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.calls = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([1], tf.float32, "x")])
        def __call__(self, x: Any) -> Any:
            return {"y": x + self.calls.assign_add(1.0)}

    counter = Counter()
    stateful = tf.lite.TFLiteConverter.from_concrete_functions([counter.__call__.get_concrete_function()], counter)
    write("counter", stateful, experimental_enable_resource_variables=True)
    return place


def converted(model: Model, format: str, folder: Path) -> Artifact:
    (step,) = route(model, format)
    return convert(step, model, folder, lambda _: None)


@pytest.mark.parametrize("format", ["onnx", "openvino", "tflite"])
@pytest.mark.parametrize("name", ["float32", "float16"])
def test_a_float_file_answers_the_same_everywhere(folder: Path, tmp_path: Path, name: str, format: str) -> None:
    model = read(Origin(str(folder / f"{name}.tflite")))
    artifact = converted(model, format, tmp_path)
    assert artifact.precision == ("float32" if format == "onnx" else name)
    feeds = example_feeds(model, {"batch": 3}, seed=5)
    want, got = model.run(feeds), artifact.open_model()(feeds)
    assert max(difference(want[name], got[name]) for name in want) < 1e-4


def test_a_quantized_file_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    model = read(Origin(str(folder / "int8.tflite")))
    artifact = converted(model, "tflite", tmp_path)
    assert artifact.precision == "int8"
    assert artifact.path.read_bytes() == (folder / "int8.tflite").read_bytes()
    assert (artifact.inputs[0].spec.dtype, artifact.inputs[0].inside.dtype) == ("float32", "int8")
    feeds = example_feeds(model, {"batch": 2})
    for name, value in model.run(feeds).items():
        np.testing.assert_array_equal(artifact.open_model()(feeds)[name], value)


def test_a_quantized_file_with_float_ends_goes_to_openvino(folder: Path, tmp_path: Path) -> None:
    artifact = converted(read(Origin(str(folder / "int8_float_io.tflite"))), "openvino", tmp_path)
    assert artifact.precision == "int8"


@pytest.mark.parametrize(("name", "format"), [("int8", "onnx"), ("int8_float_io", "onnx"), ("int8", "openvino")])
def test_a_quantized_file_that_does_not_carry_over_is_refused(
    folder: Path, tmp_path: Path, name: str, format: str
) -> None:
    with pytest.raises(Unsupported) as caught:
        converted(read(Origin(str(folder / f"{name}.tflite"))), format, tmp_path)
    assert "--format tflite" in caught.value.hint


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_file_that_remembers_stays_tflite(folder: Path, tmp_path: Path, format: str) -> None:
    model = read(Origin(str(folder / "counter.tflite")))
    with pytest.raises(Unsupported, match="state between calls"):
        converted(model, format, tmp_path)
    assert "remembers earlier calls" in converted(model, "tflite", tmp_path).notes[0]


def test_a_recurrent_net_that_tf2onnx_gets_wrong_is_caught_by_its_numbers(tmp_path: Path) -> None:
    import litert_torch
    import torch

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 16, num_layers=2, batch_first=True)
            self.out = torch.nn.Linear(16, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(x)[0][:, -1])

    torch.manual_seed(0)
    with quiet():
        litert_torch.convert(Net().eval(), (torch.randn(1, 10, 4),)).export(str(tmp_path / "lstm.tflite"))
    (tmp_path / "out").mkdir()
    model = read(Origin(str(tmp_path / "lstm.tflite")))
    with pytest.raises(Unsupported, match="answers differently"):
        converted(model, "onnx", tmp_path / "out")
    converted(model, "openvino", tmp_path / "out")

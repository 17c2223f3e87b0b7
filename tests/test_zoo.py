"""The zoo's models are what they are said to be: accuracy with its n, forms that agree, data that does not overlap.

Refuses a zoo on which EdgeKit could look better, or worse, than it is."""

import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.engines import open_model
from edgekit_runtime.preprocess import apply, parse_preprocess
from edgekit_runtime.tensors import Array

from benchmarks.defaults import onnx as onnx_default
from edgekit.userland import load_function
from tests import zoo
from tests.zoo import making

pytestmark = pytest.mark.slow


def accuracy(scores: Array, labels: Array) -> float:
    """The share of the labels that have the highest score; printed with its n."""
    share = float(np.mean(scores.argmax(1) == labels))
    print(f"accuracy {share:.4f}, n = {len(labels)}")  # noqa: T201
    return share


def torch_net(factory: str, weights: Path) -> Callable[[Array], Array]:
    """The net of a factory with its weights, as a function."""
    import torch

    net = load_function(factory)()
    net.load_state_dict(torch.load(weights, weights_only=True))

    def run(x: Array) -> Array:
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    return run


def test_the_cat_on_the_photo_is_an_egyptian_cat():
    it = zoo.efficientnet_lite0()
    run = torch_net(it.factory, it.weights)
    top = int(run(photo(it, it.chelsea)).argmax())
    assert it.labels.read_text().splitlines()[top] == "Egyptian cat"
    assert top == 285


def test_efficientnet_knows_eighteen_of_the_twenty_labelled_photos():
    it = zoo.efficientnet_lite0()
    run = torch_net(it.factory, it.weights)
    rows = [row.split(",") for row in (it.photos.labelled / "labels.csv").read_text().splitlines()[1:]]
    scores = np.concatenate([run(photo(it, it.photos.labelled / name)) for name, _ in rows])
    assert accuracy(scores, np.array([int(label) for _, label in rows])) == 18 / 20


def test_no_photograph_is_both_calibrated_and_evaluated_on():
    photos = zoo.efficientnet_lite0().photos
    calibration, evaluation = (
        {path.stem.rpartition("-")[0] for path in folder.glob("*.jpg")}
        for folder in (photos.calibration, photos.evaluation)
    )
    assert calibration.isdisjoint(evaluation)
    assert "chelsea" not in calibration | evaluation
    assert len(list(photos.calibration.iterdir())) >= 64
    assert len(list(photos.evaluation.iterdir())) >= 100


@pytest.mark.parametrize(
    ("net", "least"),
    [
        (zoo.fashion_cnn, 0.90),
        (zoo.fashion_depthwise, 0.90),
        (zoo.fashion_transformer, 0.87),
        (zoo.fashion_outliers, 0.90),
        (zoo.sensor_gru, 0.93),
        (zoo.text_classifier, 0.90),
        (zoo.transformer, 0.90),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_torch_net_has_learnt_and_its_forms_agree(net, least):
    import torch

    it = net()
    feeds, labels = samples(it.test)
    name, x = next(iter(feeds.items()))
    wanted = open_model("onnx", it.onnx)({name: x})["scores"]
    assert accuracy(wanted, labels) >= least
    few = torch.from_numpy(x[:3])
    module = torch_net(it.factory, it.pth)
    others = {
        "factory": module(x[:3]),
        "pt2": torch.export.load(it.pt2).module()(few).detach().numpy(),
        "torchscript": torch.jit.load(it.torchscript)(few).detach().numpy(),
    }
    for form, scores in others.items():
        np.testing.assert_allclose(scores, wanted[:3], atol=1e-4, err_msg=form)


@pytest.mark.parametrize("net", [zoo.sensor_gru, zoo.text_classifier, zoo.transformer])
def test_the_time_of_a_sequence_model_is_free(net):
    it = net()
    (name, x), *_ = samples(it.test)[0].items()
    module, onnx = torch_net(it.factory, it.pth), open_model("onnx", it.onnx)
    for batch, length in ((1, 1), (3, 7), (2, 100)):
        cut = np.tile(x[:batch], (1, 5, 1)[: x.ndim])[:, :length]
        np.testing.assert_allclose(onnx({name: cut})["scores"], module(cut), atol=1e-4)


def test_the_ruined_calibration_is_not_what_the_net_was_made_for():
    it = zoo.fashion_cnn()
    (name, good), *_ = samples(it.calibration)[0].items()
    bad = samples(it.ruined)[0][name]
    assert good.max() <= 1 < 100 < bad.max()


def test_a_few_huge_channels_change_no_answer_and_ruin_plain_int8(tmp_path):
    it = zoo.fashion_outliers()
    feeds, labels = samples(it.test)
    healthy, huge = (open_model("onnx", net.onnx)(feeds)["scores"] for net in (zoo.fashion_cnn(), it))
    np.testing.assert_allclose(huge, healthy, atol=1e-3)
    made = onnx_default.static(it.onnx, calibration(it.calibration), tmp_path)
    assert accuracy(huge, labels) - accuracy(open_model("onnx", made)(feeds)["scores"], labels) > 0.05


def test_a_few_images_far_too_bright_ruin_plain_int8(tmp_path):
    it = zoo.fashion_cnn()
    feeds, labels = samples(it.test)
    (name, good), *_ = samples(it.calibration)[0].items()
    bad = samples(zoo.fashion_outlying())[0][name]
    assert 0.01 <= np.mean((good != bad).any((1, 2, 3))) <= 0.03
    made = onnx_default.static(it.onnx, calibration(zoo.fashion_outlying()), tmp_path)
    scores = [open_model("onnx", path)(feeds)["scores"] for path in (it.onnx, made)]
    assert accuracy(scores[0], labels) - accuracy(scores[1], labels) > 0.05


def test_the_keras_cnn_has_learnt_in_float_and_in_int8():
    it = zoo.fashion_keras()
    feeds, labels = samples(it.test)
    assert accuracy(in_lite(it.tflite, feeds["image"][:2000]), labels[:2000]) >= 0.88
    assert accuracy(in_lite(it.tflite_int8, feeds["image"][:2000]), labels[:2000]) >= 0.87


def test_the_keras_forms_agree():
    import keras
    import tensorflow as tf

    it = zoo.fashion_keras()
    x = samples(it.test)[0]["image"][:3]
    wanted = in_lite(it.tflite, x)
    for path in (it.keras, it.h5):
        np.testing.assert_allclose(keras.saving.load_model(path, compile=False)(x).numpy(), wanted, atol=1e-4)
    saved = tf.saved_model.load(str(it.saved_model)).signatures["serving_default"]
    np.testing.assert_allclose(next(iter(saved(image=x).values())).numpy(), wanted, atol=1e-4)
    lstm = zoo.keras_lstm()
    feeds, labels = samples(lstm.test)
    assert (
        accuracy(keras.saving.load_model(lstm.keras, compile=False).predict(feeds["series"], verbose=0), labels) >= 0.93
    )


def test_two_of_basic_pitchs_formats_agree_on_speech():
    it = zoo.basic_pitch()
    feeds = {name: sound[:2] for name, sound in samples(it.data_onnx)[0].items()}
    wanted, got = open_model("onnx", it.onnx)(feeds), open_model("tflite", it.tflite)(feeds)
    assert max(value.max() for value in wanted.values()) > 0.3
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-4)


def test_silero_hears_speech_and_no_speech_in_noise():
    it = zoo.silero_vad()
    run = open_model("onnx", it.onnx)

    def heard(path: Path) -> float:
        feeds, _ = samples(path)
        count = len(feeds["input"])
        spoken = [
            run({name: np.asarray(value[i]) for name, value in feeds.items()})["output"] > 0.5 for i in range(count)
        ]
        print(f"speech in {np.mean(spoken):.3f} of {count} frames")  # noqa: T201
        return float(np.mean(spoken))

    assert heard(it.data) > 0.5
    assert heard(it.noise) < 0.05


def test_the_published_small_models_are_there():
    assert zoo.wakeword().tflite.stat().st_size == 52_272
    assert zoo.centerface().stat().st_size == 7_304_518


def test_an_entry_is_made_once_by_two_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []
    monkeypatch.setattr(making, "_make", lambda module, function, entry: (made.append(entry), entry.mkdir()))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: making.made("published:centerface", [], []), range(2)))
    assert len(made) == 1


def test_an_entry_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="has no attribute 'no_such_maker'"):
        making.made("published:no_such_maker", [], [])
    assert [path.name for path in making.cache().iterdir()] == ["no_such_maker.lock"]


def photo(it: zoo.EfficientNet, path: Path) -> Array:
    """A photo as the net takes it, by the runtime's own preprocessing."""
    return apply(parse_preprocess(tomllib.loads(it.preprocess.read_text())), path)["x"]


def samples(path: Path) -> tuple[dict[str, Array], Array]:
    """The inputs of an `.npz`, and its labels if it has any."""
    with np.load(path) as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    return feeds, feeds.pop("label", np.zeros(0))


def calibration(path: Path) -> list[dict[str, Array]]:
    """Half of the calibration images of an `.npz`, one by one."""
    (name, x), *_ = samples(path)[0].items()
    return [{name: x[i : i + 1]} for i in range(0, len(x), 2)]


def in_lite(path: Path, images: Array) -> Array:
    """The logits by TensorFlow Lite, in float whatever the file holds inside."""
    from ai_edge_litert.interpreter import Interpreter

    lite = Interpreter(str(path))
    (given,), (told,) = lite.get_input_details(), lite.get_output_details()
    if given["dtype"] == np.int8:
        scale, zero = given["quantization"]
        images = np.clip(np.rint(images / scale + zero), -128, 127).astype(np.int8)
    lite.resize_tensor_input(given["index"], images.shape)
    lite.allocate_tensors()
    lite.set_tensor(given["index"], images)
    lite.invoke()
    return lite.get_tensor(told["index"]).astype(np.float32)

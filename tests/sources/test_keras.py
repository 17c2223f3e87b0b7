"""The Keras source, on models that Keras itself has just saved."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError, Unsupported

from edgekit.converters.matching import example_feeds
from edgekit.model import Origin, parse_shape
from edgekit.quiet import quiet
from edgekit.sources import fingerprint, read
from edgekit.sources.tf_calls import keras, tensorflow

pytestmark = pytest.mark.slow


def origin(path: Path, *shapes: str) -> Origin:
    return Origin(str(path), shapes=tuple(map(parse_shape, shapes)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models, saved."""
    place = tmp_path_factory.mktemp("keras")
    k = keras()
    layers = k.layers
    ids = k.Input((None,), dtype="int64", name="ids")
    text = k.Model(ids, layers.Dense(2, name="score")(layers.LSTM(4)(layers.Embedding(12, 4)(ids))))
    left, right = k.Input((4,), name="left"), k.Input((4,), name="right")
    two = k.Model([left, right], {"sum": layers.Dense(3)(layers.Add()([left, right])), "raw": layers.Dense(2)(left)})
    code = k.Sequential([k.Input((3,)), layers.Lambda(lambda x: x * 2)])
    with quiet():
        text.save(place / "text.keras")
        text.save(place / "text.h5")
        two.save(place / "two.keras")
        code.save(place / "code.keras")
        code.save(place / "code.h5")
        text.save_weights(place / "only.weights.h5")
        k.Sequential([layers.Dense(3)]).save(place / "shapeless.keras")
    return place


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_saved_model_keeps_its_names_and_its_free_axes(folder: Path, suffix: str) -> None:
    model = read(origin(folder / f"text.{suffix}"))
    assert [str(spec) for spec in model.inputs] == ["ids: int64[?, ?]"]
    assert [str(spec) for spec in model.outputs] == ["score: float32[?, 2]"]
    assert model.axes == {"ids": ("batch", "axis1")}
    assert model.facts.ops["LSTM"] == 1
    assert model.facts.parameters == 12 * 4 + 4 * (4 + 4 + 1) * 4 + 10
    for length in (1, 7):
        assert model.run(example_feeds(model, {"batch": 3, "axis1": length}))["score"].shape == (3, 2)


def test_a_dictionary_of_outputs_is_known_by_its_keys(folder: Path) -> None:
    model = read(origin(folder / "two.keras"))
    feeds = example_feeds(model)
    loaded = model.forms["keras"]
    want = loaded(
        {"left": feeds["left"], "right": feeds["right"]} if isinstance(loaded.input, dict) else [*feeds.values()]
    )
    answer = model.run(feeds)
    assert answer.keys() == {"sum", "raw"}
    for name, value in answer.items():
        np.testing.assert_allclose(value, np.asarray(want[name]), rtol=1e-5)


def test_the_user_can_fix_and_name_what_is_free(folder: Path) -> None:
    assert read(origin(folder / "text.keras", "ids=batch,16")).inputs[0].shape == (None, 16)
    assert read(origin(folder / "text.keras", "ids=n,time:int64")).axes == {"ids": ("n", "time")}


@pytest.mark.parametrize("wish", ["idz=1x16", "ids=1x16x3", "ids=1x16:int32"])
def test_a_shape_that_does_not_fit_is_refused(folder: Path, wish: str) -> None:
    with pytest.raises(EdgeKitError) as caught:
        read(origin(folder / "text.keras", wish))
    assert "ids" in caught.value.hint + caught.value.what


def test_a_sequential_without_its_shape_asks_for_it(folder: Path) -> None:
    with pytest.raises(EdgeKitError, match="shape of its input"):
        read(origin(folder / "shapeless.keras"))
    model = read(origin(folder / "shapeless.keras", "x=batch,5"))
    assert [answer.shape for answer in model.run({"x": np.ones((2, 5), np.float32)}).values()] == [(2, 3)]


def test_an_id_out_of_range_is_told_in_one_line(folder: Path) -> None:
    with pytest.raises(BadRequest, match="does not run on this input") as caught:
        read(origin(folder / "text.keras")).run({"ids": np.array([[99]])})
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("name", ["code.keras", "code.h5"])
def test_a_lambda_layer_is_refused_with_a_safe_way(folder: Path, name: str) -> None:
    with pytest.raises(Unsupported, match="Lambda layer") as caught:
        read(origin(folder / name))
    assert "model.export" in caught.value.hint


def test_a_class_that_keras_does_not_have_is_refused(folder: Path, tmp_path: Path) -> None:
    def rename(config: Any) -> Any:
        text = json.dumps(config).replace('"class_name": "LSTM"', '"class_name": "MyLSTM"')
        return json.loads(
            text.replace('"module": "keras.layers", "class_name": "MyLSTM"', '"module": "my", "class_name": "MyLSTM"')
        )

    _rewritten(folder / "text.keras", tmp_path / "own.keras", rename)
    with pytest.raises(Unsupported, match=r"that Keras does not have: MyLSTM$"):
        read(origin(tmp_path / "own.keras"))


def test_weights_alone_are_no_model(folder: Path) -> None:
    with pytest.raises(EdgeKitError, match="weights without the model"):
        read(origin(folder / "only.weights.h5"))


@pytest.mark.parametrize("name", ["text.keras", "text.h5"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.9, 0.999])
def test_a_file_cut_short_is_one_line(folder: Path, tmp_path: Path, name: str, part: float) -> None:
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(EdgeKitError, match="damaged or cut short") as caught:
        read(origin(tmp_path / name))
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_a_wrong_suffix_is_told_by_the_content(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes((folder / "text.h5").read_bytes())
    with pytest.raises(EdgeKitError, match=r"is a \.h5 file") as caught:
        read(origin(tmp_path / "m.keras"))
    assert caught.value.hint == "rename it to m.h5"


def test_the_fingerprint_changes_with_the_file_and_the_shapes(folder: Path) -> None:
    prints = {fingerprint(origin(folder / name)) for name in ("text.keras", "two.keras")}
    assert len(prints | {fingerprint(origin(folder / "text.keras", "ids=1x16"))}) == 3


def test_nothing_is_printed_and_the_environment_is_as_before(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    read(origin(folder / "text.keras"))
    with quiet():
        tensorflow().get_logger().warning("dropped")
    tensorflow().get_logger().setLevel("WARNING")
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def _rewritten(source: Path, target: Path, change: Any) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, json.dumps(change(json.loads(content))) if name == "config.json" else content)

"""The SavedModel source, on folders that TensorFlow itself has just written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.model import Origin, parse_shape
from edgekit.quiet import quiet
from edgekit.sources import fingerprint, read
from edgekit.sources.tf_calls import tensorflow

pytestmark = pytest.mark.slow


def origin(path: Path, *shapes: str) -> Origin:
    return Origin(str(path), shapes=tuple(map(parse_shape, shapes)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels: one plain, one with two signatures, one that reads files, one without a rank."""
    tf: Any = tensorflow()
    place = tmp_path_factory.mktemp("saved")
    module = tf.Module()
    module.w = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))

    def exported(name: str, body: Any, spec: Any, *signatures: str) -> None:
        traced = tf.function(body, input_signature=[spec])
        with quiet():
            tf.saved_model.save(module, str(place / name), dict.fromkeys(signatures, traced))

    rows = tf.TensorSpec([None, 3], tf.float32, "x")
    exported("plain", lambda x: {"y": x @ module.w, "top": tf.argmax(x @ module.w, -1)}, rows, "serving_default")
    exported("other", lambda x: {"y": x @ module.w}, rows, "classify")
    exported("several", lambda x: {"y": x @ module.w}, rows, "one", "two")
    exported("rankless", lambda x: {"y": x * 2}, tf.TensorSpec(None, tf.float32, "x"), "serving_default")
    exported("words", lambda x: {"y": tf.strings.length(x)}, tf.TensorSpec([None], tf.string, "x"), "serving_default")
    exported(
        "reads",
        lambda x: {"y": x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)},
        rows,
        "serving_default",
    )
    return place


def test_a_signature_is_called_by_its_names(folder: Path) -> None:
    model = read(origin(folder / "plain"))
    assert [str(spec) for spec in model.inputs] == ["x: float32[?, 3]"]
    assert [str(spec) for spec in model.outputs] == ["top: int64[?]", "y: float32[?, 2]"]
    answer = model.run({"x": np.ones((4, 3), np.float32)})
    np.testing.assert_allclose(answer["y"], np.tile([6.0, 9.0], (4, 1)))
    assert model.facts.parameters == 6
    assert "MatMul" in model.facts.ops


def test_the_only_signature_is_taken_whatever_its_name(folder: Path) -> None:
    assert read(origin(folder / "other")).outputs[0].name == "y"


def test_several_signatures_without_a_default_are_listed(folder: Path) -> None:
    with pytest.raises(EdgeKitError, match="one, two"):
        read(origin(folder / "several"))


def test_an_unknown_rank_asks_for_the_shape(folder: Path) -> None:
    with pytest.raises(EdgeKitError) as caught:
        read(origin(folder / "rankless"))
    assert "--shape x=" in caught.value.hint
    assert read(origin(folder / "rankless", "x=batch,4")).inputs[0].shape == (None, 4)


def test_text_is_no_input_for_a_device(folder: Path) -> None:
    with pytest.raises(Unsupported, match="is text"):
        read(origin(folder / "words"))


def test_a_model_that_reads_files_is_refused_before_it_is_loaded(folder: Path) -> None:
    with pytest.raises(Unsupported, match="ReadFile"):
        read(origin(folder / "reads"))


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match=r"without saved_model\.pb"):
        read(origin(tmp_path))


@pytest.mark.parametrize(
    "victim", ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"]
)
def test_a_file_cut_short_or_gone_is_one_line(folder: Path, tmp_path: Path, victim: str) -> None:
    for path in (folder / "plain").rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(folder / "plain")
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    content = (tmp_path / victim).read_bytes()
    (tmp_path / victim).write_bytes(content[: len(content) // 2])
    with pytest.raises(EdgeKitError) as caught:
        read(origin(tmp_path))
    assert "\n" not in caught.value.what
    assert caught.value.hint
    if victim.startswith("variables"):
        (tmp_path / victim).unlink()
        with pytest.raises(EdgeKitError):
            read(origin(tmp_path))


def test_the_fingerprint_covers_every_file(folder: Path, tmp_path: Path) -> None:
    assert fingerprint(origin(folder / "plain")) != fingerprint(origin(folder / "other"))

"""What a model's own source declares is taken where no flag says otherwise."""

import json
from pathlib import Path

import onnx
import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.declared import completed
from edgekit.job import Order
from edgekit.model import Origin, Shape
from tests import tiny

DECLARED = {"kind": "image", "input": "x", "channels": "GRAY", "crop": [4, 8], "layout": "NCHW"}


def order(model: object, **more: object) -> Order:
    return Order(Origin(str(model)), ("rpi5",), **more)  # type: ignore[arg-type]


def factory(folder: Path, declared: object) -> str:
    (folder / "net.py").write_text(
        f"PREPROCESS = {declared!r}\n\n\ndef make():\n    raise RuntimeError('not called')\n"
    )
    return f"{folder / 'net.py'}:make"


def test_a_factorys_module_declares_preprocessing_and_with_it_the_shape(tmp_path: Path) -> None:
    found = completed(order(factory(tmp_path, DECLARED)))
    assert found.preprocess == DECLARED
    assert found.origin.shapes == (Shape("x", ("batch", 1, 4, 8), "float32"),)


def test_a_flag_stands_above_what_is_declared(tmp_path: Path) -> None:
    said = {**DECLARED, "crop": 6}
    assert completed(order(factory(tmp_path, DECLARED), preprocess=said)).preprocess == said


def test_an_onnx_file_declares_preprocessing_in_its_metadata(tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"preprocess": json.dumps(DECLARED)})
    onnx.save(model, path)
    assert completed(order(path)).preprocess == DECLARED


def test_nothing_is_made_up(tmp_path: Path) -> None:
    found = completed(order(tiny.write_model(tmp_path)))
    assert (found.preprocess, found.origin.shapes) == (None, ())


@pytest.mark.parametrize("declared", [3, "resize"])
def test_a_declaration_that_is_no_table_is_refused(tmp_path: Path, declared: object) -> None:
    with pytest.raises(EdgeKitError, match="no table"):
        completed(order(factory(tmp_path, declared)))


def test_the_shape_of_an_image_left_at_its_shorter_side_is_not_guessed(tmp_path: Path) -> None:
    declared = {key: value for key, value in {**DECLARED, "resize": 8}.items() if key != "crop"}
    assert completed(order(factory(tmp_path, declared))).origin.shapes == ()

"""ONNX files: whole, with data beside them, with other sizes, and spoilt."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit import sources
from edgekit.model import Model, Origin, parse_shape

helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def read(path: Path, *shapes: str) -> Model:
    return sources.read(Origin(str(path), None, tuple(map(parse_shape, shapes))))


def graph(shape: list[Any], weights_as_inputs: bool = False) -> Any:
    """y = relu(x @ w), with sizes baked in for x, for y and between them."""
    weight = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    inputs = [helper.make_tensor_value_info("x", FLOAT, shape)]
    if weights_as_inputs:
        inputs.append(helper.make_tensor_value_info("w", FLOAT, [4, 3]))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    made = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", FLOAT, [shape[0], 3])], [weight],
        value_info=[helper.make_tensor_value_info("h", FLOAT, [shape[0], 3])],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    onnx.save(graph(["n", 4]), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def external(tmp_path: Path) -> Path:
    onnx.save(graph(["n", 4]), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return tmp_path / "m.onnx"


def relocated(path: Path, **entries: str) -> Path:
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_named_size_is_free_and_the_facts_are_counted(plain: Path) -> None:
    model = read(plain)
    assert (str(model.inputs[0]), str(model.outputs[0])) == ("x: float32[?, 4]", "y: float32[?, 3]")
    assert model.axes == {"x": ("n", 4)}
    assert (model.facts.ops, model.facts.parameters, model.facts.bytes) == ({"MatMul": 1, "Relu": 1}, 12, 48)
    assert model.run({"x": np.ones((5, 4), np.float32)})["y"].shape == (5, 3)


def test_weights_that_an_old_file_lists_as_inputs_are_not_asked_for(tmp_path: Path) -> None:
    onnx.save(graph([1, 4], weights_as_inputs=True), tmp_path / "m.onnx")
    assert [spec.name for spec in read(tmp_path / "m.onnx").inputs] == ["x"]


def test_external_data_is_read_and_fingerprinted(external: Path) -> None:
    assert read(external).run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[18, 22, 26]]
    before = sources.fingerprint(Origin(str(external)))
    data = external.with_name("m.data")
    data.write_bytes(data.read_bytes()[:-4] + b"\0\0\0\0")
    assert sources.fingerprint(Origin(str(external))) != before


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "/etc/hostname"}, "outside its folder"),
        ({"location": "../m.data"}, "outside its folder"),
        ({"location": "a/../../m.data"}, "outside its folder"),
        ({"location": "C:\\m.data"}, "outside its folder"),
        ({"location": ""}, "outside its folder"),
        ({"location": "absent.data"}, "is missing"),
        ({"offset": "8"}, "too short"),
        ({"offset": "-8"}, "too short"),
        ({"length": "4"}, "too short"),
        ({"length": "400"}, "too short"),
        ({"length": "many"}, "does not read"),
    ],
)
def test_external_data_that_is_not_right_is_refused(external: Path, entries: dict[str, str], says: str) -> None:
    with pytest.raises(EdgeKitError, match=says):
        read(relocated(external, **entries))
    with pytest.raises(EdgeKitError, match=says):
        sources.fingerprint(Origin(str(external)))


def test_external_data_that_is_a_link_is_refused(external: Path, tmp_path: Path) -> None:
    external.with_name("m.data").rename(tmp_path / "elsewhere")
    external.with_name("m.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EdgeKitError, match="is a link"):
        read(external)


def test_truncated_external_data_is_refused(external: Path) -> None:
    data = external.with_name("m.data")
    data.write_bytes(data.read_bytes()[:20])
    with pytest.raises(EdgeKitError, match="too short"):
        read(external)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused_in_one_line(plain: Path, part: float) -> None:
    plain.write_bytes(plain.read_bytes()[: int(part * plain.stat().st_size)])
    with pytest.raises(EdgeKitError) as caught:
        read(plain)
    assert "\n" not in caught.value.what


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("hello, this is a text")
    with pytest.raises(EdgeKitError, match="no ONNX"):
        read(tmp_path / "m.onnx")


def test_an_input_of_words_is_refused(tmp_path: Path) -> None:
    model = graph([1, 4])
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(EdgeKitError, match="no tensor of numbers"):
        read(tmp_path / "m.onnx")


@pytest.mark.parametrize(("shape", "rows"), [("x=7x4", 7), ("x=batch,4", None)])
def test_baked_sizes_give_way_to_the_users(tmp_path: Path, shape: str, rows: int | None) -> None:
    onnx.save(graph([10, 4]), tmp_path / "m.onnx")
    model = read(tmp_path / "m.onnx", shape)
    assert (model.inputs[0].shape, model.outputs[0].shape) == ((rows, 4), (rows, 3))
    assert model.run({"x": np.ones((7, 4), np.float32)})["y"].shape == (7, 3)
    assert model.name == "m"


def test_new_sizes_keep_external_data(external: Path) -> None:
    assert read(external, "x=2x4").run({"x": np.ones((2, 4), np.float32)})["y"].tolist() == [[18, 22, 26]] * 2


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("z=1x4", "no such input: z"),
        ("x=1x2x4", "has 2 axes, not 3"),
        ("x=1x5", "does not run on x=1x5"),
        ("x=1x4:int64", "is float32, not int64"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(plain: Path, shape: str, says: str) -> None:
    with pytest.raises(EdgeKitError, match=says) as caught:
        read(plain, shape)
    assert caught.value.hint
    assert "\n" not in caught.value.what

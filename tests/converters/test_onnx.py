"""ONNX to ONNX and OpenVINO; and which tensor is which."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Feeds, TensorSpec

from edgekit import converters, sources
from edgekit.converters.matching import difference, example_feeds, match
from edgekit.model import Facts, Model, Origin

helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def file(path: Path, sizes: list[object]) -> Path:
    """Two inputs and two outputs of one shape, the second output with its channels last."""
    nodes = [
        helper.make_node("Sub", ["q", "p"], ["less"]),
        helper.make_node("Transpose", ["less"], ["v"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["p", "q"], ["u"]),
    ]
    ins = [helper.make_tensor_value_info(name, FLOAT, sizes) for name in "pq"]
    outs = [
        helper.make_tensor_value_info("u", FLOAT, sizes),
        helper.make_tensor_value_info("v", FLOAT, [sizes[0], *sizes[2:], sizes[1]]),
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "g", ins, outs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(made, path)
    return path


def source(less: object = np.subtract) -> Model:
    """The same as a model of other names, free in its batch."""

    def run(feeds: Feeds) -> Feeds:
        return {"less": less(feeds["a"], feeds["b"]), "more": feeds["a"] + feeds["b"]}  # type: ignore[operator]

    specs = {name: TensorSpec(name, "float32", (None, 3, 3, 3)) for name in ("a", "b", "less", "more")}
    axes = dict.fromkeys("ab", ("batch", 3, 3, 3))
    inputs, outputs = (specs["a"], specs["b"]), (specs["less"], specs["more"])
    return Model("m", "test", {}, inputs, outputs, axes, run, Facts({}, 0, 0))


def test_tensors_that_look_alike_are_told_apart_by_the_numbers(tmp_path: Path) -> None:
    artifact = match(source(), "onnx", file(tmp_path / "m.onnx", [1, 3, 3, 3]))
    assert [port.inside.name for port in artifact.inputs] == ["q", "p"]
    assert [(port.inside.name, port.order) for port in artifact.outputs] == [("v", (0, 2, 3, 1)), ("u", None)]
    feeds = example_feeds(source(), 5)
    wanted, got = source().run(feeds), artifact.open_model()(feeds)
    assert all(np.allclose(wanted[name], got[name]) for name in wanted)


def test_a_file_with_other_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="answers differently from the source: worst difference"):
        match(source(np.multiply), "onnx", file(tmp_path / "m.onnx", ["n", 3, 3, 3]))


def test_a_file_of_other_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="do not fit"):
        match(source(), "onnx", file(tmp_path / "m.onnx", ["n", 4, 3, 3]))


def test_a_file_that_is_right_at_one_size_only_is_refused(tmp_path: Path) -> None:
    def run(feeds: Feeds) -> Feeds:
        return {"y": feeds["x"] + (0 if len(feeds["x"]) == 2 else 1)}

    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    x, y = (TensorSpec(name, "float32", (None, 3)) for name in "xy")
    model = Model("m", "test", {}, (x,), (y,), {"x": ("n", 3)}, run, Facts({}, 0, 0))
    with pytest.raises(Unsupported, match="right at one size and wrong at another"):
        match(model, "onnx", tmp_path / "m.onnx")


def test_a_length_is_never_fed_in_pieces(tmp_path: Path) -> None:
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 2])],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    x, y = (TensorSpec(name, "float32", (None, None)) for name in "xy")
    model = Model("m", "test", {}, (x,), (y,), {"x": ("n", "t")}, lambda feeds: {"y": feeds["x"]}, Facts({}, 0, 0))
    with pytest.raises(Unsupported, match="do not fit"):
        match(model, "onnx", tmp_path / "m.onnx")


def test_a_nan_is_not_within_tolerance() -> None:
    good, bad = np.ones(3, np.float32), np.array([1, np.nan, 1], np.float32)
    assert difference(good, bad) == np.inf
    assert difference(bad, bad) == 0
    assert difference(good, good[:2]) == np.inf
    assert difference(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.25


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("external", [False, True])
def test_a_model_keeps_its_numbers_and_brings_its_data(tmp_path: Path, format: str, external: bool) -> None:
    weight = onnx.numpy_helper.from_array(np.arange(400, dtype=np.float32).reshape(100, 4), "w")
    ids, out = helper.make_tensor_value_info("ids", INT64, ["n", "t"]), helper.make_tensor_value_info("y", FLOAT, None)
    node = helper.make_node("Gather", ["w", "ids"], ["y"])
    made = helper.make_model(
        helper.make_graph([node], "g", [ids], [out], [weight]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=external, location="m.data", size_threshold=0)
    model = sources.read(Origin(str(tmp_path / "m.onnx")))
    (tmp_path / "out").mkdir()
    (step,) = converters.route(model, format)
    artifact = converters.convert(step, model, tmp_path / "out", lambda words: None)
    for name in ("m.onnx", "m.data"):
        (tmp_path / name).unlink(missing_ok=True)
    answer = artifact.open_model()({"ids": np.array([[0, 99, 5]])})
    assert answer["y"][0, :, 0].tolist() == [0, 396, 20]


def test_what_openvino_lacks_is_said_in_one_line(tmp_path: Path) -> None:
    node = helper.make_node("Unheard", ["x"], ["y"], domain="of.it")
    ends = [helper.make_tensor_value_info(name, FLOAT, [1]) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("of.it", 1)]
    made = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=opsets, ir_version=8)
    onnx.save(made, tmp_path / "m.onnx")
    model = replace(source(), forms={"onnx": tmp_path / "m.onnx"})
    with pytest.raises(Unsupported, match="OpenVINO does not convert") as caught:
        converters.convert("edgekit.converters.onnx_to_openvino", model, tmp_path, lambda words: None)
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_weights_that_an_old_file_lists_among_its_inputs_become_constants(tmp_path: Path) -> None:
    ins = [helper.make_tensor_value_info("x", FLOAT, ["n", 3])]
    ins += [helper.make_tensor_value_info(name, FLOAT, [3]) for name in ("w", "unused")]
    outs = [helper.make_tensor_value_info("y", FLOAT, ["n", 3])]
    held = [onnx.numpy_helper.from_array(np.arange(3, dtype=np.float32), name) for name in ("w", "unused")]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", ins, outs, held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    onnx.save(made, tmp_path / "old.onnx")
    (tmp_path / "made").mkdir()
    model = sources.read(Origin(str(tmp_path / "old.onnx")))
    artifact = converters.convert("edgekit.converters.onnx_to_onnx", model, tmp_path / "made", lambda words: None)
    assert [value.name for value in onnx.load(artifact.path).graph.input] == ["x"]
    feeds = {"x": np.ones((2, 3), np.float32)}
    assert np.array_equal(artifact.open_model()(feeds)["y"], model.run(feeds)["y"])

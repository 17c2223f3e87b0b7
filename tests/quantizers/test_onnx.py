"""The ONNX quantizer on small nets: what it makes is small, loads, answers alike, and says what it is."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.quantizers import Wish, quantize
from edgekit.recipes import Recipe
from tests.quantizers import small


@pytest.mark.slow
def test_int8_of_a_conv_net_answers_like_the_float_one(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    assert small.likeness(source, made) > 0.99
    assert made.path.name == "model.onnx"
    assert [path.name for path in made.files()] == ["model.onnx"]
    assert made.precision == "int8"
    assert any("int8 holds 100 % of the weights" in note for note in made.notes)
    assert made.inputs == source.inputs


@pytest.mark.slow
def test_the_last_layer_answers_in_float_so_that_scores_do_not_tie(tmp_path: Path) -> None:
    source = small.dense_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    answers = [made.open_model()(feeds)["y"].ravel() for feeds in small.samples(source, 64)]
    assert len(np.unique(np.round(np.concatenate(answers), 7))) > 256


def test_reduce_range_keeps_weights_within_seven_bits(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    for reduce_range, least, most in ((False, 100, 127), (True, 32, 64)):
        made = small.quantized(source, "int8", tmp_path / f"q{reduce_range}", reduce_range=reduce_range)
        weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(str(made.path)).graph.initializer]
        largest = max(int(np.abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8 and w.ndim == 4)
        assert least < largest <= most


def test_hard_swish_becomes_integer_through_and_through(tmp_path: Path) -> None:
    source = small.hard_swish_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    ops = Counter(node.op_type for node in onnx.load(str(made.path)).graph.node)
    assert not ops.keys() & {"HardSigmoid", "HardSwish", "ReduceMean"}
    assert small.likeness(source, made) > 0.98


def test_rewriting_hard_sigmoid_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small.hard_swish_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    monkeypatch.setattr("edgekit.quantizers.onnx_fusible.integer_hard_sigmoid", lambda graph: None)
    plain = small.quantized(source, "int8", tmp_path / "plain")
    assert "HardSigmoid" in {node.op_type for node in onnx.load(str(plain.path)).graph.node}
    for feeds in small.samples(source, 8, seed=3):
        one, other = (artifact.open_model()(feeds)["y"] for artifact in (made, plain))
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(one).max())


def test_of_a_net_with_attention_what_has_weights_is_integer_and_the_rest_float(tmp_path: Path) -> None:
    source = small.token_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    assert any("int8 holds 100 % of the weights" in note for note in made.notes)
    graph = onnx.load(str(made.path)).graph
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert [len(rounded.intersection(node.input)) for node in products] == [2, 2, 2, 0, 0]
    assert small.likeness(source, made) > 0.99


def test_what_nobody_uses_any_more_is_not_left_in_the_file(tmp_path: Path) -> None:
    made = small.quantized(small.hard_swish_net(tmp_path / "a.onnx"), "int8", tmp_path / "q")
    graph = onnx.load(str(made.path)).graph
    used = {name for node in graph.node for name in node.input} | {"y"}
    assert not [node.name for node in graph.node if not used.intersection(node.output)]


def test_a_norm_over_several_axes_stays_in_float_and_the_rest_is_int8(tmp_path: Path) -> None:
    net = small.wide_norm_net(tmp_path / "float.onnx")
    made = small.quantized(net, "int8", tmp_path / "int8")
    assert small.likeness(made, net) > 0.98


def test_an_lstm_is_not_called_int8_when_nothing_of_it_would_be(tmp_path: Path) -> None:
    source = small.lstm_net(tmp_path / "a.onnx")
    with pytest.raises(Unsupported, match="LSTM") as refused:
        small.quantized(source, "int8", tmp_path / "q")
    assert "int8-weights" in refused.value.hint


@pytest.mark.parametrize("net", [small.conv_net, small.dense_net, small.token_net, small.lstm_net])
def test_int8_weights_are_small_and_answer_alike(net: small.MakeNet, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = net(tmp_path / "a" / "a.onnx")
    made = small.quantized(source, "int8-weights", tmp_path / "q")
    assert small.likeness(source, made) > 0.999
    assert made.size() < 0.6 * source.size()


def test_int4_weights_of_embeddings_and_products(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = small.token_net(tmp_path / "a" / "a.onnx")
    made = small.quantized(source, "int4-weights", tmp_path / "q")
    assert small.likeness(source, made) > 0.95
    assert made.size() < 0.3 * source.size()


def test_int4_weights_of_a_conv_net_are_refused_with_the_nearest_thing(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    with pytest.raises(Unsupported, match="Conv") as refused:
        small.quantized(source, "int4-weights", tmp_path / "q")
    assert refused.value.hint == "use --precision int8-weights"


@pytest.mark.parametrize("net", [small.conv_net, small.token_net, small.lstm_net])
def test_float16_keeps_float32_inputs_and_outputs(net: small.MakeNet, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = net(tmp_path / "a" / "a.onnx")
    made = small.quantized(source, "float16", tmp_path / "q")
    assert small.likeness(source, made) > 0.999
    assert made.size() < 0.8 * source.size()


def test_what_is_quantized_already_is_not_quantized_again(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    with pytest.raises(Unsupported, match="already quantized") as refused:
        small.quantized(made, "int8-weights", tmp_path / "again")
    assert "--precision int8," in refused.value.hint
    half = small.quantized(source, "float16", tmp_path / "half")
    with pytest.raises(Unsupported, match="float16") as refused:
        small.quantized(half, "int8", tmp_path / "third")
    assert "--precision float16," in refused.value.hint


def test_int8_without_data_says_what_to_give(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    with pytest.raises(EdgeKitError, match="needs calibration data") as refused:
        quantize(source, Wish(Recipe("int8")), tmp_path, lambda words: None)
    assert "--data" in refused.value.hint


def test_a_fixed_batch_is_filled_by_repeating_the_sample(tmp_path: Path) -> None:
    fixed = small.conv_net(tmp_path / "a.onnx", batch=4)
    free = small.conv_net(tmp_path / "b.onnx")
    source = small.with_user_of(fixed, free)
    made = small.quantized(source, "int8", tmp_path / "q")
    assert small.likeness(free, made) > 0.99


def test_an_old_opset_is_brought_up_to_what_per_channel_needs(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx", opset=11)
    for precision in ("int8", "int8-weights", "float16"):
        assert small.likeness(source, small.quantized(source, precision, tmp_path / precision)) > 0.99


def test_weights_beside_the_model_are_taken_along(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    (tmp_path / "b").mkdir()
    path = tmp_path / "b" / "b.onnx"
    onnx.save(onnx.load(str(source.path)), str(path), save_as_external_data=True, location="b.data", size_threshold=0)
    beside = small.artifact("onnx", path)
    for precision in ("int8", "int8-weights", "float16"):
        made = small.quantized(beside, precision, tmp_path / precision)
        assert [file.name for file in made.files()] == ["model.onnx"]
        assert small.likeness(source, made) > 0.99


def test_integer_io_is_refused_with_the_format_that_has_it(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    with pytest.raises(Unsupported) as refused:
        small.quantized(source, "int8", tmp_path / "q", integer_io=True)
    assert "tflite" in refused.value.hint


def test_a_constant_that_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    net = small.Net(["batch", 8])
    large = net.add("Mul", "x", net.constant(np.array(1e6, np.float32)))
    source = net.save(net.dense(large, 8, 2), ["batch", 2], tmp_path / "a.onnx")
    with pytest.raises(Unsupported, match="float16's range"):
        small.quantized(source, "float16", tmp_path / "q")


def test_a_model_whose_shapes_cannot_be_inferred_leaves_nothing_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.quantizers.onnx_prepared import prepared

    unknown = onnx.helper.make_node("Reshape", ["x", "shape"], ["y"])
    graph = onnx.helper.make_graph(
        [unknown, onnx.helper.make_node("Concat", ["y", "x"], ["z"], axis=1)],
        "g",
        [
            onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None),
            onnx.helper.make_tensor_value_info("shape", onnx.TensorProto.INT64, None),
        ],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    prepared(Path("m.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]

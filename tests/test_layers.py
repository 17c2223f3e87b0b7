"""Looking inside artifacts: which layer is wrong and by how much, and which kernels run."""

import contextlib
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.layers import Cost, Layer, errors, profile
from edgekit.layers.sums import Moments, Step, add, costs, layers
from edgekit.model import Artifact
from tests.quantizers import small

WEIGHTED = ("Conv", "Gemm", "MatMul", "CONV", "FULLY")


def _onnx(folder: Path) -> Artifact:
    return small.hard_swish_net(folder / "float.onnx")


def _openvino(folder: Path) -> Artifact:
    import openvino as ov

    source = _onnx(folder)
    (folder / "float").mkdir()
    ov.save_model(ov.convert_model(source.path), folder / "float" / "model.xml", compress_to_fp16=False)
    return small.artifact("openvino", folder / "float" / "model.xml")


def _tflite(folder: Path) -> Artifact:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import litert_torch
        import torch
        from torch import nn

        torch.manual_seed(0)
        body = [nn.Conv2d(3, 16, 3, padding=1), nn.Hardswish(), nn.Conv2d(16, 16, 3, padding=1, groups=16)]
        body += [nn.Hardswish(), nn.Conv2d(16, 32, 1), nn.Hardswish(), nn.Conv2d(32, 16, 1)]
        net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
        litert_torch.convert(net, (torch.randn(1, 3, 16, 16),)).export(str(folder / "float.tflite"))
    return small.artifact("tflite", folder / "float.tflite")


MAKE = {"onnx": _onnx, "openvino": _openvino, "tflite": _tflite}
Pair = tuple[Artifact, Artifact]


@pytest.fixture(
    scope="module",
    params=["onnx", pytest.param("openvino", marks=pytest.mark.slow), pytest.param("tflite", marks=pytest.mark.slow)],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A depthwise net with hard-swish in float, and its int8 file."""
    folder = tmp_path_factory.mktemp(request.param)
    source = MAKE[request.param](folder)
    return source, small.quantized(source, "int8", folder / "int8")


@pytest.mark.slow
def test_every_weighted_operator_is_compared_in_the_order_of_the_graph(pair: Pair) -> None:
    source, made = pair
    found = errors(made, source, list(small.samples(source, 4, seed=5)))
    assert [layer.place for layer in found] == list(range(len(found)))
    assert sum(any(kind in layer.op for kind in WEIGHTED) for layer in found) == (5 if made.format == "tflite" else 10)
    assert all(0 < layer.error < 0.2 and layer.cosine > 0.98 for layer in found)
    assert found[0].inherited == 0 < found[0].added


def test_the_last_layer_is_as_far_off_as_the_answers_of_the_engine_itself(pair: Pair) -> None:
    source, made = pair
    feeds, name = list(small.samples(source, 6, seed=5)), source.outputs[0].spec.name
    real, rounded = (np.concatenate([artifact.open_model()(feed)[name] for feed in feeds]) for artifact in pair)
    last = errors(made, source, feeds)[-1]
    assert last.error == pytest.approx(np.linalg.norm(rounded - real) / np.linalg.norm(real), rel=1e-3)


@pytest.mark.parametrize("place", [1, -1])
def test_a_ruined_layer_is_the_one_that_adds_most(pair: Pair, place: int, tmp_path: Path) -> None:
    source, made = pair
    feeds = list(small.samples(source, 4, seed=5))
    ruined = [layer for layer in errors(made, source, feeds) if "conv" in layer.op.lower()][place]
    found = errors(RUIN[made.format](made, ruined.name, tmp_path), source, feeds)
    worst = max(found, key=lambda layer: layer.added)
    assert (worst.place, worst.name) == (ruined.place, ruined.name)
    assert worst.error > 5 * ruined.error


def _ruin_onnx(made: Artifact, name: str, folder: Path) -> Artifact:
    model = onnx.load(str(made.path))
    makers = {out: node for node in model.graph.node for out in node.output}
    weight = makers[next(node for node in model.graph.node if node.name == name).input[1]].input[0]
    tensor = next(one for one in model.graph.initializer if one.name == weight)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(onnx.numpy_helper.to_array(tensor), 1, 0), weight))
    onnx.save(model, folder / "model.onnx")
    return replace(made, path=folder / "model.onnx")


def _ruin_openvino(made: Artifact, name: str, folder: Path) -> Artifact:
    import openvino as ov

    model = ov.Core().read_model(made.path)
    node = next(op for op in model.get_ops() if op.get_friendly_name() == name).input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    other = ov.opset13.constant(np.roll(np.array(node.data), 1, 0))
    for target in node.output(0).get_target_inputs():
        target.replace_source_output(other.output(0))
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return replace(made, path=folder / "model.xml")


def _ruin_tflite(made: Artifact, name: str, folder: Path) -> Artifact:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(made.path.read_bytes()))
    main = model.subgraphs[0]
    op = next(op for op in main.operators if main.tensors[op.outputs[0]].name.decode() == name)
    buffer = model.buffers[main.tensors[op.inputs[1]].buffer]
    data = np.array(buffer.data, np.uint8)
    buffer.data = np.roll(data, len(data) // 2 + 1)
    (folder / "model.tflite").write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return replace(made, path=folder / "model.tflite")


RUIN = {"onnx": _ruin_onnx, "openvino": _ruin_openvino, "tflite": _ruin_tflite}


@pytest.mark.parametrize("precision", ["float16", "int8-weights"])
def test_weights_alone_are_compared_too(pair: Pair, precision: str, tmp_path: Path) -> None:
    source = pair[0]
    made = small.quantized(source, precision, tmp_path / precision)
    found = errors(made, source, list(small.samples(source, 2, seed=5)))
    assert sum(any(kind in layer.op for kind in WEIGHTED) for layer in found) == (5 if made.format == "tflite" else 10)
    assert 0 < max(layer.error for layer in found) < 0.05


def test_a_file_beside_itself_has_no_error(pair: Pair) -> None:
    source = pair[0]
    found = errors(source, source, list(small.samples(source, 2)))
    assert {layer.error for layer in found} == {0.0}
    assert min(layer.cosine for layer in found) == pytest.approx(1.0)


@pytest.mark.parametrize("net", [small.conv_net, small.token_net, small.dense_net, small.wide_norm_net])
def test_the_layers_of_onnx_nets_bear_the_names_of_their_nodes(net: small.MakeNet, tmp_path: Path) -> None:
    source = net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    found = errors(made, source, list(small.samples(source, 2)))
    nodes = [(node.name, node.op_type) for node in onnx.load(str(source.path)).graph.node]
    assert [one for one in nodes if one in [(layer.name, layer.op.split("+")[0]) for layer in found]] == [
        (layer.name, layer.op.split("+")[0]) for layer in found
    ]
    assert {name for name, op in nodes if op in ("Conv", "Gemm", "MatMul")} <= {layer.name for layer in found}


def test_a_convolution_whose_relu_was_taken_off_is_compared_behind_it(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q")
    assert "Relu" not in {node.op_type for node in onnx.load(str(made.path)).graph.node}
    found = errors(made, source, list(small.samples(source, 4)))
    assert [layer.op for layer in found][:2] == ["Conv+Relu", "Conv+Relu"]
    assert max(layer.error for layer in found) < 0.05


def test_a_fixed_batch_is_filled_by_repeating_the_sample(tmp_path: Path) -> None:
    fixed, free = small.conv_net(tmp_path / "a.onnx", batch=4), small.conv_net(tmp_path / "b.onnx")
    source = small.with_user_of(fixed, free)
    made = small.quantized(source, "int8", tmp_path / "q")
    assert max(layer.error for layer in errors(made, source, list(small.samples(free, 2)))) < 0.05
    assert (
        Counter({cost.kernel: cost.count for cost in profile(made, next(small.samples(free, 1)))})["QLinearConv"] == 2
    )


def test_the_profile_tells_what_runs_in_integers(pair: Pair) -> None:
    source, made = pair
    feeds = next(small.samples(source, 1))
    for artifact, integer in ((source, False), (made, True)):
        found = profile(artifact, feeds)
        convolutions = [cost for cost in found if "conv" in cost.kernel.lower()]
        assert sum(cost.count for cost in convolutions) == (4 if made.format == "tflite" else 9)
        assert {cost.integer for cost in convolutions} == {integer}
        assert any(cost.kernel.upper().startswith(("QUANTIZE", "FAKEQUANTIZE")) for cost in found) == integer
        if made.format == "tflite":
            assert all(np.isnan(cost.ms) for cost in found)
        else:
            assert [cost.ms for cost in found] == sorted((cost.ms for cost in found), reverse=True)
            assert found[0].ms > 0


@pytest.mark.slow
def test_operators_that_xnnpack_leaves_out_are_told_apart(tmp_path: Path) -> None:
    source = _tflite(tmp_path)
    made = small.quantized(source, "int8", tmp_path / "q", integer_io=True)
    found = {cost.kernel: cost.count for cost in profile(made, next(small.samples(source, 1)))}
    assert found["HARD_SWISH (no XNNPACK)"] == 3
    assert found["DELEGATE"] == 4
    assert {cost.kernel: cost.count for cost in profile(source, next(small.samples(source, 1)))}["DELEGATE"] == 1


def test_sums_over_feeds_are_the_norms_of_all_of_them_together() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 5))
    sums: Moments = {}
    for a, b in zip(real, made, strict=True):
        add(sums, "t", a, b)
    (layer,) = layers([Step("n", "Conv", ("x",), "t")], sums)
    assert layer.error == pytest.approx(np.linalg.norm(made - real) / np.linalg.norm(real))
    assert layer.cosine == pytest.approx(np.vdot(real, made) / np.linalg.norm(real) / np.linalg.norm(made))


def test_masks_do_not_count_and_a_nan_is_an_infinite_error() -> None:
    sums: Moments = {}
    add(sums, "masked", np.array([1.0, -np.inf]), np.array([1.0, -3.0]))
    add(sums, "broken", np.array([1.0, 2.0]), np.array([1.0, np.nan]))
    add(sums, "zero", np.zeros(2), np.zeros(2))
    add(sums, "wider", np.ones(2), np.ones(3))
    steps = [Step(name, "Add", ("x",), name) for name in ("masked", "broken", "zero", "wider")]
    assert [(one.name, one.error, one.cosine) for one in layers(steps, sums)] == [
        ("masked", 0.0, 1.0),
        ("broken", float("inf"), 0.0),
        ("zero", 0.0, 1.0),
    ]


def test_what_a_layer_inherits_comes_past_operators_that_were_not_compared() -> None:
    sums: Moments = {"a": np.array([0.04, 1, 1, 1]), "d": np.array([0.25, 1, 1, 1])}
    steps = [
        Step("first", "Conv", ("x",), "a"),
        Step("moved", "Reshape", ("a",), "b", computes=False),
        Step("second", "Conv", ("b",), "c"),
        Step("third", "Relu", ("c",), "d"),
    ]
    found = layers(steps, sums)
    assert found == (Layer(0, "first", "Conv", 0.2, 1.0, 0.0), Layer(1, "second", "Conv+Relu", 0.5, 1.0, 0.2))
    assert found[1].added == pytest.approx(0.3)


def test_costs_are_summed_by_kernel_and_sorted_by_time() -> None:
    rows = [("Add", False, 1.0), ("Conv", True, 2.0), ("Add", False, 2.0), ("Add", True, 0.5)]
    assert costs(rows) == (Cost("Add", False, 2, 3.0), Cost("Conv", True, 1, 2.0), Cost("Add", True, 1, 0.5))


def test_an_int8_file_beside_itself_has_no_error_either(pair: Pair) -> None:
    made = pair[1]
    found = errors(made, made, list(small.samples(made, 2)))
    assert found
    assert {layer.error for layer in found} == {0.0}


def test_a_float16_file_is_read_though_its_nodes_are_out_of_order(tmp_path: Path) -> None:
    half = small.quantized(small.conv_net(tmp_path / "a.onnx"), "float16", tmp_path / "half")
    graph = onnx.load(str(half.path)).graph
    assert graph.node[0].input[0] not in {info.name for info in graph.input}
    found = errors(half, half, list(small.samples(half, 2)))
    assert [layer.op for layer in found if layer.op in ("Conv", "Gemm")] == ["Conv", "Conv", "Gemm"]

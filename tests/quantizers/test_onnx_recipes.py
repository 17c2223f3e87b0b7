"""What each part of a recipe does to ONNX int8: mended graphs answer as before, ruined nets are rescued, nothing is
calibrated twice, operators stay in float by name."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds
from onnx import numpy_helper

from edgekit.model import Artifact
from edgekit.quantizers import Wish, quantize, sensitivity
from edgekit.quantizers.onnx_equalize import equalize
from edgekit.quantizers.onnx_prepared import digest, ready
from edgekit.quantizers.onnx_ranges import Calibrated, activation_ranges, chosen_range
from edgekit.recipes import RANGES, Recipe
from tests.quantizers import small
from tests.quantizers.ruined import outlier_net, uneven_net


def answers(artifact: Artifact, count: int = 64) -> Array:
    """[count, classes] on samples that calibration did not see."""
    run, name = artifact.open_model(), artifact.outputs[0].spec.name
    return np.concatenate([run(feeds)[name] for feeds in small.samples(artifact, count, seed=7)])


def loss(source: Artifact, made: Artifact) -> float:
    """The squared error in parts of the float answers' square."""
    wanted, found = answers(source), answers(made)
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


def agreement(source: Artifact, made: Artifact) -> float:
    """How often the best class is the float file's."""
    return float(np.mean(answers(source).argmax(1) == answers(made).argmax(1)))


@pytest.mark.slow
@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_choice_of_ranges_answers_like_the_float_file(ranges: str, per_channel: bool, tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q", ranges=ranges, per_channel=per_channel)
    assert small.likeness(source, made) > 0.99


def test_least_squared_error_and_percentile_cut_off_what_is_far_out() -> None:
    counted, edges = np.histogram(np.random.default_rng(0).standard_normal(1_000_000), 2048, (-100.1, 100.1))
    counted[-1] += 1
    low, high = np.float32(-5), np.float32(100)
    for how, most in (("percentile", 6), ("mse", 60)):
        lowest, highest = chosen_range(Recipe("int8", how), counted, low, high)
        assert -5.2 <= lowest < -2
        assert 2 < highest < most
    values, steps = (edges[1:] + edges[:-1]) / 2, (highest - lowest) / 255
    best, full = (
        float((counted * (values - np.clip(np.rint(values / step) * step, least, top)) ** 2).sum())
        for step, least, top in ((steps, lowest, highest), (105 / 255, -5.0, 100.0))
    )
    assert best < full / 2


@pytest.mark.slow
def test_what_stays_within_percentile_ranges_is_what_the_recipe_says(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")

    def reach(percentile: float) -> float:
        """The largest number that the integers of the input reach."""
        folder = tmp_path / f"{percentile}"
        made = small.quantized(source, "int8", folder, ranges="percentile", percentile=percentile)
        graph = onnx.load(str(made.path)).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x")
        return float(constants[first.input[1]] * (255 - int(constants[first.input[2]])))

    values = np.concatenate([feeds["x"].ravel() for feeds in small.samples(source, 16)])
    for percentile in (99.9, 98.0, 80.0):
        assert reach(percentile) == pytest.approx(np.percentile(values, 50 + percentile / 2), rel=0.02)


def test_one_scale_a_tensor_is_one_scale_a_tensor(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    for per_channel, sizes in ((True, {16, 32}), (False, {1})):
        made = small.quantized(source, "int8", tmp_path / f"{per_channel}", per_channel=per_channel)
        graph = onnx.load(str(made.path)).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
        found = {constants[node.input[1]].size for node in weights if constants[node.input[0]].ndim == 4}
        assert found == sizes


def test_what_is_kept_in_float_is_float(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    made = small.quantized(source, "int8", tmp_path / "q", keep=("n0",))
    graph = onnx.load(str(made.path)).graph
    back = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convs = {node.name: node for node in graph.node if node.op_type == "Conv"}
    assert not back & set(convs["n0"].input)
    assert set(convs["n2"].input) <= back


def test_channels_a_thousandfold_uneven_ruin_int8_and_equalization_wins_it_back(tmp_path: Path) -> None:
    source = uneven_net(tmp_path / "a.onnx")
    plain = small.quantized(source, "int8", tmp_path / "plain")
    mended = small.quantized(source, "int8", tmp_path / "mended", equalize=True)
    assert agreement(source, plain) < 0.2  # 0 of 64 answers; squared error .99
    assert agreement(source, mended) > 0.95  # 64 of 64; squared error .0003
    assert loss(source, mended) < loss(source, plain) / 20


def test_outliers_behind_a_norm_ruin_int8_and_smoothing_wins_it_back(tmp_path: Path) -> None:
    source = outlier_net(tmp_path / "a.onnx")
    plain = small.quantized(source, "int8", tmp_path / "plain")
    mended = small.quantized(source, "int8", tmp_path / "mended", smooth=True)
    assert agreement(source, plain) < 0.5  # 20 of 64 answers; squared error .93
    assert agreement(source, mended) > 0.95  # 64 of 64; squared error .001
    assert loss(source, mended) < loss(source, plain) / 20


@pytest.mark.parametrize("decomposed", [False, True])
def test_smoothing_goes_into_the_norm_and_adds_no_operator(decomposed: bool, tmp_path: Path) -> None:
    source = outlier_net(tmp_path / "a.onnx", decomposed)
    made = small.quantized(source, "int8", tmp_path / "q", smooth=True)
    assert not [node for node in onnx.load(str(made.path)).graph.node if node.name.endswith("_smoothing")]
    assert agreement(source, made) > 0.95


def test_outliers_that_others_use_too_get_a_multiplication_in_float(tmp_path: Path) -> None:
    net = small.Net(["batch", 64])
    factor = np.where(np.arange(64) < 4, 200, 1).astype(np.float32)
    large = net.add("Mul", net.add("Tanh", "x"), net.constant(factor))
    weight = net.random.standard_normal((64, 32)).astype(np.float32) / factor[:, None] / 8
    product = net.add("MatMul", large, net.constant(weight))
    x = net.add("Concat", product, net.add("Tanh", large), axis=1)
    source = net.save(net.dense(x, 96, 5), ["batch", 5], tmp_path / "a.onnx")
    plain = small.quantized(source, "int8", tmp_path / "plain")
    made = small.quantized(source, "int8", tmp_path / "q", smooth=True)
    assert [node for node in onnx.load(str(made.path)).graph.node if node.name.endswith("_smoothing")]
    assert loss(source, made) < loss(source, plain) / 5


@pytest.mark.parametrize("net", [small.conv_net, uneven_net])
def test_equalizing_changes_no_answer(net: small.MakeNet, tmp_path: Path) -> None:
    source = net(tmp_path / "a.onnx")
    path = tmp_path / "equalized.onnx"
    onnx.save(equalize(ready(source.path)), str(path))
    wanted = answers(source)
    np.testing.assert_allclose(answers(replace(source, path=path)), wanted, atol=1e-5 * np.abs(wanted).max())


def test_nothing_to_equalize_smooth_or_correct_is_said(tmp_path: Path) -> None:
    net = small.Net(["batch", 3, 8, 8])
    x = net.add(
        "Clip", net.conv("x", 3, 8), net.constant(np.array(0, np.float32)), net.constant(np.array(6, np.float32))
    )
    x = net.add("Conv", x, net.weight(4, 8, 3, 3), kernel_shape=[3, 3])
    clipped = net.save(net.add("Sigmoid", x), ["batch", 4, 6, 6], tmp_path / "a.onnx")
    with pytest.raises(Unsupported, match="nothing to equalize"):
        small.quantized(clipped, "int8", tmp_path / "1", equalize=True)
    with pytest.raises(Unsupported, match="nothing to smooth"):
        small.quantized(clipped, "int8", tmp_path / "2", smooth=True)
    net = small.Net(["batch", 16])
    bare = net.save(net.add("MatMul", "x", net.weight(16, 8)), ["batch", 8], tmp_path / "b.onnx")
    with pytest.raises(Unsupported, match="no bias to correct"):
        small.quantized(bare, "int8", tmp_path / "3", correct_bias=True)


def test_corrected_biases_lose_a_fifth_of_what_rounding_costs(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    coarse: dict[str, Any] = {"per_channel": False, "reduce_range": True}
    plain = small.quantized(source, "int8", tmp_path / "plain", **coarse)
    made = small.quantized(source, "int8", tmp_path / "made", correct_bias=True, **coarse)
    assert loss(source, made) < loss(source, plain) / 5  # 1.8e-5 and 2.7e-4


def test_the_bias_added_after_a_product_is_corrected_too(tmp_path: Path) -> None:
    net = small.Net(["batch", 6, 32])
    x = net.add("Relu", net.add("Add", net.add("MatMul", "x", net.weight(32, 64)), net.weight(64, scale=0.1)))
    x = net.add("Add", net.add("MatMul", x, net.weight(64, 8)), net.weight(8, scale=0.1))
    source = net.save(x, ["batch", 6, 8], tmp_path / "a.onnx")
    plain = small.quantized(source, "int8", tmp_path / "plain", reduce_range=True)
    made = small.quantized(source, "int8", tmp_path / "made", reduce_range=True, correct_bias=True)
    wanted = answers(source).mean(axis=(0, 1))
    far = [np.abs(answers(one).mean(axis=(0, 1)) - wanted).mean() for one in (plain, made)]
    assert far[1] < far[0]


def test_a_second_recipe_on_the_same_file_does_not_calibrate_again(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    drawn = [0]

    def counted() -> Iterator[Feeds]:
        for feeds in small.samples(source):
            drawn[0] += 1
            yield feeds

    def draws(**recipe: Any) -> int:
        drawn[0] = 0
        folder = tmp_path / "-".join(["q", *recipe, *map(str, recipe.values())])
        folder.mkdir()
        wish = Wish(Recipe("int8", **recipe), counted, 16, statistics=tmp_path / "statistics")
        made = quantize(source, wish, folder, lambda words: None)
        assert small.likeness(source, made) > 0.98
        return drawn[0]

    assert draws() >= 16
    assert draws(reduce_range=True) <= 3
    assert draws(ranges="percentile") >= 16
    assert draws(ranges="percentile", percentile=99.5) <= 3
    assert draws(ranges="mse") <= 3
    assert draws(equalize=True) >= 16
    assert not list((tmp_path / "statistics").glob(".*"))
    for path in (tmp_path / "statistics").iterdir():
        path.write_bytes(b"torn")
    assert draws(ranges="minmax", per_channel=False) >= 16


@pytest.mark.slow
def test_the_prepared_graph_is_the_same_in_another_process(tmp_path: Path) -> None:
    source = small.hard_swish_net(tmp_path / "a.onnx")
    code = "import sys, pathlib; from edgekit.quantizers.onnx_prepared import *; "
    code += "print(digest(ready(pathlib.Path(sys.argv[1]))))"
    other = subprocess.run([sys.executable, "-c", code, str(source.path)], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(ready(source.path))


def test_groups_are_the_operators_in_order_and_the_same_each_time(tmp_path: Path) -> None:
    source = uneven_net(tmp_path / "a.onnx")
    (tmp_path / "scratch").mkdir()
    wish = replace(small.wish(source, "int8"), statistics=tmp_path / "statistics")
    groups = sensitivity(source, wish, tmp_path / "scratch", lambda words: None)
    again = sensitivity(source, wish, tmp_path / "scratch", lambda words: None)
    assert groups == again
    order = [node.name for node in ready(source.path).graph.node]
    names = [name for group in groups for name in group.operators]
    assert len(groups) <= 12
    assert len(set(names)) == len(names)
    assert [order.index(group.operators[0]) for group in groups] == sorted(
        order.index(group.operators[0]) for group in groups
    )
    assert all(np.isfinite(group.error) for group in groups)


def test_the_group_that_is_ruined_is_told_and_helps_when_it_is_kept(tmp_path: Path) -> None:
    net = small.Net(["batch", 32])
    x = net.add("Relu", net.dense("x", 32, 256))
    factor = np.where(np.arange(32) % 8 == 0, 1000, 1).astype(np.float32)
    uneven = net.random.standard_normal((32, 256)).astype(np.float32) / 11 * factor[:, None]
    x = net.add("Sigmoid", net.add("Mul", net.add("Gemm", x, net.constant(uneven), transB=1), net.constant(1 / factor)))
    source = net.save(net.dense(net.add("Relu", net.dense(x, 32, 512)), 512, 5), ["batch", 5], tmp_path / "a.onnx")
    groups = sensitivity(source, small.wish(source, "int8"), tmp_path, lambda words: None)
    worst = max(groups, key=lambda group: group.error)
    assert "n2" in worst.operators  # the uneven Gemm and what follows it
    plain = small.quantized(source, "int8", tmp_path / "plain")
    mended = small.quantized(source, "int8", tmp_path / "mended", keep=worst.operators)
    assert loss(source, mended) < loss(source, plain) / 10


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")
    code = """
import resource, sys, pathlib
from edgekit.quantizers import Wish, quantize
from edgekit.recipes import Recipe
from tests.quantizers import small
source, count, folder = small.artifact("onnx", pathlib.Path(sys.argv[1])), int(sys.argv[2]), pathlib.Path(sys.argv[3])
folder.mkdir()
wish = Wish(Recipe("int8", ranges="mse"), lambda: small.samples(source, count), count)
quantize(source, wish, folder, lambda words: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""
    peaks = []
    for count in (16, 1500):
        command = [sys.executable, "-c", code, str(source.path), str(count), str(tmp_path / str(count))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 30  # MB; all tensors of 1,500 samples are 150 MB


def test_tiny_first_samples_do_not_make_endless_histograms(tmp_path: Path) -> None:
    source = small.conv_net(tmp_path / "a.onnx")

    def growing() -> Iterator[Feeds]:
        for scale, feeds in zip((1e-7, 1.0, 1e3), small.samples(source, 3), strict=True):
            yield {name: value * np.float32(scale) for name, value in feeds.items()}

    from edgekit.quantizers.feeding import calibration

    samples = calibration(source, Wish(Recipe("int8", ranges="mse"), growing, 3))
    found = activation_ranges(Calibrated(ready(source.path), samples, None, lambda words: None), Recipe("int8", "mse"))
    assert found["x"][1] > 1000

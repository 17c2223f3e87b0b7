"""The OpenVINO quantizer follows its recipe: ranges, granularity, what is mended first, and what stays in float."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.model import Artifact
from edgekit.quantizers import Wish, quantize, sensitivity
from edgekit.quantizers.openvino_percentile import histograms_cut_at
from edgekit.quantizers.openvino_static import MOST, Samples
from edgekit.recipes import Recipe
from tests.quantizers import small
from tests.quantizers.test_openvino import converted

pytestmark = pytest.mark.slow


def uneven_net(path: Path, relu: bool = True) -> Artifact:
    """Two convolutions and a dense layer on [batch, 3, 16, 16]; between the two, channels from 1 to 300 in size."""
    net = small.Net(["batch", 3, 16, 16])
    sizes = np.geomspace(1, 300, 32, dtype=np.float32)
    first = net.random.standard_normal((32, 3, 3, 3)).astype(np.float32) * 0.27 * sizes[:, None, None, None]
    bias = net.random.standard_normal(32).astype(np.float32) * 0.1 * sizes
    x = net.add("Conv", "x", net.constant(first), net.constant(bias), pads=[1] * 4, kernel_shape=[3, 3])
    x = net.add("Relu", x) if relu else x
    second = net.random.standard_normal((32, 32, 1, 1)).astype(np.float32) * 0.25 / sizes[:, None, None]
    x = net.add("Relu", net.add("Conv", x, net.constant(second), net.weight(32, scale=0.1), kernel_shape=[1, 1]))
    x = net.add("Flatten", net.add("MaxPool", x, kernel_shape=[4, 4], strides=[4, 4]))
    return net.save(net.dense(x, 512, 10), ["batch", 10], path)


def wide_net(path: Path) -> Artifact:
    """One convolution on [batch, 3, 128, 128]."""
    net = small.Net(["batch", 3, 128, 128])
    return net.save(net.add("Relu", net.conv("x", 3, 4)), ["batch", 4, 128, 128], path)


def biasless_net(path: Path) -> Artifact:
    """A convolution without a bias, on [batch, 3, 8, 8]."""
    net = small.Net(["batch", 3, 8, 8])
    x = net.add("Relu", net.add("Conv", "x", net.weight(8, 3, 3, 3), kernel_shape=[3, 3]))
    return net.save(x, ["batch", 8, 6, 6], path)


def agreement(one: Artifact, other: Artifact) -> float:
    """How often the best class is the same, over 200 samples that calibration did not see."""
    run, again = one.open_model(), other.open_model()
    return float(np.mean([run(x)["y"].argmax() == again(x)["y"].argmax() for x in small.samples(one, 200, seed=7)]))


def made(source: Artifact, folder: Path, **recipe: Any) -> Artifact:
    """The source in int8 by a recipe."""
    return small.quantized(source, "int8", folder, **recipe)


def test_smoothing_wins_back_what_uneven_channels_cost(tmp_path: Path) -> None:
    """Measured: .79 of the best classes are float's by minmax, .975 smoothed."""
    source = converted(uneven_net, tmp_path)
    plain, mended = made(source, tmp_path / "plain"), made(source, tmp_path / "mended", smooth=True)
    assert agreement(source, plain) < 0.85
    assert agreement(source, mended) > 0.95


def test_equalizing_wins_back_what_uneven_channels_cost(tmp_path: Path) -> None:
    """Measured: .665 of the best classes are float's by minmax, .985 equalized."""
    source = converted(lambda path: uneven_net(path, relu=False), tmp_path)
    plain, mended = made(source, tmp_path / "plain"), made(source, tmp_path / "mended", equalize=True)
    assert agreement(source, plain) < 0.85
    assert agreement(source, mended) > 0.95


def test_a_product_behind_a_mean_is_not_smoothed_since_openvino_answers_wrongly(tmp_path: Path) -> None:
    source = converted(small.token_net, tmp_path)
    smoothed = made(source, tmp_path / "q", smooth=True)
    fed = _smoothed_from(smoothed)
    assert fed
    assert "ReduceMean" not in fed
    assert small.likeness(source, smoothed) > 0.99


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse"])
def test_a_long_tail_is_clipped_by_percentile_and_mse_but_not_by_minmax(ranges: str, tmp_path: Path) -> None:
    source = converted(wide_net, tmp_path)

    def tailed() -> Iterator[Feeds]:
        for feeds in small.samples(source, 4):
            x = feeds["x"] ** 3
            yield {"x": x * (100 / np.abs(x).max())}

    (tmp_path / "q").mkdir()
    answer = quantize(source, Wish(Recipe("int8", ranges=ranges), tailed, 4), tmp_path / "q", lambda words: None)
    assert (_largest_input(answer) > 99) == (ranges == "minmax")


def test_percentile_ranges_hold_that_part_of_all_values_whichever_sample_the_others_are_in(tmp_path: Path) -> None:
    source = converted(small.conv_net, tmp_path)

    def outlying() -> Iterator[Feeds]:
        for number, feeds in enumerate(small.samples(source, 50)):
            yield {"x": feeds["x"] * (50 if number == 30 else 1)}

    values = np.concatenate([feeds["x"].ravel() for feeds in outlying()])
    for percentile in (99.9, 98.0, 80.0):
        (tmp_path / f"{percentile}").mkdir()
        wish = Wish(Recipe("int8", ranges="percentile", percentile=percentile), outlying, 50)
        answer = quantize(source, wish, tmp_path / f"{percentile}", lambda words: None)
        wanted = np.percentile(np.abs(values), percentile)
        assert _largest_input(answer) == pytest.approx(wanted, abs=0.3)


def test_nncf_is_left_as_it_was() -> None:
    from nncf.common.tensor_statistics.collectors import HistogramAggregator
    from nncf.quantization.algorithms.min_max import algorithm

    with histograms_cut_at(99.0):
        assert algorithm.HistogramAggregator is not HistogramAggregator
    assert algorithm.HistogramAggregator is HistogramAggregator


def test_entropy_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="entropy") as refused:
        made(converted(small.dense_net, tmp_path), tmp_path / "q", ranges="entropy")
    assert "mse" in str(refused.value.hint)


def test_one_scale_a_tensor_is_one_scale(tmp_path: Path) -> None:
    source = converted(small.dense_net, tmp_path)
    channels, tensor = made(source, tmp_path / "c"), made(source, tmp_path / "t", per_channel=False)
    assert max(_scales(channels)) == 128
    assert set(_scales(tensor)) == {1}


def test_seven_bit_weights_stay_within_seven_bits(tmp_path: Path) -> None:
    source = converted(small.dense_net, tmp_path)
    assert _largest_weight(made(source, tmp_path / "full")) == 127
    assert _largest_weight(made(source, tmp_path / "reduced", reduce_range=True)) <= 64


def test_bias_correction_moves_biases(tmp_path: Path) -> None:
    source = converted(small.conv_net, tmp_path)
    plain, corrected = made(source, tmp_path / "plain"), made(source, tmp_path / "corrected", correct_bias=True)
    assert plain.path.with_suffix(".bin").read_bytes() != corrected.path.with_suffix(".bin").read_bytes()
    assert small.likeness(source, corrected) > 0.95


@pytest.mark.parametrize(
    ("net", "step", "why"),
    [
        (small.conv_net, "equalize", "nothing to equalize"),
        (biasless_net, "correct_bias", "no operator of this model has a bias"),
    ],
)
def test_a_step_that_changes_nothing_is_refused(net: small.MakeNet, step: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=why):
        made(converted(net, tmp_path), tmp_path / "q", **{step: True})


def test_what_is_kept_computes_in_float_and_the_rest_does_not(tmp_path: Path) -> None:
    source = converted(small.conv_net, tmp_path)
    groups = sensitivity(source, small.wish(source, "int8"), tmp_path, lambda words: None)
    first, second = (name for group in groups for name in group.operators if name in _runtime_precisions(source))
    whole, kept = made(source, tmp_path / "whole"), made(source, tmp_path / "kept", keep=(first,))
    assert _runtime_precisions(source) == {first: "f32", second: "f32"}
    assert set(_runtime_precisions(whole).values()) <= {"u8", "i8"}
    assert _runtime_precisions(kept)[first] == "f32"
    assert _runtime_precisions(kept)[second] in {"u8", "i8"}
    assert "Convolution (1) stays in float" in kept.notes[-1]


def test_an_operator_that_is_not_there_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="no operator 'nobody'"):
        made(converted(small.dense_net, tmp_path), tmp_path / "q", keep=("nobody",))


def test_sensitivity_names_the_layer_that_suffers_first_and_keeping_it_helps(tmp_path: Path) -> None:
    source = converted(uneven_net, tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    groups = sensitivity(source, small.wish(source, "int8"), scratch, lambda words: None)
    assert 3 <= len(groups) <= 12
    assert list(scratch.iterdir()) == []
    worst = max(groups, key=lambda group: group.error)
    assert worst == groups[1], groups
    assert worst.error > 10 * min(group.error for group in groups) > 0
    kept = made(source, tmp_path / "kept", keep=worst.operators)
    assert agreement(source, kept) > 0.95


def test_samples_beyond_what_bias_correction_holds_are_spread_and_not_held() -> None:
    seen = Samples([{"x": i} for i in range(1000)], ("x",), step=-(-1000 // MOST))  # type: ignore[arg-type]
    taken = [value for (value,) in seen]
    assert len(taken) == len(seen) <= MOST
    assert taken[-1] > 990


def _largest_input(artifact: Artifact) -> float:
    """The highest value that the FakeQuantize behind the model's input lets through."""
    from edgekit_runtime.engines.openvino import ov

    model = ov.Core().read_model(artifact.path)
    (target,) = model.inputs[0].get_target_inputs()
    return float(target.get_node().input_value(2).get_node().data.max())


def _smoothed_from(artifact: Artifact) -> set[str]:
    """The kinds of the operators whose results SmoothQuant divides."""
    from edgekit_runtime.engines.openvino import ov

    ops = ov.Core().read_model(artifact.path).get_ops()
    divided = [op for op in ops if op.get_friendly_name().endswith("nncf_smooth_quant")]
    return {op.input_value(0).get_node().get_type_name() for op in divided}


def _integers(artifact: Artifact) -> list[Array]:
    from edgekit_runtime.engines.openvino import ov

    model = ov.Core().read_model(artifact.path)
    found = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    return [np.array(op.data) for op in found if op.get_output_element_type(0).get_type_name() in ("i8", "u8")]


def _largest_weight(artifact: Artifact) -> int:
    return max(int(np.abs(weight.astype(int)).max()) for weight in _integers(artifact))


def _scales(artifact: Artifact) -> list[int]:
    """How many scales each integer weight has."""
    from edgekit_runtime.engines.openvino import ov

    sizes = []
    for op in ov.Core().read_model(artifact.path).get_ops():
        if op.get_type_name() == "Multiply" and op.input_value(0).get_node().get_type_name() == "Convert":
            sizes.append(int(op.input_value(1).get_node().data.size))
    return sizes


def _runtime_precisions(artifact: Artifact) -> dict[str, str]:
    """The friendly name of every convolution -> the precision in which the compiled model runs it."""
    from edgekit_runtime.engines.openvino import ov

    model = ov.Core().read_model(artifact.path)
    names = {op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "Convolution"}
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {}
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        for name in names & set(str(info["originalLayersNames"].astype(str)).split(",")):
            found[name] = str(info["runtimePrecision"].astype(str)).lower()
    return found

"""Every recipe on TFLite: what minmax ruins is won back, statistics are kept, sensitive operators are found."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.model import Artifact
from edgekit.quantizers import Wish, quantize, sensitivity
from edgekit.quantizers.tflite_channels import equalized
from edgekit.quantizers.tflite_graph import Graph, read_graph
from edgekit.recipes import Recipe
from tests.quantizers import small

pytestmark = pytest.mark.slow

Make = Callable[..., Artifact]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A convolution whose channels differ in size up to a thousand times, a depthwise one that evens them out, two
    more layers: images [1, 3, 12, 12] -> 10 scores."""
    path = tmp_path_factory.mktemp("uneven") / "uneven.tflite"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import litert_torch
        import torch
        from torch import nn

        torch.manual_seed(0)
        first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        with torch.no_grad():
            size = torch.logspace(-1.5, 1.5, 16).reshape(16, 1, 1, 1)
            first.weight *= size
            assert first.bias is not None
            first.bias *= size.flatten()
            second.weight *= 4 / size
        net = nn.Sequential(
            first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 10)
        )
        litert_torch.convert(net.eval(), (torch.randn(1, 3, 12, 12),)).export(str(path))
    return small.artifact("tflite", path)


@pytest.fixture
def make(source: Artifact, tmp_path: Path) -> Make:
    """Make the net by a recipe, in a folder of its own."""

    def by(
        calibration: Callable[[], Iterator[Feeds]] | None = None, statistics: Path | None = None, **recipe: object
    ) -> Artifact:
        folder = tmp_path / f"q{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        asked = Recipe("int8", **recipe)  # type: ignore[arg-type]
        samples = calibration or (lambda: small.samples(source))
        return quantize(source, Wish(asked, samples, 16, statistics=statistics), folder, lambda words: None)

    return by


def answers(artifact: Artifact, count: int = 300) -> Array:
    """Scores [count, 10] on samples that calibration did not see."""
    run = artifact.open_model()
    return np.stack([next(iter(run(feeds).values())).ravel() for feeds in small.samples(artifact, count, seed=5)])


def agreement(one: Artifact, other: Artifact) -> float:
    """How often both name the same best class."""
    return float((answers(one).argmax(1) == answers(other).argmax(1)).mean())


def error(one: Artifact, other: Artifact) -> float:
    """Relative squared error."""
    wanted = answers(one, 100)
    return float(((answers(other, 100) - wanted) ** 2).sum() / (wanted**2).sum())


def read(artifact: Artifact) -> Graph:
    return read_graph(artifact.path.read_bytes())


def types(artifact: Artifact) -> dict[str, int]:
    """The type of each operator's result, by its name."""
    graph = read(artifact)
    main = graph.model.subgraphs[0]
    return {main.tensors[op.outputs[0]].name.decode(): main.tensors[op.outputs[0]].type for op in main.operators}


def test_uneven_channels_that_minmax_ruins_are_won_back_by_smoothing(source: Artifact, make: Make) -> None:
    plain, mended = agreement(source, make()), agreement(source, make(smooth=True))
    assert plain < 0.7  # .643 when this was written
    assert mended > 0.95  # .983


def test_equalizing_leaves_the_float_answers_and_wins_most_of_it_back_too(
    source: Artifact, make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "even.tflite"
    path.write_bytes(equalized(read(source)).content)
    assert error(source, replace(source, path=path)) < 1e-8
    plain, mended = error(source, make(per_channel=False)), error(source, make(per_channel=False, equalize=True))
    assert plain > 0.1  # .393 when this was written
    assert mended < 0.002  # .0005


def test_a_rare_spike_widens_minmax_and_not_percentile(source: Artifact, make: Make) -> None:
    def spoilt() -> Iterator[Feeds]:
        yield from small.samples(source, 128)
        (name, value), *_ = next(small.samples(source, 1)).items()
        value.flat[77] = 2000
        yield {name: value}

    def reach(artifact: Artifact) -> float:
        graph = read(artifact)
        tensors = {one.name: one for one in graph.model.subgraphs[0].tensors}
        scales = [float(one.quantization.scale[0]) for name, one in tensors.items() if name.endswith(b"_quantized")]
        return max(scales) * 255

    assert reach(make(calibration=spoilt)) > 2000
    assert reach(make(calibration=spoilt, ranges="percentile")) < 12


def test_biases_are_corrected_by_what_rounding_adds_on_average(source: Artifact, make: Make) -> None:
    """On images of positive pixels, whose mean meets the rounding errors of the weights."""

    def bright(count: int, seed: int) -> Iterator[Feeds]:
        for feeds in small.samples(source, count, seed):
            yield {name: np.abs(value) for name, value in feeds.items()}

    def far(artifact: Artifact) -> float:
        run, again = source.open_model(), artifact.open_model()
        pairs = [(next(iter(run(feeds).values())), next(iter(again(feeds).values()))) for feeds in bright(100, 5)]
        return float(sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs))

    even = {"smooth": True, "per_channel": False, "calibration": lambda: bright(32, 0)}
    plain, mended = far(make(**even)), far(make(correct_bias=True, **even))
    assert mended < 0.8 * plain


def test_the_bias_of_a_channel_with_hardly_any_weights_is_not_cut_off(source: Artifact, tmp_path: Path) -> None:
    """A batch norm that shut a channel leaves such weights; EfficientNet-Lite0 has sixty."""
    graph = read(source)
    main = graph.model.subgraphs[0]
    convs = [op for op in main.operators if graph.op_name(op) == "CONV_2D"]
    weights, bias = (graph.model.buffers[main.tensors[index].buffer] for index in convs[-1].inputs[1:3])
    floats = np.array(weights.data, np.uint8).view(np.float32).reshape(16, -1)
    floats[3] *= 1e-9
    offsets = np.array(bias.data, np.uint8).view(np.float32)
    offsets[3] = 5.0
    weights.data, bias.data = floats.reshape(-1).view(np.uint8), offsets.view(np.uint8)
    path = tmp_path / "shut.tflite"
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(graph.model)))
    shut = small.artifact("tflite", path)
    assert error(shut, small.quantized(shut, "int8", tmp_path / "q", smooth=True)) < 0.01


def test_kept_statistics_give_the_same_file_without_calibrating_again(
    source: Artifact, make: Make, tmp_path: Path
) -> None:
    drawn = 0

    def counted() -> Iterator[Feeds]:
        nonlocal drawn
        for feeds in small.samples(source):
            drawn += 1
            yield feeds

    kept = tmp_path / "kept"
    first = make(calibration=counted, statistics=kept)
    assert drawn >= 16
    drawn = 0
    again = make(calibration=counted, statistics=kept)
    make(calibration=counted, statistics=kept, ranges="percentile")
    make(calibration=counted, statistics=kept, ranges="percentile", percentile=98)
    make(calibration=counted, statistics=kept, ranges="mse", per_channel=False)
    assert drawn <= 8
    assert first.path.read_bytes() == again.path.read_bytes() == make().path.read_bytes()


def test_a_calibration_that_breaks_off_leaves_no_statistics(source: Artifact, make: Make, tmp_path: Path) -> None:
    def broken() -> Iterator[Feeds]:
        for number, feeds in enumerate(small.samples(source)):
            if number == 5:
                raise KeyboardInterrupt
            yield feeds

    kept = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        make(calibration=broken, statistics=kept)
    assert not kept.exists() or not list(kept.iterdir())


def test_sensitivity_names_the_operators_that_hurt_and_keeping_them_helps(
    source: Artifact, make: Make, tmp_path: Path
) -> None:
    groups = sensitivity(source, small.wish(source, "int8"), tmp_path, lambda words: None)
    names = [name for group in groups for name in group.operators]
    results = list(types(source))
    assert names == [name for name in results if name in names]
    assert 4 <= len(groups) <= 12
    first, second, third = sorted(groups, key=lambda group: -group.error)[:3]
    assert second.error > 100 * third.error
    kept = make(keep=(*first.operators, *second.operators))
    floats = [name for name, kind in types(kept).items() if kind == schema.TensorType.FLOAT32]
    assert {*first.operators, *second.operators} & set(types(source)) <= set(floats)
    assert error(source, kept) < error(source, make()) / 100
    assert not list(tmp_path.glob("*.tflite"))


def test_an_operator_is_not_kept_in_float_because_its_name_begins_as_anothers(source: Artifact, tmp_path: Path) -> None:
    """LiteRT's converter names a result by all that was fused into it, with semicolons between."""
    graph = read(source)
    main = graph.model.subgraphs[0]
    first, second = [op.outputs[0] for op in main.operators if "CONV_2D" in graph.op_name(op)][:2]
    main.tensors[first].name, main.tensors[second].name = b"net/relu;", b"net/relu;;net/conv;1"
    path = tmp_path / "named.tflite"
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(graph.model)))
    named = small.artifact("tflite", path)
    held = types(small.quantized(named, "int8", tmp_path / "q", keep=("net/relu;",)))
    assert held["net/relu;"] == schema.TensorType.FLOAT32
    assert held["net/relu;;net/conv;1"] == schema.TensorType.INT8
    groups = sensitivity(named, small.wish(named, "int8"), tmp_path, lambda words: None)
    (error,) = (group.error for group in groups if group.operators == ("net/relu;;net/conv;1",))
    assert error > 0


def test_one_scale_a_tensor_is_one_scale_a_tensor(make: Make) -> None:
    def scales(artifact: Artifact) -> set[int]:
        tensors = read(artifact).model.subgraphs[0].tensors
        return {len(one.quantization.scale) for one in tensors if one.type == schema.TensorType.INT8}

    assert scales(make(per_channel=False)) == {1}
    assert 16 in scales(make())


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (Recipe("int8", reduce_range=True), "exact on every CPU"),
        (Recipe("int8-weights", ranges="percentile"), "knows no 99.99 % ranges"),
        (Recipe("float16", correct_bias=True), "knows no bias corrected"),
        (Recipe("int8", keep=("nobody",)), "no operator of this model makes 'nobody'"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(
    source: Artifact, recipe: Recipe, why: str, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=why) as refused:
        quantize(source, Wish(recipe, lambda: small.samples(source), 16), tmp_path, lambda words: None)
    assert refused.value.hint


def test_four_bits_with_samples_are_nearer_than_without(source: Artifact, tmp_path: Path) -> None:
    found = []
    for number, samples in enumerate((None, lambda: small.samples(source))):
        (folder := tmp_path / str(number)).mkdir()
        made = quantize(source, Wish(Recipe("int4-weights"), samples, 16), folder, lambda words: None)
        found.append((error(source, made), made.size()))
    assert found[1][0] < 0.8 * found[0][0]
    assert found[1][1] == found[0][1]

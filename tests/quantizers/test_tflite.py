"""The TFLite quantizer on small nets: what it makes is small, loads, answers alike, and says what it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.model import Artifact
from edgekit.places import Place
from edgekit.places.cores import CORES
from edgekit.places.emulated import find_core
from edgekit.places.there import open_at
from edgekit.quantizers import Wish, quantize
from edgekit.quantizers.tflite_graph import read_graph
from edgekit.recipes import Recipe
from tests.quantizers import small

pytestmark = pytest.mark.slow

Nets = Callable[[str], Artifact]
FLOAT, INT32, INT8 = 0, 2, 9
"""Types of tensors, as the schema numbers them."""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Nets:
    """Small nets by name, converted by litert-torch once."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("nets")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import litert_torch
        import torch
        from torch import nn

        torch.manual_seed(0)

        def block(inputs: int, outputs: int, groups: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups), nn.Hardswish()]

        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.key, self.out = nn.Embedding(200, 64), nn.Linear(64, 64), nn.Linear(64, 4)

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                x = self.embed(ids)
                scores = torch.softmax(x @ self.key(x).transpose(1, 2) / 8, -1)
                return self.out((scores @ x).mean(1))

        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5), nn.Softmax(-1)]
        images = torch.randn(1, 3, 16, 16)
        made = {
            "conv": (nn.Sequential(*block(3, 16), *block(16, 16, 16), nn.Conv2d(16, 16, 1), *pool), images),
            "dense": (nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 5)), torch.randn(1, 64)),
            "tokens": (Tokens(), torch.randint(0, 100, (1, 12))),
        }
        for name, (net, example) in made.items():
            litert_torch.convert(net.eval(), (example,)).export(str(folder / f"{name}.tflite"))
    return lambda name: small.artifact("tflite", folder / f"{name}.tflite")


@pytest.mark.parametrize("name", ["conv", "dense", "tokens"])
def test_int8_answers_like_the_float_one_and_keeps_float_outside(nets: Nets, name: str, tmp_path: Path) -> None:
    source = nets(name)
    made = small.quantized(source, "int8", tmp_path / "q")
    assert small.likeness(source, made) > 0.98
    assert [path.name for path in made.files()] == ["model.tflite"]
    assert [port.spec for port in made.outputs] == [port.spec for port in source.outputs]
    assert made.outputs[0].inside.dtype == "float32"
    assert "int8 holds 100 %" in made.notes[-1]


def test_scores_do_not_tie(nets: Nets, tmp_path: Path) -> None:
    source = nets("conv")
    run = small.quantized(source, "int8", tmp_path / "q").open_model()
    answers = [next(iter(run(feeds).values())).ravel() for feeds in small.samples(source, 32)]
    assert len(np.unique(np.concatenate(answers))) > 100


def test_what_has_no_fast_integer_kernel_stays_in_float(nets: Nets, tmp_path: Path) -> None:
    made = small.quantized(nets("conv"), "int8", tmp_path / "q")
    graph = read_graph(made.path.read_bytes())
    main = graph.model.subgraphs[0]
    types = {graph.op_name(op): main.tensors[op.outputs[0]].type for op in main.operators}
    assert (types["HARD_SWISH"], types["CONV_2D"]) == (0, 9)


def test_where_dense_layers_prevail_nothing_but_layers_is_in_int8(nets: Nets, tmp_path: Path) -> None:
    """Elsewhere runs of integers between operators that are slow in int8 cost more than they win."""
    graph = read_graph(small.quantized(nets("tokens"), "int8", tmp_path / "q").path.read_bytes())
    main = graph.model.subgraphs[0]
    integers = {graph.op_name(op) for op in main.operators if main.tensors[op.outputs[0]].type == 9}
    assert integers <= {"FULLY_CONNECTED", "QUANTIZE"}
    assert "FULLY_CONNECTED" in integers


def scales(made: Artifact) -> set[tuple[str, int, int]]:
    """The operators with integer weights: their name, the type of what they take, and how many scales they have."""
    graph = read_graph(made.path.read_bytes())
    main, found = graph.model.subgraphs[0], set()
    for op in main.operators:
        if graph.op_name(op) in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP", "CONV_2D"):
            taken, weights = main.tensors[op.inputs[0]], main.tensors[op.inputs[1]]
            if weights.type == INT8 and graph.is_constant(weights):
                found.add((graph.op_name(op), taken.type, len(weights.quantization.scale)))
    return found


def test_an_old_engine_gets_one_scale_where_integer_weights_meet_float_numbers(nets: Nets, tmp_path: Path) -> None:
    """Elsewhere each row and channel keeps its own, also in a dense layer."""
    made = small.quantized(nets("tokens"), "int8", tmp_path / "tokens", dense_per_tensor=True)
    assert scales(made) == {
        ("EMBEDDING_LOOKUP", INT32, 1),
        ("FULLY_CONNECTED", INT8, 64),
        ("FULLY_CONNECTED", FLOAT, 1),
    }
    made = small.quantized(nets("conv"), "int8", tmp_path / "conv", dense_per_tensor=True)
    assert scales(made) == {("CONV_2D", INT8, 16), ("FULLY_CONNECTED", FLOAT, 1)}
    made = small.quantized(nets("conv"), "int8", tmp_path / "many")
    assert scales(made) == {("CONV_2D", INT8, 16), ("FULLY_CONNECTED", FLOAT, 5)}


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_what_an_old_engine_gets_it_answers_rightly(nets: Nets, precision: str, tmp_path: Path) -> None:
    """And it answers otherwise, without an error, to what a new one gets: the recipe is worth its loss."""
    place = find_core(CORES["cortex-a7"], "tflite")
    if not isinstance(place, Place):
        pytest.skip(f"{place.why} ({place.hint})")
    source = nets("tokens")
    name, *_ = (port.spec.name for port in source.outputs)
    asked = list(small.samples(source, 4, seed=7))
    wanted = np.concatenate([source.open_model()(feeds)[name].ravel() for feeds in asked])

    def off(one_scale: bool) -> float:
        made = small.quantized(source, precision, tmp_path / str(one_scale), dense_per_tensor=one_scale)
        run = there.runner(made)
        answers = np.concatenate([run(feeds)[name].ravel() for feeds in asked])
        return float(np.abs(answers - wanted).max() / np.ptp(wanted))

    with open_at(place, EngineOptions(threads=1), lambda words: None) as there:
        assert off(one_scale=True) < 0.05
        assert off(one_scale=False) > 0.3, "it can: take dense_per_tensor out of targets/armv7.toml"


def test_integer_io_makes_the_users_tensors_integer_too(nets: Nets, tmp_path: Path) -> None:
    source = nets("conv")
    made = small.quantized(source, "int8", tmp_path / "q", integer_io=True)
    (taken,), (given,) = made.inputs, made.outputs
    assert taken.spec.dtype == taken.inside.dtype == given.spec.dtype == "int8"
    assert taken.spec.scale == taken.inside.scale is not None
    assert taken.spec.name == source.inputs[0].spec.name
    feeds = {taken.spec.name: np.zeros((1, 3, 16, 16), np.int8)}
    assert made.open_model()(feeds)[given.spec.name].dtype == np.int8


def test_calibration_keeps_the_widest_range(nets: Nets, tmp_path: Path) -> None:
    source = nets("dense")
    name = source.inputs[0].spec.name

    def ramp():  # type: ignore[no-untyped-def]
        for largest in (50.0, 1.0, 1.0, 1.0, 1.0, 1.0):
            yield {name: np.full((1, 64), largest, np.float32)}

    (tmp_path / "q").mkdir()
    made = quantize(source, Wish(Recipe("int8"), ramp, 6, integer_io=True), tmp_path / "q", lambda words: None)
    scale = made.inputs[0].spec.scale
    assert scale is not None
    assert scale * 255 == pytest.approx(50, rel=0.01)


@pytest.mark.parametrize("name", ["conv", "dense", "tokens"])
def test_int8_weights_are_small_and_answer_alike(nets: Nets, name: str, tmp_path: Path) -> None:
    source = nets(name)
    made = small.quantized(source, "int8-weights", tmp_path / "q")
    assert small.likeness(source, made) > 0.998
    assert "int8-weights holds 100 %" in made.notes[-1]
    assert made.size() < source.path.stat().st_size


@pytest.mark.parametrize("name", ["dense", "tokens"])
def test_int4_weights_of_dense_layers(nets: Nets, name: str, tmp_path: Path) -> None:
    source = nets(name)
    made = small.quantized(source, "int4-weights", tmp_path / "q")
    assert small.likeness(source, made) > 0.9
    assert made.size() < 0.4 * source.path.stat().st_size


def test_int4_weights_of_a_conv_net_are_refused_with_the_nearest_thing(nets: Nets, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="dense layers") as refused:
        small.quantized(nets("conv"), "int4-weights", tmp_path / "q")
    assert refused.value.hint == "use --precision int8-weights"


def test_float16_halves_the_file(nets: Nets, tmp_path: Path) -> None:
    source = nets("dense")
    made = small.quantized(source, "float16", tmp_path / "q")
    assert small.likeness(source, made) > 0.999
    assert made.size() < 0.6 * source.path.stat().st_size
    with pytest.raises(Unsupported, match="float16 already") as refused:
        small.quantized(made, "int8", tmp_path / "again")
    assert "--precision float16," in refused.value.hint


def test_what_is_quantized_already_is_not_quantized_again(nets: Nets, tmp_path: Path) -> None:
    made = small.quantized(nets("dense"), "int8", tmp_path / "q")
    with pytest.raises(Unsupported, match="already quantized") as refused:
        small.quantized(made, "int8-weights", tmp_path / "again")
    assert "--precision int8," in refused.value.hint


def test_a_file_without_a_signature_is_quantized_all_the_same(nets: Nets, tmp_path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    source = nets("dense")
    model = flatbuffer_utils.read_model(str(source.path))
    model.signatureDefs = []
    path = tmp_path / "bare.tflite"
    flatbuffer_utils.write_model(model, str(path))
    bare = small.artifact("tflite", path)
    made = small.quantized(bare, "int8", tmp_path / "q")
    assert small.likeness(bare, made) > 0.98


def test_int8_without_data_says_what_to_give(nets: Nets, tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="needs calibration data"):
        quantize(nets("dense"), Wish(Recipe("int8")), tmp_path, lambda words: None)

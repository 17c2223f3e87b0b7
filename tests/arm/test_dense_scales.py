"""Files for an engine that knows one scale for a dense layer have one there, and one a channel where it knows more."""

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.model import Facts
from edgekit.plan import Candidate, Wishes, make_plan
from edgekit.target import Target, find_target, parse_target
from tests.arm.exhibits import found

FACTS = Facts({"Conv": 3, "Gemm": 1}, 50_000, 200_000)


def planned(target: Target, precision: str) -> tuple[Candidate, ...]:
    return make_plan(
        FACTS, {"tflite": ("a.b",)}, target, Wishes("tflite", precision, data=True, judged=True)
    ).candidates


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_every_recipe_for_an_engine_with_one_scale_a_dense_layer_asks_for_it(precision: str) -> None:
    assert all(one.recipe.dense_per_tensor for one in planned(find_target("armv7"), precision))
    assert not any(one.recipe.dense_per_tensor for one in planned(find_target("rpi3"), precision))
    assert "one scale a dense layer" in planned(find_target("armv7"), precision)[0].title


def test_a_float_file_has_no_scales() -> None:
    assert not any(one.recipe.dense_per_tensor for one in planned(find_target("armv7"), "float32"))


def test_a_target_names_engines_there() -> None:
    raw = {
        key: value for key, value in vars(find_target("armv7")).items() if key not in ("never", "options", "sources")
    }
    raw = {key: list(value) if isinstance(value, tuple) else value for key, value in raw.items()}
    assert parse_target(raw, "own").dense_per_tensor == ("tflite",)
    with pytest.raises(EdgeKitError, match="unknown engine 'tflight'"):
        parse_target({**raw, "dense_per_tensor": ["tflight"]}, "own")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_a_dense_layer_has_one_scale_and_a_convolution_one_a_channel(precision: str) -> None:
    from edgekit.quantizers.tflite_graph import read_graph

    def scales(title: str) -> dict[str, int]:
        bundle = found("tflite", title)
        graph = read_graph(bundle.place(bundle.manifest.entry).read_bytes())
        main = graph.model.subgraphs[0]
        weights = [
            (graph.op_name(op), main.tensors[op.inputs[1]].quantization) for op in main.operators if len(op.inputs) > 1
        ]
        return {kind: len(found.scale) for kind, found in weights if found is not None and found.scale is not None}

    one, many = scales(f"convolving {precision}, one scale a dense layer"), scales(f"convolving {precision}")
    assert (one["FULLY_CONNECTED"], many["FULLY_CONNECTED"]) == (1, 10)
    assert one.get("CONV_2D", 2) == many.get("CONV_2D", 2) > 1

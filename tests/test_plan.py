"""The planner: which candidates a target admits, in words."""

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.model import Facts
from edgekit.ordering import parse_share
from edgekit.plan import Wishes, make_plan
from edgekit.target import Target, find_target

CNN = Facts({"Conv": 20, "Relu": 20, "Gemm": 1}, 4_652_008, 18_608_032)
EVERYWHERE = {"onnx": ("a.to_onnx",), "tflite": ("a.to_tflite",), "openvino": ("a.to_onnx", "a.onnx_to_openvino")}


def plan(target: str | Target, facts: Facts = CNN, routes: dict[str, tuple[str, ...]] = EVERYWHERE, **wishes: object):
    found = find_target(target) if isinstance(target, str) else target
    return make_plan(facts, routes, found, Wishes(**{"data": True, **wishes}))


def test_the_targets_best_engine_comes_first_at_the_targets_best_precision() -> None:
    made = plan("rpi5")
    assert [(c.format, c.precision) for c in made.candidates] == [
        ("tflite", "int8"),
        ("onnx", "int8"),
    ]
    assert made.left_out[0].startswith("OpenVINO int8: OpenVINO's int8 convolutions answer otherwise on ARM")


def test_without_data_int8_is_not_tried_but_the_next_precision_is() -> None:
    assert plan("rpi5", data=False).candidates[0].precision == "float32"


def test_int8_asked_for_without_data_is_refused_with_what_to_say() -> None:
    with pytest.raises(EdgeKitError) as caught:
        plan("rpi5", data=False, precision="int8", format="tflite")
    assert "calibrate" in caught.value.what
    assert "--precision" in caught.value.hint


def test_a_format_without_an_engine_on_the_target_is_refused_with_one_that_has() -> None:
    with pytest.raises(EdgeKitError) as caught:
        plan("armv7", format="onnx")
    assert "--format tflite" in caught.value.hint


def test_a_misspelt_precision_is_guessed() -> None:
    with pytest.raises(EdgeKitError, match="did you mean 'int8'"):
        plan("rpi5", precision="int-8")


def test_four_bit_weights_of_a_convolutional_net_are_refused_for_tflite_with_the_nearest() -> None:
    with pytest.raises(EdgeKitError) as caught:
        plan("rpi5", format="tflite", precision="int4-weights")
    assert "4-bit" in caught.value.what
    assert "--format tflite --precision int8" in caught.value.hint


def test_a_model_that_cannot_fit_is_refused_before_anything_is_made() -> None:
    with pytest.raises(EdgeKitError, match="MB"):
        plan("rpi-zero2w", facts=Facts({"MatMul": 200}, 70_000_000_000, 280_000_000_000))


def test_an_int8_source_stays_int8() -> None:
    quantized = Facts({"CONV_2D": 3}, 50_000, 52_000, "int8")
    assert plan("rpi5", facts=quantized, routes={"tflite": ("a.b",)}).candidates[0].precision == "int8"
    with pytest.raises(EdgeKitError, match="int8 already"):
        plan("rpi5", facts=quantized, routes={"tflite": ("a.b",)}, precision="float32")


def test_what_is_left_out_is_said() -> None:
    assert any("no way" in words for words in plan("rpi5", routes={"tflite": ("a.b",)}).left_out)


def test_a_cpu_whose_multiply_add_saturates_gets_seven_bit_weights() -> None:
    assert plan("x86-64-v3").candidates[0].recipe.reduce_range
    assert not plan("x86-64-v4").candidates[0].recipe.reduce_range


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_an_engine_that_knows_one_scale_for_a_dense_layer_gets_one_in_every_recipe(precision: str) -> None:
    made = plan("armv7", precision=precision, judged=True).candidates
    assert all(one.recipe.dense_per_tensor for one in made)
    assert "since it knows but one" in made[0].why
    assert not any(one.recipe.dense_per_tensor for one in plan("rpi3", precision=precision, judged=True).candidates)


def test_a_target_that_wants_fixed_sizes_refuses_free_ones() -> None:
    with pytest.raises(EdgeKitError, match="free size"):
        plan("intel-npu", static=False)


@pytest.mark.parametrize("precision", ["float16", "int8-weights"])
def test_a_source_that_is_small_already_stays_as_it_is(precision: str) -> None:
    small = Facts({"Conv": 3}, 50_000, 100_000, precision)
    assert plan("rpi5", facts=small).candidates[0].precision == precision
    with pytest.raises(EdgeKitError, match=f"{precision} already"):
        plan("rpi5", facts=small, precision="int8")


def test_a_wanted_share_goes_to_the_accelerator_s_engine_alone() -> None:
    for candidate in plan("jetson-orin-nano", data=False, least=0.9, best=True, judged=True).candidates:
        assert candidate.options.least == (0.9 if candidate.options.device == "cuda" else 0.0)
    assert plan("nvidia-gpu").candidates[0].options.least == 0.0


def test_a_wanted_share_on_a_target_without_an_accelerator_is_refused() -> None:
    with pytest.raises(EdgeKitError, match="rpi5 has no accelerator"):
        plan("rpi5", least=0.5)


def test_a_gpu_computes_in_float16_for_a_float16_file_alone() -> None:
    by = {one.precision: one.options.precision for one in plan("nvidia-gpu", best=True, judged=True).candidates}
    assert by == {"float16": "float16", "float32": "float32"}


@pytest.mark.parametrize(("text", "share"), [("90%", 0.9), ("0.9", 0.9), ("100%", 1.0), ("1", 1.0), ("0", 0.0)])
def test_a_share_is_a_percentage_or_a_part_of_one(text: str, share: float) -> None:
    assert parse_share("--min-accelerated", text) == share


@pytest.mark.parametrize("text", ["", "all", "101%", "-1", "90", "nan", "inf%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(EdgeKitError, match="no share"):
        parse_share("--min-accelerated", text)

"""Why a quantized file is not faster: true of the profiles that it is told from."""

from pathlib import Path

import pytest

from edgekit.layers import Cost
from edgekit.slowness import reason, why_not_faster
from tests.quantizers import small

VNNI = ("avx2", "avx512f", "avx512_vnni")
NAN = float("nan")
FLOAT = (Cost("Conv", False, 27, 0.8), Cost("HardSigmoid", False, 6, 0.1), Cost("Mul", False, 5, 0.1))


def test_what_stays_in_float_between_conversions_is_named_with_their_time() -> None:
    made = (
        Cost("QLinearConv", True, 13, 0.3),
        Cost("Conv", False, 14, 0.2),
        Cost("QuantizeLinear", False, 20, 0.2),
        Cost("DequantizeLinear", False, 20, 0.18),
        Cost("HardSigmoid", False, 6, 0.12),
    )
    words = "14 of 27 Conv and HardSigmoid (6) stay in float, with 40 conversions that take 38 % of the time"
    assert reason("int8", made, FLOAT, VNNI) == words


def test_operators_that_grew_are_named_beside_the_float_ones() -> None:
    made = (Cost("QLinearConv", True, 27, 0.7), Cost("QLinearMul", True, 17, 0.5), Cost("QLinearAdd", True, 20, 0.3))
    words = (
        "QLinearMul (17) takes 0.5 ms, in float 0.1 (5); QLinearAdd (20) takes 0.3 ms, which the float file does not"
    )
    assert reason("int8", made, FLOAT, VNNI) == f"{words} run"


@pytest.mark.parametrize(
    ("isa", "missing"),
    [
        (("sse4_2", "avx2"), "no VNNI"),
        (("asimd", "fphp"), "no asimddp"),
        (VNNI, ""),
        (("asimd", "asimddp"), ""),
        ((), ""),
    ],
)
def test_a_cpu_without_an_8_bit_dot_product_is_blamed_and_no_other(isa: tuple[str, ...], missing: str) -> None:
    said = reason("int8", (Cost("QLinearConv", True, 27, 1.0),), FLOAT, isa)
    assert ("dot product" in said) == bool(missing)
    assert missing in said


def test_weights_alone_are_computed_in_float_and_the_cpu_is_not_blamed() -> None:
    said = reason("int8-weights", FLOAT, FLOAT, ("avx2",))
    assert said == "weights are stored as integers but computed in float"
    dynamic = (Cost("FULLY_CONNECTED", True, 41, NAN), Cost("ADD", False, 78, NAN))
    said = reason("int8-weights", dynamic, (Cost("FULLY_CONNECTED", False, 41, NAN),), ("avx2",))
    assert "except FULLY_CONNECTED (41)" in said


def test_float16_is_only_storage_where_the_cpu_cannot_compute_in_it() -> None:
    made = (*FLOAT, Cost("Cast", False, 24, 0.05))
    words = "float16 is only stored: this CPU computes it in float32, with 24 conversions at each call"
    assert reason("float16", made, FLOAT, VNNI) == words
    assert "float32" not in reason("float16", made, FLOAT, ("asimd", "asimdhp"))


def test_a_small_net_is_called_small() -> None:
    made = (Cost("QGemm", True, 2, 0.03), Cost("QuantizeLinear", False, 1, 0.02))
    said = reason("int8", made, (Cost("Gemm", False, 2, 0.04),), VNNI)
    assert said.endswith("it takes 0.05 ms, of which conversions are 0.02, in float 0.04")
    assert said.startswith("1 conversion between float and integers that takes 40 % of the time")


def test_where_the_profile_says_it_is_faster_so_does_the_reason() -> None:
    said = reason("int8", (Cost("QLinearConv", True, 27, 0.4),), FLOAT, VNNI)
    assert said == "operator by operator it is faster: 0.4 ms, in float 1"


def test_an_engine_without_times_is_told_of_by_counts() -> None:
    real = (Cost("CONV_2D", False, 21, NAN), Cost("HARD_SWISH", False, 12, NAN), Cost("DELEGATE", False, 1, NAN))
    made = (Cost("CONV_2D", True, 21, NAN), Cost("HARD_SWISH", False, 12, NAN), Cost("QUANTIZE", False, 26, NAN))
    assert reason("int8", made, real, VNNI) == "HARD_SWISH (12) stay in float, with 26 conversions"
    apart = (Cost("CONV_2D", True, 21, NAN), Cost("HARD_SWISH (no XNNPACK)", True, 12, NAN))
    said = reason("int8", (*apart, Cost("DELEGATE", False, 13, NAN)), real, VNNI)
    assert said == "XNNPACK has no kernel for HARD_SWISH (12) here and runs the file in 13 pieces, the float one in 1"
    even = (Cost("CONV_2D", True, 21, NAN), Cost("QUANTIZE", False, 1, NAN), Cost("DEQUANTIZE", False, 1, NAN))
    assert reason("int8", even, real, VNNI) == "21 of 21 operators compute in integers; none stands out"


@pytest.mark.slow
def test_a_real_file_is_told_of_in_one_line(tmp_path: Path) -> None:
    source = small.hard_swish_net(tmp_path / "a.onnx")
    feeds = next(small.samples(source, 1))
    said = why_not_faster(small.quantized(source, "int8", tmp_path / "q"), source, feeds)
    assert said
    assert "\n" not in said
    half = why_not_faster(small.quantized(source, "float16", tmp_path / "half"), source, feeds)
    assert "float32" in half or "fp" in half


@pytest.mark.slow
def test_unfused_conversions_are_found_in_a_file_that_onnx_runtime_wrote_by_its_defaults(tmp_path: Path) -> None:
    from dataclasses import replace

    from onnxruntime.quantization import QuantFormat, quantize_static

    class Samples:
        def __init__(self) -> None:
            self.left = small.samples(source, 8)

        def get_next(self) -> dict[str, object] | None:
            return next(self.left, None)  # type: ignore[return-value]

    net = small.Net(["batch", 3, 32, 32], opset=17)
    x = "x"
    for width in (3, 16, 16, 16):
        x = net.add("HardSigmoid", net.conv(x, width, 16), alpha=1 / 6, beta=0.5)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    source = net.save(net.dense(x, 16, 5), ["batch", 5], tmp_path / "a.onnx")
    quantize_static(str(source.path), str(tmp_path / "int8.onnx"), Samples(), quant_format=QuantFormat.QDQ)
    made = replace(source, precision="int8", path=tmp_path / "int8.onnx")
    said = why_not_faster(made, source, next(small.samples(source, 1)))
    assert said.startswith("HardSigmoid (4) stay in float, with ")

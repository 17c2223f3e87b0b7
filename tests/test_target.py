"""Target profiles: the ones that EdgeKit brings, and what is said of a wrong one."""

import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.detect import saturating
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import EdgeKitError

from edgekit.target import Never, Target, find_target, list_targets, parse_target

TOY = """
name = "toy"
title = "A toy board"
arch = "aarch64"
isa = ["asimd"]
cores = 2
memory_mb = 256
storage_mb = 1000
engines = ["onnx"]
precisions = ["int8", "float32"]
"""

CLAIMS = ("arch", "isa", "cores", "threads", "memory_mb", "storage_mb", "engines", "precisions", "saturates")
NOT_CPU = ("intel-gpu", "intel-npu", "nvidia-gpu")


def toy(**changes: Any) -> dict[str, Any]:
    raw = {**tomllib.loads(TOY), **changes}
    return {name: value for name, value in raw.items() if value is not None}


@pytest.fixture(params=list_targets(), ids=lambda target: target.name)
def shipped(request: pytest.FixtureRequest) -> Target:
    target: Target = request.param
    return target


def test_the_devices_that_edgekit_promises_are_there() -> None:
    names = [target.name for target in list_targets()]
    assert names == sorted(names)
    assert set(names) == {
        *("rpi3", "rpi-zero2w", "rpi4", "rpi5", "armv7", "imx8mp", "jetson-orin-nano"),
        *("x86-64-v2", "x86-64-v3", "x86-64-v4", "intel-gpu", "intel-npu", "nvidia-gpu"),
        *("coral", "qcs6490"),
    }


def test_a_file_is_named_after_its_target() -> None:
    here = Path(__file__).parent.parent / "targets"
    assert {path.stem for path in here.glob("*.toml")} == {target.name for target in list_targets()}


def test_every_claim_has_its_source(shipped: Target) -> None:
    made = asdict(shipped)
    optional = [name for name in ("accelerators", "static_shapes", "options", "emulate") if made[name]]
    assert not {*CLAIMS, *optional} - shipped.sources.keys()
    assert all(rule.reason and rule.source for rule in shipped.never)


def test_no_source_names_a_registrys_host(shipped: Target) -> None:
    assert not [text for text in shipped.sources.values() if "pypi.org" in text or "pythonhosted" in text]


def test_a_shipped_target_saturates_just_where_its_cpu_does(shipped: Target) -> None:
    if shipped.name in NOT_CPU:
        assert shipped.saturates == ()
    else:
        assert shipped.saturates == tuple(e for e in saturating(shipped.arch, shipped.isa) if e in shipped.engines)


def test_a_shipped_targets_best_engine_and_precision_go_together(shipped: Target) -> None:
    assert shipped.forbids(shipped.engines[0], shipped.precisions[0], ["Conv"]) is None


def test_the_three_formats_are_each_preferred_somewhere() -> None:
    best = [find_target(name).engines[0] for name in ("x86-64-v3", "rpi5", "x86-64-v4")]
    assert best == ["onnx", "tflite", "openvino"]


def test_seven_bit_weights_are_for_avx2_without_vnni() -> None:
    assert "onnx" in find_target("x86-64-v3").saturates
    assert not any("onnx" in find_target(name).saturates for name in ("x86-64-v2", "x86-64-v4", "rpi5"))


def test_a_target_names_the_core_that_stands_for_it_under_emulation() -> None:
    named = {target.name: target.emulate for target in list_targets() if target.emulate is not None}
    assert named == {
        **dict.fromkeys(("rpi3", "rpi-zero2w", "imx8mp"), "cortex-a53"),
        **{"rpi4": "cortex-a72", "rpi5": "cortex-a76", "jetson-orin-nano": "cortex-a76"},
        **{"x86-64-v2": "Nehalem", "x86-64-v3": "Haswell", "armv7": "cortex-a7"},
    }


def test_emulation_is_optional() -> None:
    assert parse_target(toy(), "toy").emulate is None
    assert parse_target(toy(emulate="cortex-a53"), "toy").emulate == "cortex-a53"


def test_a_target_says_how_its_engines_run() -> None:
    assert find_target("rpi5").engine_options("tflite") == EngineOptions(4, "cpu", "float32")
    assert find_target("jetson-orin-nano").engine_options("onnx").device == "cuda"
    assert not find_target("rpi5").engine_options("onnx").spin
    assert parse_target(toy(options={"onnx": {"spin": True}}), "toy").engine_options("onnx").spin is True
    assert find_target("jetson-orin-nano").engine_options("tflite").device == "cpu"
    assert find_target("intel-npu").engine_options("openvino") == EngineOptions(4, "npu", "float16")


def test_four_bit_weights_are_kept_from_convolutions_in_tflite() -> None:
    pi = find_target("rpi5")
    for op in (
        "Conv",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "DepthwiseConv2D",
        "aten.conv2d.default",
        "aten.convolution.default",
    ):
        assert "convolutional" in (pi.forbids("tflite", "int4-weights", ["Relu", op]) or "")
    for op in ("MatMul", "prims.convert_element_type.default"):
        assert pi.forbids("tflite", "int4-weights", [op]) is None
    assert pi.forbids("onnx", "int4-weights", ["Conv"]) is None


def test_an_engine_without_a_wheel_is_forbidden_with_that_reason() -> None:
    assert "no armv7l wheel" in (find_target("armv7").forbids("onnx", "float32", []) or "")
    assert "no engine" in (find_target("nvidia-gpu").forbids("tflite", "float16", []) or "")
    assert "not for" in (find_target("nvidia-gpu").forbids("onnx", "int4-weights", []) or "")


def test_int8_is_kept_from_cuda_but_not_from_the_cpu_beside_it() -> None:
    jetson = find_target("jetson-orin-nano")
    assert "CUDA" in (jetson.forbids("onnx", "int8", ["Conv"]) or "")
    assert jetson.forbids("tflite", "int8", ["Conv"]) is None


def test_a_profile_of_ones_own_is_taken_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "toy.toml"
    file.write_text(TOY)
    target = find_target(str(file))
    assert (target.name, target.threads, target.saturates) == ("toy", 2, ())
    assert target == parse_target(toy(), "toy.toml")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(EdgeKitError, match="no target 'rpi-5'; did you mean 'rpi5'") as caught:
        find_target("rpi-5")
    assert "edgekit targets list" in caught.value.hint


def test_a_path_to_nothing_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(EdgeKitError, match="no target at"):
            find_target(f"{missing}")


@pytest.mark.parametrize("text", [b"name = ", b"\xff\xfe", b"name = 'a'\nname = 'b'\n"])
def test_what_is_not_toml_is_refused_in_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(text)
    with pytest.raises(EdgeKitError, match="not TOML") as caught:
        find_target(f"{tmp_path}/bad.toml")
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    "name", ["name", "title", "arch", "isa", "cores", "memory_mb", "storage_mb", "engines", "precisions"]
)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(EdgeKitError, match=f"toy: {name} is missing"):
        parse_target(toy(**{name: None}), "toy")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"memroy_mb": 5}, "unknown field 'memroy_mb'; did you mean 'memory_mb'"),
        ({"arch": "aarch46"}, "unknown arch 'aarch46'; did you mean 'aarch64'"),
        ({"isa": ["asimdd"]}, "unknown isa feature 'asimdd'; did you mean 'asimddp'"),
        ({"isa": ["avx2"]}, "unknown isa feature 'avx2'"),
        ({"engines": ["onxx"]}, "unknown engine 'onxx'; did you mean 'onnx'"),
        ({"engines": []}, "engines is empty"),
        ({"engines": "onnx"}, "engines is not a list of words"),
        ({"precisions": ["int4"]}, "unknown precision 'int4'"),
        ({"saturates": ["onx"]}, "did you mean 'onnx'"),
        ({"saturates": True}, "saturates is not a list of words"),
        ({"cores": "4"}, "cores is not a whole number above 0: '4'"),
        ({"cores": True}, "cores is not a whole number"),
        ({"memory_mb": 0}, "memory_mb is not a whole number above 0"),
        ({"title": 5}, "title is not a text"),
        ({"name": "../etc"}, "not a plain word"),
        ({"static_shapes": "no"}, "neither true nor false"),
        ({"emulate": "cortex-72"}, "unknown core of aarch64 'cortex-72'; did you mean 'cortex-a72'"),
        ({"emulate": "Haswell"}, "unknown core of aarch64 'Haswell'"),
        ({"emulate": ["cortex-a72"]}, "emulate is not a text"),
        ({"arch": "armv7l", "isa": [], "emulate": "cortex-a53"}, "unknown core of armv7l 'cortex-a53'"),
        ({"options": {"onnx": {"devise": "cuda"}}}, "did you mean 'device'"),
        ({"options": {"onnx": {"spin": "maybe"}}}, "unknown spin in options.onnx 'maybe'"),
        ({"options": {"onnx": {"device": "cuba"}}}, "unknown device in options.onnx 'cuba'; did you mean 'cuda'"),
        ({"options": {"onyx": {}}}, "did you mean 'onnx'"),
        ({"options": []}, "options is not a table"),
        ({"never": {}}, "never is not a list"),
        ({"never": [{"reason": "r"}]}, "has no source"),
        ({"never": [{"reason": "r", "source": "s", "fromat": "onnx"}]}, "did you mean 'format'"),
        ({"never": [{"reason": "r", "source": "s", "format": "onx"}]}, "did you mean 'onnx'"),
        ({"never": [{"reason": "r", "source": "s", "ops": "conv"}]}, "ops in never is not a list"),
        ({"sources": {"core": "x"}}, "did you mean 'cores'"),
        ({"sources": {"cores": ""}}, "sources.cores is not a text"),
    ],
)
def test_a_wrong_field_is_refused_with_what_was_probably_meant(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(EdgeKitError) as caught:
        parse_target(toy(**wrong), "toy")
    assert said in caught.value.what
    assert caught.value.hint
    assert "\n" not in caught.value.what


def test_a_rule_of_ones_own_holds() -> None:
    rule = {"precision": "int8", "ops": ["LSTM"], "reason": "bad", "source": "seen"}
    target = parse_target(toy(never=[rule]), "toy")
    assert target.never == (Never(None, "int8", ("lstm",), "bad", "seen"),)
    assert target.forbids("onnx", "int8", ["LSTM"]) == "bad"
    assert target.forbids("onnx", "int8", ["Conv"]) is None
    assert target.forbids("onnx", "float32", ["LSTM"]) is None


def test_a_target_is_the_same_value_each_time_it_is_read(shipped: Target) -> None:
    assert repr(find_target(shipped.name)) == repr(shipped)
    assert asdict(find_target(shipped.name)) == asdict(shipped)
    assert replace(shipped, name="other") != shipped

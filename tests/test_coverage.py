"""What an accelerator takes of a TFLite file by its maker's list: counted, told, held to the share that is wanted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from edgekit_runtime.engines import EngineOptions, read_specs
from edgekit_runtime.engines.delegates import DELEGATES
from edgekit_runtime.errors import Unsupported

from edgekit import build
from edgekit.coverage import PUBLISHED, Operator, counted, covered, foreseen, operators, told
from edgekit.model import Artifact, Facts
from edgekit.target import find_target
from tests.tiny import write_digits, write_model

NPU = PUBLISHED["vx"]
TPU = PUBLISHED["edgetpu"]


def ops(text: str, integer: bool = True) -> tuple[Operator, ...]:
    return tuple(Operator(kind, integer) for kind in text.split())


def on(delegate: str, least: float = 0.0) -> EngineOptions:
    return EngineOptions(device="delegate", delegate=delegate, least=least)


def test_every_name_on_a_list_is_one_of_tflites_operators() -> None:
    from ai_edge_litert import schema_py_generated as schema

    names = {name for name in vars(schema.BuiltinOperator) if not name.startswith("_")}
    for name, listed in PUBLISHED.items():
        assert listed.operators <= names, name
        assert listed.source.startswith("https://")


def test_every_list_belongs_to_a_delegate_that_the_runtime_loads() -> None:
    assert set(PUBLISHED) <= set(DELEGATES)


def test_what_is_not_on_the_list_is_named_with_its_number() -> None:
    found = counted(NPU, ops(" ".join(["CONV_2D"] * 47 + ["CAST"] * 2)))
    assert found.share == 47 / 49
    words = told(NPU, found)
    assert words.startswith("47 of 49 operators run on the NPU, by its published list (https://")
    assert words.endswith("; CAST (2) stay on the CPU")


def test_a_unit_of_integers_takes_no_float_operator() -> None:
    found = counted(PUBLISHED["ethosu"], (Operator("CONV_2D", True), Operator("SOFTMAX", False)))
    assert dict(found.left) == {"SOFTMAX": 1}
    assert "SOFTMAX (1) stays on the CPU, for it takes integers alone" in told(PUBLISHED["ethosu"], found)
    assert counted(NPU, ops("SOFTMAX", integer=False)).share == 1.0


def test_the_edge_tpu_takes_nothing_behind_the_first_operator_that_it_does_not_take() -> None:
    float_input = (Operator("QUANTIZE", False), *ops("CONV_2D CONV_2D GATHER CONV_2D SOFTMAX"))
    found = counted(TPU, float_input)
    assert found.accelerated == 2
    assert dict(found.left) == {"QUANTIZE": 1, "GATHER": 1, "CONV_2D": 1, "SOFTMAX": 1}
    words = told(TPU, found)
    assert "nothing behind the first operator that it does not take" in words
    assert "once edgetpu_compiler has compiled the file" in words


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' network as a TFLite file for one sample: two dense layers and ABS."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "digits.tflite").write_bytes(_dense(folder))
    return folder / "digits.tflite"


def test_the_operators_of_a_file_are_read_from_it(model: Path) -> None:
    assert [(op.kind, op.integer) for op in operators(model)] == [("FULLY_CONNECTED", False)] * 2 + [("ABS", False)]


def test_an_artifact_with_too_little_on_the_list_is_refused_with_its_operators(model: Path) -> None:
    made = Artifact("tflite", "float32", model, (), ())
    assert "3 of 3 operators run on the NPU" in covered(made, on("vx", 1.0)).notes[0]
    assert "the unit is made for 8-bit integers" in covered(made, on("vx", 1.0)).notes[0]
    with pytest.raises(Unsupported, match=r"ABS \(1\).*wanted are 50 %") as caught:
        covered(made, on("edgetpu", 0.5))
    assert "--min-accelerated" in caught.value.hint


def test_where_there_is_no_list_nothing_is_claimed(model: Path) -> None:
    made = Artifact("tflite", "int8", model, (), ())
    assert covered(made, on("qnn")).notes == ("no list of what qnn takes is known here: it is counted on the device",)
    ours = Artifact("openvino", "float16", model, (), ())
    (note,) = covered(ours, EngineOptions(device="npu", least=0.9)).notes
    assert note.endswith("and opens there with 90 % of them at least")
    assert covered(made, EngineOptions()) == made


def test_before_anything_is_made_a_tflite_source_is_told_of_and_no_other() -> None:
    facts = Facts({"CONV_2D": 3, "CAST": 1}, 1, 4)
    assert foreseen(on("vx"), facts, "int8").startswith("of the source 3 of 4 operators run on the NPU")
    assert foreseen(on("edgetpu"), facts, "int8").startswith("of the source up to 3 of 4 operators")
    assert foreseen(on("vx"), facts, "int8-weights") == ""
    assert foreseen(on("vx"), Facts({"Conv": 3}, 1, 4), "int8") == ""
    assert foreseen(on("qnn"), facts, "int8") == foreseen(EngineOptions(), facts, "int8") == ""


def test_the_targets_with_an_npu_name_a_delegate_that_the_runtime_loads() -> None:
    named = {name: find_target(name).engine_options("tflite") for name in ("imx8mp", "coral", "qcs6490")}
    assert {name: one.delegate for name, one in named.items()} == {"imx8mp": "vx", "coral": "edgetpu", "qcs6490": "qnn"}
    for one in named.values():
        assert one.device == "delegate"
        assert one.delegate is not None
        assert {key for key, _ in one.settings} <= DELEGATES[one.delegate].settings


@pytest.mark.slow
def test_a_build_for_an_npu_is_of_integers_to_its_ends_and_says_what_runs_there(model: Path, tmp_path: Path) -> None:
    coral, imx = _built(model, tmp_path, target=["coral", "imx8mp"])
    for outcome, words in ((coral, "2 of 5 operators run on the Edge TPU"), (imx, "5 of 5 operators run on the NPU")):
        assert outcome.bundle is not None, outcome.why
        artifact = next(outcome.bundle.glob("*.tflite"))
        assert [spec.dtype for side in read_specs("tflite", artifact) for spec in side] == ["int8", "int8"]
        found = [(op.kind, op.integer) for op in operators(artifact)]  # the quantizer knows no ABS in integers
        assert found[:2] == [("FULLY_CONNECTED", True)] * 2
        assert found[2:] == [("DEQUANTIZE", False), ("ABS", False), ("QUANTIZE", False)]
        manifest = json.loads((outcome.bundle / "manifest.json").read_text())
        assert words in manifest["evidence"]["notes"][-1]
        assert manifest["inputs"][0]["spec"]["dtype"] == "float32"
        assert manifest["options"]["device"] == "delegate"
        assert words in (outcome.bundle / "report.html").read_text()
    assert "compiled the file" in coral.facts["candidates"][0]["notes"][-1]


@pytest.mark.slow
def test_a_build_that_wants_more_on_the_npu_than_its_list_has_is_refused(model: Path, tmp_path: Path) -> None:
    (outcome,) = _built(model, tmp_path, target="coral", min_accelerated="0.9")
    assert outcome.bundle is None
    assert "ABS (1)" in outcome.why
    assert "--min-accelerated" in outcome.why


def _built(model: Path, folder: Path, **words: Any) -> Any:
    data, out, cache = str(write_digits(folder)), str(folder / "out"), str(folder / "cache")
    return build(
        str(model), data=data, max_drop="5pt", precision="int8", format="tflite", unsigned=True, out=out, cache=cache,
        **words,
    )  # fmt: skip


def _dense(folder: Path) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    graph = onnx.load(write_model(folder, batch=1)).graph
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    stored = [weights["inner"].T, weights["bias"], weights["outer"].T, np.zeros(10, np.float32)]

    def tensor(name: str, shape: tuple[int, ...], buffer: int = 0) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), list(shape), schema.TensorType.FLOAT32, buffer
        return made

    def operator(code: int, inputs: list[int], output: int, relu: bool = False) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        if code == 0:
            made.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            made.builtinOptions = schema.FullyConnectedOptionsT()
            made.builtinOptions.fusedActivationFunction = int(relu)
        return made

    main, model = schema.SubGraphT(), schema.ModelT()
    main.tensors = [tensor("x", (1, 64)), tensor("hidden", (1, 256)), tensor("scores", (1, 10)), tensor("y", (1, 10))]
    main.tensors += [tensor(f"w{place}", array.shape, place + 1) for place, array in enumerate(stored)]
    main.operators = [operator(0, [0, 4, 5], 1, relu=True), operator(0, [1, 6, 7], 2), operator(1, [2], 3)]
    main.inputs, main.outputs = [0], [3]
    model.version, model.subgraphs, model.buffers = 3, [main], [schema.BufferT() for _ in range(len(stored) + 1)]
    for buffer, array in zip(model.buffers[1:], stored, strict=True):
        buffer.data = np.frombuffer(np.ascontiguousarray(array, np.float32).tobytes(), np.uint8)
    model.operatorCodes = [schema.OperatorCodeT(), schema.OperatorCodeT()]
    kinds = (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.ABS)
    for code, kind in zip(model.operatorCodes, kinds, strict=True):
        code.builtinCode, code.deprecatedBuiltinCode = kind, kind
    builder = flatbuffers.Builder(2**18)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())

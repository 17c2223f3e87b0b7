"""Which operators of a TFLite file an accelerator takes, by the list that its maker published: known without one.

Refuses an artifact of which less than the wanted share is on the list. Where no list is held the device itself tells,
when the bundle is opened there."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.engines.placed import Placement
from edgekit_runtime.errors import Unsupported

from edgekit.model import Artifact, Facts


@dataclass(frozen=True)
class Published:
    """One accelerator's list: TFLite's names of the operators, and where it is from. `integers` says that it takes
    nothing else, `once` that it takes nothing behind the first operator that it does not take, `before` what has to be
    done to the file. Sizes and strides, which the sources limit too, are not looked at: what is counted is the most
    that can be had."""

    device: str
    operators: frozenset[str]
    source: str
    integers: bool = False
    once: bool = False
    before: str = ""

    @property
    def limits(self) -> str:
        """Why an operator that is on the list may stay on the CPU."""
        both = ["it takes integers alone"] * self.integers
        both += ["nothing behind the first operator that it does not take"] * self.once
        return " and ".join(both)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PUBLISHED: Mapping[str, Published] = {
    "edgetpu": Published(  # RSQRT, SQUARED_DIFFERENCE, SUM, TRANSPOSE, TRANSPOSE_CONV: not read again, but known of it
        "the Edge TPU",
        _words(
            "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED "
            "L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE "
            "REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR "
            "RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH "
            "TRANSPOSE TRANSPOSE_CONV"
        ),
        "https://coral.ai/docs/edgetpu/models-intro/#supported-operations",
        integers=True,
        once=True,
        before="that is once edgetpu_compiler has compiled the file (https://coral.ai/docs/edgetpu/compiler/): "
        "as it is all of it runs on the CPU",
    ),
    "vx": Published(
        "the NPU",
        _words(
            "ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND "
            "BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN CONCATENATION CONV_2D CONV_3D COS "
            "DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FLOOR "
            "FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH HASHTABLE_LOOKUP "
            "L2_NORMALIZATION LEAKY_RELU LESS LESS_EQUAL LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND "
            "LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL NEG NOT_EQUAL ONE_HOT PACK "
            "PAD POW PRELU QUANTIZE REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 "
            "RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RNN RSQRT SELECT SELECT_V2 SHAPE SIN "
            "SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUEEZE STRIDED_SLICE "
            "SUB SUM TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN "
            "UNPACK"
        ),
        "https://github.com/VeriSilicon/tflite-vx-delegate/blob/main/op_status.md",
    ),
    "ethosu": Published(
        "the Ethos-U",
        _words(
            "ABS ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED "
            "HARD_SWISH LEAKY_RELU LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE RELU "
            "RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SHAPE SLICE SOFTMAX SPLIT "
            "SPLIT_V SQUEEZE STRIDED_SLICE SUB TANH TRANSPOSE_CONV UNPACK"
        ),
        "https://github.com/nxp-imx/ethos-u-vela/blob/090f18a55fcd4f7ae8ca1ae633418d05c62cbb6e/SUPPORTED_OPS.md",
        integers=True,
    ),
    "armnn": Published(
        "Arm NN",  # its page writes REVERSEV2 and SQUARE_DIFFERENCE
        _words(
            "ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_TO CAST CEIL "
            "CONCATENATION CONV_2D CONV_3D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EQUAL EXP "
            "EXPAND_DIMS FILL FLOOR FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GELU GREATER GREATER_EQUAL "
            "HARD_SWISH L2_NORMALIZATION L2_POOL_2D LESS LESS_EQUAL LOCAL_RESPONSE_NORMALIZATION LOG "
            "LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM "
            "MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 POW PRELU QUANTIZE RANK REDUCE_MAX REDUCE_MIN "
            "REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 "
            "RSQRT SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT "
            "SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV "
            "UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
        ),
        "https://arm-software.github.io/armnn/latest/delegate.html",
    ),
}
"""By delegate. There is none for "qnn" here (its maker's page could not be read whole), nor for OpenVINO's devices,
which publish test results and no list, nor for CUDA, where ONNX Runtime itself tells."""

WHOLE = frozenset({"edgetpu", "vx", "qnn", "ethosu"})
"""Delegates of integer units: an int8 file for them is in integers throughout, its ends included, where for a CPU what
is slow in int8 stays in float (for their sources see the targets that name them)."""

OF_INTEGERS = "; the list tells no types, and the unit is made for 8-bit integers: build at int8"


@dataclass(frozen=True)
class Operator:
    """One operator of a file: its TFLite name, and whether all that flows through it are integers."""

    kind: str
    integer: bool


def wants_whole(options: EngineOptions) -> bool:
    """Whether a file for these options is better in integers throughout."""
    return options.device == "delegate" and options.delegate in WHOLE


def covered(artifact: Artifact, options: EngineOptions) -> Artifact:
    """The artifact with a note on what the accelerator of `options` takes of it; as it is, for a CPU.

    Raises:
        Unsupported: less than `options.least` of it is on the list.
    """
    if options.device == "cpu" or (artifact.format == "onnx" and options.device in ("cuda", "tensorrt")):
        return artifact
    listed = PUBLISHED.get(options.delegate or "") if artifact.format == "tflite" else None
    if listed is None:
        on = options.delegate if options.device == "delegate" else options.device
        least = f", and opens there with {100 * options.least:g} % of them at least" if options.least else ""
        return _noted(artifact, f"no list of what {on} takes is known here: it is counted on the device{least}")
    found = counted(listed, tuple(operators(artifact.path)))
    if found.share < options.least:
        raise Unsupported(
            f"{told(listed, found)}; wanted are {100 * options.least:g} %",
            hint="ask for less with --min-accelerated, or use a model without these operators",
        )
    made_for = wants_whole(options) and not listed.integers and artifact.precision != "int8"
    return _noted(artifact, told(listed, found) + (OF_INTEGERS if made_for else ""))


def foreseen(options: EngineOptions, facts: Facts, precision: str) -> str:
    """What can be told of a TFLite source before anything is made, in words; "" where nothing can."""
    listed = PUBLISHED.get(options.delegate or "") if options.device == "delegate" else None
    if listed is None or precision != "int8" or not facts.ops or not all(kind.isupper() for kind in facts.ops):
        return ""
    ops = tuple(Operator(kind, True) for kind, count in facts.ops.items() for _ in range(count))
    found = counted(replace(listed, once=False), ops)  # their order is not known yet
    return f"of the source {'up to ' if listed.once else ''}{told(listed, found)}"


def counted(listed: Published, ops: tuple[Operator, ...]) -> Placement:
    """How many of a file's operators are taken. What comes before the first that is taken ends nothing: inputs may
    have to be quantized first."""
    left: Counter[str] = Counter()
    taken, ended = 0, False
    for op in ops:
        if op.kind in listed.operators and (op.integer or not listed.integers) and not ended:
            taken += 1
            continue
        left[op.kind] += 1
        ended = listed.once and taken > 0
    return Placement(listed.device, taken, dict(left))


def told(listed: Published, found: Placement) -> str:
    """`47 of 49 operators run on the NPU, by its published list (URL); RESIZE_BILINEAR (2) stay on the CPU`."""
    words = f"{found.accelerated} of {found.operators} operators run on {listed.device}, by its published list"
    words += f" ({listed.source})"
    if found.left:
        kinds = sorted(found.left.items(), key=lambda item: (-item[1], item[0]))
        verb = "stays" if sum(found.left.values()) == 1 else "stay"
        words += f"; {', '.join(f'{kind} ({count})' for kind, count in kinds)} {verb} on the CPU"
        words += f", for {listed.limits}" if listed.limits and listed.operators & found.left.keys() else ""
    return words + (f"; {listed.before}" if listed.before else "")


def operators(path: Path) -> Iterator[Operator]:
    """The operators of a TFLite file that was made here, in all its graphs."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    floats = {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.FLOAT64}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex]
            kind = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
            flows = [graph.tensors[index].type for index in (*_list(op.inputs), *_list(op.outputs)) if index >= 0]
            custom = (code.customCode or b"CUSTOM").decode(errors="replace") if kind == "CUSTOM" else kind
            yield Operator(custom, floats.isdisjoint(flows))


def _list(found: Any) -> list[int]:
    return [] if found is None else [int(index) for index in found]


def _noted(artifact: Artifact, note: str) -> Artifact:
    return replace(artifact, notes=(*artifact.notes, note))

"""Static int8 of an ONNX model in QDQ form by ONNX Runtime: per-channel weights, calibrated activations.

Refuses a model that ONNX Runtime cannot prepare or calibrate, with the one line that says why."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx.version_converter
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.tensors import Feeds

from edgekit.model import Tell
from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.onnx_fusible import float_outputs, integer_hard_sigmoid, pooling_for_means
from edgekit.quantizers.onnx_graph import LARGE, all_nodes, load, save
from edgekit.quiet import last_line, quiet

OLDEST, MODERN = 13, 17
"""The first opset with scales per channel, and the one that older models are brought to."""


class _Reader:
    """ONNX Runtime's plug for calibration data: `get_next` until None."""

    def __init__(self, samples: Calibration, tell: Tell) -> None:
        self._samples, self._tell, self._seen = iter(samples), tell, 0
        self._step = max(1, len(samples) // 4)

    def get_next(self) -> Feeds | None:
        self._seen += 1
        if self._seen % self._step == 0:
            self._tell(f"calibrating: sample {self._seen}")
        return next(self._samples, None)


def prepared(path: Path) -> onnx.ModelProto:
    """The model with shapes inferred and constants folded, as far as ONNX Runtime manages for it.

    It runs in a scratch folder: where ONNX Runtime fails, it leaves the model in the working folder.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = path.resolve()
    with TemporaryDirectory(prefix="edgekit-") as scratch:
        out = Path(scratch) / "prepared.onnx"
        large = path.stat().st_size + sum(beside.stat().st_size for beside in path.parent.glob("*.data")) > LARGE
        for skip in ({}, {"skip_symbolic_shape": True}, {"skip_symbolic_shape": True, "skip_optimization": True}):
            try:
                with quiet(), chdir(scratch):
                    quant_pre_process(str(path), str(out), save_as_external_data=large, **skip)
                return load(out)
            except Exception:  # ONNX Runtime raises whatever it meets; the next try asks less of it
                continue
    return load(path)


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at an opset whose DequantizeLinear knows channels."""
    opset = next((found.version for found in model.opset_import if found.domain in ("", "ai.onnx")), MODERN)
    if opset >= OLDEST:
        return model
    try:
        with quiet():
            return onnx.version_converter.convert_version(model, MODERN)
    except Exception as error:  # the converter raises RuntimeError or its own, undocumented
        raise Unsupported(
            f"opset {opset} is too old for int8 and does not convert: {last_line(error)}",
            hint=f"export the model at opset {MODERN}, or use --precision int8-weights",
        ) from error


def _name_apart(graph: onnx.GraphProto) -> None:
    """End every constant's name so that no other follows from it: ONNX Runtime appends a number to the name of a
    bias that it copies, and does not look whether a tensor has that name already (basic-pitch has one)."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {t.name: f"{t.name}__{i}_" for i, t in enumerate(graph.initializer) if t.name not in kept}
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in all_nodes(graph):
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)


def _wide_norms(graph: onnx.GraphProto) -> list[str]:
    """The LayerNormalizations over several axes, by name: ONNX Runtime takes a row of their bias for a number."""
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    found = []
    for index, node in enumerate(graph.node):
        if node.op_type == "LayerNormalization" and any(ranks.get(name, 0) > 1 for name in node.input[1:]):
            node.name = node.name or f"wide_norm_{index}"
            found.append(node.name)
    return found


def quantized_static(
    source: onnx.ModelProto, samples: Calibration, reduce_range: bool, tell: Tell
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The prepared model as it was quantized, and quantized. Of each sample only the ranges are kept."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    source = _modern(source)
    _name_apart(source.graph)
    pooling_for_means(source.graph)
    with TemporaryDirectory(prefix="edgekit-") as scratch:
        before, result = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
        save(source, before)
        try:
            with quiet():
                quantize_static(
                    str(before),
                    str(result),
                    _Reader(samples, tell),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    reduce_range=reduce_range,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=_wide_norms(source.graph),
                    use_external_data_format=before.with_name(f"{before.name}.data").exists(),
                )
        except EdgeKitError:
            raise
        except Exception as error:  # ONNX Runtime raises whatever it meets
            raise Unsupported(
                f"ONNX Runtime cannot quantize this model: {last_line(error)}", hint="use --precision int8-weights"
            ) from error
        made = load(result)
    integer_hard_sigmoid(made.graph)
    float_outputs(made.graph)
    return source, made

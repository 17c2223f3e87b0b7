"""Static int8 of an ONNX graph in QDQ form by ONNX Runtime, with ranges that are known.

Refuses a graph that ONNX Runtime cannot quantize, with the one line that says why."""

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from edgekit_runtime.errors import Unsupported

from edgekit.quantizers.onnx_fusible import finished, worth_integers
from edgekit.quantizers.onnx_graph import LARGE, load, save
from edgekit.quantizers.onnx_ranges import Ranges
from edgekit.quiet import last_line, quiet
from edgekit.recipes import Recipe


def quantized_static(
    source: onnx.ModelProto, ranges: Ranges, recipe: Recipe, keep: Collection[str], only: Collection[str] = ()
) -> onnx.ModelProto:
    """`source` in int8 by the recipe's granularity, without the operators `keep`; of `only` alone, where there are any.

    Raises:
        Unsupported: ONNX Runtime cannot do it.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData, save_tensors_data

    attention = bool(worth_integers(source.graph))  # there a product's own float answer goes on into float operators
    with TemporaryDirectory(prefix="edgekit-") as scratch:
        before, result, table = (Path(scratch) / name for name in ("graph.onnx", "int8.onnx", "ranges.json"))
        save(source, before)
        try:
            with quiet():
                save_tensors_data(TensorsData(CalibrationMethod.MinMax, dict(ranges)), table)
                quantize_static(
                    str(before),
                    str(result),
                    calibration_cache_path=table,
                    quant_format=QuantFormat.QDQ,
                    per_channel=recipe.per_channel,
                    reduce_range=recipe.reduce_range,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=sorted({*keep, *wide_norms(source.graph)}),
                    nodes_to_quantize=sorted(only),
                    extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"] if attention else []},
                    use_external_data_format=source.ByteSize() >= LARGE,
                )
        except Exception as error:  # ONNX Runtime raises whatever it meets
            raise Unsupported(
                f"ONNX Runtime cannot quantize this model: {last_line(error)}", hint="use --precision int8-weights"
            ) from error
        made = load(result)
    finished(made.graph)
    return made


def wide_norms(graph: onnx.GraphProto) -> list[str]:
    """The LayerNormalizations over several axes, by name: ONNX Runtime takes a row of their bias for a number."""
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "LayerNormalization" and any(ranks.get(name, 0) > 1 for name in node.input[1:])
    ]

"""An ONNX graph made ready for int8: shapes inferred, constants folded, every node and constant with a name of its own.

Refuses an opset that knows no scales per channel and does not convert. The same file gives the same names each time."""

import hashlib
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx.version_converter
from edgekit_runtime.errors import Unsupported

from edgekit.quantizers.onnx_fusible import pooling_for_means
from edgekit.quantizers.onnx_graph import LARGE, all_graphs, all_nodes, load
from edgekit.quiet import last_line, quiet

OLDEST, MODERN = 13, 17
"""The first opset with scales per channel, and the one that older models are brought to."""


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


def ready(path: Path) -> onnx.ModelProto:
    """The prepared model as static int8 starts from it: modern, with means as pooling, everything named.

    Raises:
        Unsupported: its opset is too old and does not convert.
    """
    model = _modern(prepared(path))
    _name_nodes(model.graph)
    _name_apart(model.graph)
    pooling_for_means(model.graph)
    return model


def digest(model: onnx.ModelProto) -> str:
    """What the model computes, in 16 hex digits: its nodes and constants, whatever shapes were inferred."""
    hasher = hashlib.sha256()
    for graph in all_graphs(model.graph):
        for part in (*graph.input, *graph.output, *graph.node, *graph.initializer):
            hasher.update(part.SerializeToString(deterministic=True))
    return hasher.hexdigest()[:16]


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


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name that no other has: operators are kept in float by name."""
    seen = set()
    for node in graph.node:
        name = node.name or f"{node.op_type}_{next(filter(None, node.output), 'nothing')}"
        while name in seen:
            name += "_again"
        node.name = name
        seen.add(name)


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

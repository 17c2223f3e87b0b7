"""SavedModel to ONNX by tf2onnx, with the operators that it lacks.

Refuses a graph with operators that ONNX does not know: tf2onnx writes those down without an error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import gist, quiet
from edgekit.sources.saved_model import open_saved_model
from edgekit.sources.tf_calls import tensorflow
from edgekit.sources.tf_graph import Frozen, dressed

OPSET = 18


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.onnx`.

    Raises:
        Unsupported: tf2onnx cannot do this model, or does it wrongly.
    """
    tell("converting the SavedModel to ONNX with tf2onnx")
    return from_graph(model, open_saved_model(model.forms["saved_model"]).freeze(), folder)


def from_graph(model: Model, frozen: Frozen, folder: Path) -> Artifact:
    """Write `model.onnx` from the model's frozen graph. Raises as `convert` does."""
    tensorflow()
    frozen = dressed(frozen, {spec.name: spec.shape for spec in model.inputs})
    names = {tensor: name for name, tensor in [*frozen.inputs.items(), *frozen.outputs.items()]}
    try:
        with quiet():
            import tf2onnx

            made, _ = tf2onnx.convert.from_graph_def(
                frozen.graph,
                name=model.name,
                input_names=list(frozen.inputs.values()),
                output_names=list(frozen.outputs.values()),
                opset=OPSET,
                custom_op_handlers=HANDLERS,
                tensors_to_rename=names,
            )
    except Exception as error:  # tf2onnx raises whatever its rewriting meets
        raise Unsupported(f"tf2onnx cannot convert this model: {gist(error)}", hint="use another --format") from error
    return save(model, made, folder, model.facts.precision)


def save(model: Model, made: Any, folder: Path, precision: str) -> Artifact:
    """Write what tf2onnx made, if it is ONNX. Raises as `convert` does."""
    if foreign := sorted({node.op_type for node in made.graph.node if not _known(node)}):
        raise Unsupported(f"tf2onnx has no way to write {', '.join(foreign)} in ONNX", hint="use another --format")
    path = folder / "model.onnx"
    onnx.save(made, path)
    return match(model, "onnx", path, precision)


def _known(node: Any) -> bool:
    return bool(node.domain) or onnx.defs.has(node.op_type)


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """erfc(x) = 1 - erf(x): what Keras's exact gelu is made of."""
    dtype = ctx.get_dtype(node.output[0])
    shape = ctx.get_shape(node.output[0])
    one = ctx.make_const(f"{name}_one", np.array(1, onnx.helper.tensor_dtype_to_np_dtype(dtype)))
    erf = ctx.make_node("Erf", [node.input[0]])
    output = node.output[0]
    ctx.remove_node(node.name)
    ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], name=name, shapes=[shape], dtypes=[dtype])


HANDLERS: dict[str, tuple[Callable[[Any, Any, str, Any], None], list[Any]]] = {"Erfc": (_erfc, [])}
"""Operators that tf2onnx 1.17 lacks, as it wants them: for one call, registered nowhere."""

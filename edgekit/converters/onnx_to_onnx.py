"""ONNX to ONNX: the same graph with its weights, alone in a folder.

Refuses a graph that ONNX Runtime cannot load."""

import shutil
from pathlib import Path

import onnx

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.sources.onnx_data import data_files
from edgekit.sources.onnx_shapes import save

OPSET = 13
"""The first in which weights may have a scale for each channel."""
CONSTANTS_ALONE = 4
"""The first version of the format whose constants need not be inputs too."""


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Copy the model to `model.onnx` in `folder`, its external data with it.

    Raises:
        Unsupported: it does not load.
    """
    source: Path = model.forms["onnx"]
    target = folder / "model.onnx"
    proto = onnx.load(source, load_external_data=False)
    if _without_optional_inputs(proto) or data_files(proto, source):
        save(proto, source, target)
    else:
        shutil.copyfile(source, target)
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=OPSET)
    notes = (f"its opset is {opset}, and per-channel quantization wants {OPSET}",) if opset < OPSET else ()
    return match(model, "onnx", target, model.facts.precision, notes)


def _without_optional_inputs(proto: onnx.ModelProto) -> bool:
    """Make weights that are listed among the inputs too, as files of IR 3 list all, constants: ONNX Runtime neither
    folds nor quantizes what a caller could give. Whether there were any."""
    held = {tensor.name for tensor in proto.graph.initializer}
    needed = [value for value in proto.graph.input if value.name not in held]
    if len(needed) == len(proto.graph.input):
        return False
    del proto.graph.input[:]
    proto.graph.input.extend(needed)
    proto.ir_version = max(proto.ir_version, CONSTANTS_ALONE)
    return True

"""The table of routes: from a form of the model to a float artifact of a format, step by step.

Each step is a module with `convert(model, folder, tell) -> Artifact`. Refuses a pair without a route."""

from importlib import import_module
from pathlib import Path

from edgekit_runtime.errors import Unsupported

from edgekit.extras import needs
from edgekit.model import Artifact, Model, Tell

ROUTES: dict[tuple[str, str], tuple[str, ...]] = {
    ("onnx", "onnx"): ("edgekit.converters.onnx_to_onnx",),
    ("onnx", "openvino"): ("edgekit.converters.onnx_to_openvino",),
    ("onnx", "tflite"): ("edgekit.converters.onnx_to_tflite",),
    ("torch", "onnx"): ("edgekit.converters.torch_to_onnx",),
    ("torch", "openvino"): ("edgekit.converters.torch_to_onnx", "edgekit.converters.onnx_to_openvino"),
    ("torch", "tflite"): ("edgekit.converters.torch_to_tflite",),
    ("torchscript", "onnx"): ("edgekit.converters.torchscript_to_onnx",),
    ("torchscript", "openvino"): ("edgekit.converters.torchscript_to_openvino",),
    ("torchscript", "tflite"): ("edgekit.converters.torchscript_to_onnx", "edgekit.converters.onnx_to_tflite"),
    ("keras", "onnx"): ("edgekit.converters.keras_to_onnx",),
    ("keras", "openvino"): ("edgekit.converters.keras_to_openvino",),
    ("keras", "tflite"): ("edgekit.converters.keras_to_tflite",),
    ("saved_model", "onnx"): ("edgekit.converters.saved_model_to_onnx",),
    ("saved_model", "openvino"): ("edgekit.converters.saved_model_to_openvino",),
    ("saved_model", "tflite"): ("edgekit.converters.saved_model_to_tflite",),
    ("tflite", "onnx"): ("edgekit.converters.tflite_to_onnx",),
    ("tflite", "openvino"): ("edgekit.converters.tflite_to_openvino",),
    ("tflite", "tflite"): ("edgekit.converters.tflite_to_tflite",),
}
"""(form, format) -> the steps; the artifact of a step is the form that the next starts from."""


def route(model: Model, format: str) -> tuple[str, ...]:
    """The steps from the first of the model's forms that has a way to `format`.

    Raises:
        Unsupported: there is none.
    """
    for form in model.forms:
        if (form, format) in ROUTES:
            return ROUTES[form, format]
    ways = sorted({there for form, there in ROUTES if form in model.forms})
    raise Unsupported(
        f"no way from {' or '.join(model.forms)} to {format}",
        hint=f"use --format {ways[0]}" if ways else "export the model as ONNX first",
    )


def convert(step: str, model: Model, folder: Path, tell: Tell) -> Artifact:
    """One step of a route: writes the artifact into `folder`, alone there. Believe nothing: check parity after it.

    Raises:
        Unsupported: the converter cannot do this model.
    """
    with needs(f"the step {step.rpartition('.')[2].replace('_', ' ')}"):
        artifact: Artifact = import_module(step).convert(model, folder, tell)
    return artifact

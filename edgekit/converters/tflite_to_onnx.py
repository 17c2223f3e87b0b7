"""TFLite to ONNX by tf2onnx, of a float file; what it makes is believed by its numbers alone.

Refuses a quantized file, one that keeps state, and what tf2onnx gets wrong: it does so without an error."""

from pathlib import Path

from edgekit_runtime.errors import Unsupported

from edgekit.converters.saved_model_to_onnx import OPSET, save
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import gist, quiet
from edgekit.sources.tf_calls import tensorflow
from edgekit.sources.tflite import keeps_state


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.onnx`.

    Raises:
        Unsupported: tf2onnx cannot do this file, or does it wrongly.
    """
    if keeps_state(model.facts.ops):
        raise Unsupported(
            f"{model.name} keeps state between calls in resource variables, and ONNX has none",
            hint="use --format tflite",
        )
    if model.facts.precision not in ("float32", "float16"):
        raise Unsupported(
            f"{model.name} is already quantized ({model.facts.precision}), and that does not carry over to ONNX",
            hint="use --format tflite, or start from the float model",
        )
    tell("converting the TFLite file to ONNX with tf2onnx")
    tensorflow()
    try:
        with quiet():
            import tf2onnx

            made, _ = tf2onnx.convert.from_tflite(str(model.forms["tflite"]), opset=OPSET)
    except Exception as error:  # tf2onnx raises whatever its rewriting meets
        raise Unsupported(f"tf2onnx cannot convert this file: {gist(error)}", hint="use --format tflite") from error
    return save(model, made, folder, "float32")  # tf2onnx widens half constants

"""TFLite to OpenVINO by its own TFLite reader.

Refuses a file that keeps state between calls, and one whose integers OpenVINO reads differently."""

from pathlib import Path

from edgekit_runtime.engines.openvino import ov
from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import gist, quiet
from edgekit.sources.tflite import keeps_state, ports


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.xml` and `model.bin`.

    Raises:
        Unsupported: OpenVINO cannot do this file, or does it wrongly.
    """
    if keeps_state(model.facts.ops):
        raise Unsupported(
            f"{model.name} keeps state between calls in resource variables, and OpenVINO does not read those",
            hint="use --format tflite",
        )
    inputs, outputs = ports(model.forms["tflite"])
    if any(port.inside.scale is not None for port in [*inputs, *outputs]):
        raise Unsupported(
            f"{model.name} takes or gives integers with a scale, and OpenVINO drops the scale",
            hint="use --format tflite, or quantize the float model with float inputs and outputs",
        )
    tell("converting the TFLite file to OpenVINO")
    path = folder / "model.xml"
    try:
        with quiet():
            made = ov.convert_model(model.forms["tflite"])
    except Exception as error:  # OpenVINO's frontends raise several unrelated kinds
        raise Unsupported(f"OpenVINO cannot read this file: {gist(error)}", hint="use --format tflite") from error
    ov.save_model(made, path, compress_to_fp16=False)
    return match(model, "openvino", path, model.facts.precision)

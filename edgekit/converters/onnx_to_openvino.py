"""ONNX to OpenVINO's own format, with float32 weights left float32.

Refuses a model with operators or types that OpenVINO lacks, and a file that answers differently."""

from pathlib import Path

from edgekit_runtime.engines.openvino import ov
from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import quiet


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.xml` and `model.bin` into `folder`.

    Raises:
        Unsupported: OpenVINO cannot do it, or does it wrong.
    """
    path = folder / "model.xml"
    with quiet():
        try:
            ov.save_model(ov.convert_model(str(model.forms["onnx"])), path, compress_to_fp16=False)
        except Exception as error:  # OpenVINO's front ends raise RuntimeError and classes of their own
            raise Unsupported(
                f"OpenVINO does not convert this model: {telling(error)}", hint="use --format onnx"
            ) from error
    return match(model, "openvino", path, model.facts.precision)


def telling(error: Exception) -> str:
    """The lines of OpenVINO's error that say what was wrong, and not where in its sources."""
    where = ("Exception from", "Check '", "While ", "Summary", "FrontEnd API failed", "Model wasn't", "[ONNX Frontend]")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(where)] or lines
    return (" ".join(lines[:2]) if lines else type(error).__name__).removeprefix("-- ")[:300]

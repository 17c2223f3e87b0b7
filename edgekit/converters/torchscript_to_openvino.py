"""TorchScript to OpenVINO's own format: directly, else by way of ONNX.

Refuses a module that neither way can do, and a file that answers differently."""

import tempfile
from pathlib import Path

from edgekit_runtime.engines.openvino import ov
from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import match
from edgekit.converters.onnx_to_openvino import telling
from edgekit.converters.torch_to_onnx import write_recorded
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import quiet
from edgekit.sources.torch_calls import TorchForm


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.xml` and `model.bin` into `folder`.

    Raises:
        Unsupported: OpenVINO cannot do it, or does it wrong.
    """
    reasons = []
    for way in (_directly, _by_onnx):
        path = folder / "model.xml"
        try:
            with quiet():
                way(model, path)
            return match(model, "openvino", path, model.facts.precision)
        except Unsupported as error:
            reasons.append(error.what)
        except Exception as error:  # OpenVINO's front ends and PyTorch's exporter have many classes of errors
            reasons.append(telling(error))
    raise Unsupported(f"OpenVINO does not convert this TorchScript: {reasons[-1]}", hint="use --format onnx")


def _directly(model: Model, path: Path) -> None:
    form: TorchForm = model.forms["torchscript"]
    made = ov.convert_model(form.flat.module, example_input=form.example)
    sizes = [ov.PartialShape([-1 if n is None else n for n in spec.shape]) for spec in model.inputs]
    made.reshape(dict(zip(made.inputs, sizes, strict=True)))
    ov.save_model(made, path, compress_to_fp16=False)


def _by_onnx(model: Model, path: Path) -> None:
    form: TorchForm = model.forms["torchscript"]
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "model.onnx"
        write_recorded(form.flat.module, form.example, model, between)
        ov.save_model(ov.convert_model(str(between)), path, compress_to_fp16=False)

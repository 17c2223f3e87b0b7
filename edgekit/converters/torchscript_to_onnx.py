"""TorchScript to ONNX, by the exporter that records a run.

Refuses what that exporter cannot do, and a file that answers differently."""

from pathlib import Path

from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import match
from edgekit.converters.torch_to_onnx import write_recorded
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import quiet
from edgekit.sources.torch_calls import TorchForm, one_line


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.onnx` into `folder`.

    Raises:
        Unsupported: the exporter cannot do this model, or does it wrong.
    """
    form: TorchForm = model.forms["torchscript"]
    path = folder / "model.onnx"
    with quiet():
        try:
            write_recorded(form.flat.module, form.example, model, path)
        except Exception as error:  # the exporter raises errors of many classes, some with no common base
            raise Unsupported(
                f"PyTorch does not export this TorchScript as ONNX: {one_line(error)}",
                hint="export the module itself: torch.export.save(torch.export.export(model, args), 'model.pt2')",
            ) from error
    return match(model, "onnx", path, model.facts.precision)

"""PyTorch to TFLite by litert-torch: every size fixed, a free batch as one, images with their channels last.

Refuses a free axis that is not the batch, and a file that answers differently from the module."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import TensorSpec

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import quiet
from edgekit.sources.torch_calls import TorchForm, one_line


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.tflite` into `folder`.

    Raises:
        Unsupported: a size is free, litert-torch cannot do the model, or does it wrong.
    """
    refuse_free_axes(model)
    with quiet(), quiet():
        import litert_torch
    form: TorchForm = model.forms["torch"]
    path = folder / "model.tflite"
    images = [i for i, spec in enumerate(model.inputs) if _is_image(spec, model)]
    example = tuple(_one(spec, value) for spec, value in zip(model.inputs, form.example, strict=True))
    module: torch.nn.Module = form.flat
    if images:
        module = litert_torch.to_channel_last_io(module, args=images)
        example = tuple(
            value.permute(0, 2, 3, 1).contiguous() if i in images else value for i, value in enumerate(example)
        )
    with quiet(), quiet(), _plain_attention():
        try:
            litert_torch.convert(module.eval(), example).export(str(path))
        except Exception as error:  # torch.export, jax and the converter each have errors of their own
            raise Unsupported(
                f"litert-torch does not convert this model: {one_line(error)}", hint="use --format onnx or openvino"
            ) from error
    return match(model, "tflite", path, model.facts.precision)


def refuse_free_axes(model: Model) -> None:
    """Raise unless the first axes alone are free."""
    for spec in model.inputs:
        if None in spec.shape[1:]:
            axes = model.axes[spec.name]
            example = "x".join(str(n) if isinstance(n, int) else "1" if i == 0 else "32" for i, n in enumerate(axes))
            kind = "" if spec.dtype == "float32" else f":{spec.dtype}"
            raise Unsupported(
                f"TFLite files have fixed sizes, and {spec} is free beyond the batch",
                hint=f"fix it, as in --shape {spec.name}={example}{kind}, or use --format onnx",
            )


def _is_image(spec: TensorSpec, model: Model) -> bool:
    convolves = any("conv" in name.lower() for name in model.facts.ops)
    return len(spec.shape) == 4 and spec.dtype.startswith("float") and convolves


def _one(spec: TensorSpec, value: torch.Tensor) -> torch.Tensor:
    """An example with a batch of one where the batch is free."""
    return value[:1].contiguous() if spec.shape and spec.shape[0] is None else value


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused attention of inference mode, which no converter knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

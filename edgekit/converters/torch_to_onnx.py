"""PyTorch to ONNX: by the exporter that traces programs, else by the old one that records a run.

Refuses a model that neither can export, and a file that answers differently from the module."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import quiet
from edgekit.sources.torch_calls import TorchForm, one_line

OPSET = 20
OLD_OPSET = 17
TOO_BIG = 1 << 30
"""Weights beyond this lie in a file beside the graph: a protobuf ends at 2 GiB."""


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.onnx` into `folder`: the first way whose file answers as the module does.

    Raises:
        Unsupported: no way does.
    """
    path = folder / "model.onnx"
    ways: list[tuple[Callable[[Model, Path], None], str]] = [
        (trace, ""),
        (record, "exported by PyTorch's old exporter: the new one could not do this model"),
    ]
    reasons = []
    for way, note in ways:
        for left in folder.iterdir():
            left.unlink()
        try:
            with quiet(), _fresh_kernels():
                way(model, path)
            return match(model, "onnx", path, model.facts.precision, (note,) if note else ())
        except Unsupported as error:
            reasons.append(error.what)
        except Exception as error:  # the exporters raise errors of many classes, some with no common base
            reasons.append(one_line(error))
        tell(f"PyTorch's exporter failed ({reasons[-1][:80]}); trying the other one")
    raise Unsupported(f"PyTorch does not export this model as ONNX: {reasons[0]}", hint="use --format tflite")


def trace(model: Model, path: Path) -> None:
    """By `torch.export`, with the sizes that are free for the user free in the file."""
    form: TorchForm = model.forms["torch"]
    names = onnx_names(model)
    if form.program is not None:
        made = torch.onnx.export(form.program, dynamo=True, opset_version=OPSET, verbose=False, **names)
    else:
        dims = {n: torch.export.Dim(n) for axes in model.axes.values() for n in axes if isinstance(n, str)}
        free = tuple(
            {i: dims[n] for i, n in enumerate(model.axes[spec.name]) if isinstance(n, str)} for spec in model.inputs
        )
        made = torch.onnx.export(
            form.flat, form.example, dynamo=True, dynamic_shapes=(free,), opset_version=OPSET, verbose=False, **names
        )
    assert made is not None
    _forget_code(made)
    made.save(path, external_data=model.facts.bytes > TOO_BIG)


def _forget_code(made: torch.onnx.ONNXProgram) -> None:
    """Drop the exporter's notes on the code, its lines and where it lies: as large as the weights of a small model."""
    graph = made.model.graph
    nodes = list(graph.all_nodes())
    values = (*graph.inputs, *graph.initializers.values(), *(value for node in nodes for value in node.outputs))
    graph.metadata_props.clear()
    for node in nodes:
        node.metadata_props.clear()
    for value in values:
        value.metadata_props.clear()


@contextmanager
def _fresh_kernels() -> Iterator[None]:
    """PyTorch 2.13 swaps the kernels of recurrent layers while it exports and forgets that they are cached.

    Without this, the second export in a process bakes the length of the example into the file.
    """
    recurrent = [torch.ops.aten.lstm.input, torch.ops.aten.gru.input]
    for op in recurrent:
        op._dispatch_cache.clear()
    try:
        yield
    finally:
        for op in recurrent:
            op._dispatch_cache.clear()


def record(model: Model, path: Path) -> None:
    """By running the module once and writing down what it did."""
    form: TorchForm = model.forms["torch"]
    write_recorded(form.flat, form.example, model, path)


def write_recorded(module: torch.nn.Module, example: tuple[torch.Tensor, ...], model: Model, path: Path) -> None:
    """The old exporter, on `module`, with the free sizes of `model`."""
    names = onnx_names(model)
    free: dict[str, dict[int, str]] = {}
    for spec in model.inputs:
        free[spec.name] = {i: n for i, n in enumerate(model.axes[spec.name]) if isinstance(n, str)}
    for name, spec in zip(names["output_names"], model.outputs, strict=True):
        free[name] = {i: f"{name}_{i}" for i, n in enumerate(spec.shape) if n is None}
    torch.onnx.export(module, example, str(path), dynamo=False, opset_version=OLD_OPSET, dynamic_axes=free, **names)


def onnx_names(model: Model) -> dict[str, Any]:
    """The user's names; an output called as an input is gets another name inside the file."""
    inputs = [spec.name for spec in model.inputs]
    return {
        "input_names": inputs,
        "output_names": [f"{s.name}_out" if s.name in inputs else s.name for s in model.outputs],
    }

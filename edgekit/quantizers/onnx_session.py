"""Run an ONNX graph while it is being quantized: a session on a graph or a file, with more outputs than it has.

Refuses nothing; errors are ONNX Runtime's own, told by who asked."""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from edgekit_runtime.tensors import Feeds

from edgekit.quantizers.onnx_graph import save

CRASHING = ["MatmulTransposeFusion"]
"""An optimizer that ends the process on some graphs; the runtime's engine leaves it out too."""


def open_session(path: Path, plain: bool = False) -> Any:
    """A session that does not spin; `plain` runs the graph as it is written, so that every tensor exists."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised, and told once
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if plain:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        str(path), settings, providers=["CPUExecutionProvider"], disabled_optimizers=None if plain else CRASHING
    )


def runner(model: onnx.ModelProto, outputs: Iterable[str], plain: bool = False) -> Callable[[Feeds], Feeds]:
    """The graph as a function that gives these tensors, whether they are its outputs or not."""
    names = list(outputs)
    grown = onnx.ModelProto()
    grown.CopyFrom(model)
    known = {info.name for info in grown.graph.output}
    grown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    with TemporaryDirectory(prefix="edgekit-") as scratch:
        path = Path(scratch) / "graph.onnx"
        save(grown, path)
        session = open_session(path, plain)
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))

"""SavedModel to OpenVINO by its own TensorFlow reader, float32 kept as it is.

Refuses a graph with operators that OpenVINO has no rule for."""

from pathlib import Path
from tempfile import TemporaryDirectory

from edgekit_runtime.engines.openvino import ov
from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import gist, quiet
from edgekit.sources.saved_model import open_saved_model
from edgekit.sources.tf_graph import Frozen, dressed


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.xml` and `model.bin`.

    Raises:
        Unsupported: OpenVINO cannot do this model, or does it wrongly.
    """
    tell("converting the SavedModel to OpenVINO")
    return from_graph(model, open_saved_model(model.forms["saved_model"]).freeze(), folder)


def from_graph(model: Model, frozen: Frozen, folder: Path) -> Artifact:
    """Write `model.xml` from the model's frozen graph. Raises as `convert` does."""
    frozen = dressed(frozen, {spec.name: spec.shape for spec in model.inputs})
    path = folder / "model.xml"
    with TemporaryDirectory() as scratch:
        graph = Path(scratch) / "graph.pb"
        graph.write_bytes(frozen.graph.SerializeToString())
        try:
            with quiet():
                made = ov.convert_model(graph)
        except Exception as error:  # OpenVINO's frontends raise several unrelated kinds
            raise Unsupported(f"OpenVINO cannot read this model: {gist(error)}", hint="use another --format") from error
        names = {tensor: name for name, tensor in [*frozen.inputs.items(), *frozen.outputs.items()]}
        for port in [*made.inputs, *made.outputs]:
            if user := [names[name] for name in port.get_names() if name in names]:
                port.get_tensor().set_names(set(user))
        ov.save_model(made, path, compress_to_fp16=False)
    return match(model, "openvino", path, model.facts.precision)

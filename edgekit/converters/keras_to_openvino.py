"""Keras to OpenVINO by its TensorFlow reader, from the traced graph.

Refuses what `saved_model_to_openvino` refuses."""

from pathlib import Path

from edgekit.converters.keras_graph import freeze
from edgekit.converters.saved_model_to_openvino import from_graph
from edgekit.model import Artifact, Model, Tell


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.xml` and `model.bin`.

    Raises:
        Unsupported: OpenVINO cannot do this model, or does it wrongly.
    """
    tell("converting the Keras model to OpenVINO")
    return from_graph(model, freeze(model), folder)

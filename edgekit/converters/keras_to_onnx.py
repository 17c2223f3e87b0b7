"""Keras to ONNX by tf2onnx, from the traced graph.

Refuses what `saved_model_to_onnx` refuses."""

from pathlib import Path

from edgekit.converters.keras_graph import freeze
from edgekit.converters.saved_model_to_onnx import from_graph
from edgekit.model import Artifact, Model, Tell


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.onnx`.

    Raises:
        Unsupported: tf2onnx cannot do this model, or does it wrongly.
    """
    tell("converting the Keras model to ONNX with tf2onnx")
    return from_graph(model, freeze(model), folder)

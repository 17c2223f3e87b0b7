"""Keras to TFLite by TensorFlow's converter; short recurrent layers are written out step by step, longer ones loop
over one sample at a time. Refuses what `saved_model_to_tflite` refuses."""

from pathlib import Path

from edgekit.converters.keras_graph import freeze, steps
from edgekit.converters.saved_model_to_tflite import ONE, Attempt, first_right, has_free_batch, shapes
from edgekit.model import Artifact, Model, Tell
from edgekit.sources.tf_graph import dressed

MOST_STEPS = 64
"""Beyond this a written out layer makes a file too large and slow to convert."""
UNROLLED = "recurrent layers are written out step by step, for the length that is fixed"


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.tflite`: written out it quantizes and keeps a free batch, so that is tried first.

    Raises:
        Unsupported: no attempt gives a file that loads and answers as the source does.
    """
    tell("converting the Keras model to TFLite with TensorFlow's converter")
    length = steps(model)
    attempts: list[Attempt] = [(lambda: dressed(freeze(model), shapes(model)), "")]
    if has_free_batch(model):
        attempts.append((lambda: dressed(freeze(model, batch=1), shapes(model, batch=1)), ONE))
    if length is not None and 0 < length <= MOST_STEPS:
        attempts.insert(0, (lambda: dressed(freeze(model, unroll=True), shapes(model)), UNROLLED))
    return first_right(model, attempts, folder, tell)

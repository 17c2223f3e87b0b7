"""TFLite to TFLite: the file as it is, at the precision it came in.

Refuses nothing that the source has read: its own tensors are the contract."""

import shutil
from pathlib import Path

from edgekit.model import Artifact, Model, Tell
from edgekit.sources.tflite import keeps_state, ports

STATE = "the file remembers earlier calls: feed it one stream, in order"


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Copy the file to `model.tflite`."""
    tell("copying the TFLite file")
    path = folder / "model.tflite"
    shutil.copyfile(model.forms["tflite"], path)
    inputs, outputs = ports(path)
    notes = (STATE,) if keeps_state(model.facts.ops) else ()
    return Artifact("tflite", model.facts.precision, path, inputs, outputs, notes)

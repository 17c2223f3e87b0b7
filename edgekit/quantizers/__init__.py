"""The table of quantizers: each is a module with `quantize(artifact, wish, folder, tell)` for one format.

Refuses a precision that the format cannot hold, naming the nearest that it can."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from edgekit_runtime.tensors import Feeds

from edgekit.extras import needs
from edgekit.model import Artifact, Tell

QUANTIZERS = {
    "onnx": "edgekit.quantizers.onnx",
    "openvino": "edgekit.quantizers.openvino",
    "tflite": "edgekit.quantizers.tflite",
}


@dataclass(frozen=True)
class Wish:
    """What to make of a float artifact.

    `calibration` gives the calibration samples anew at each call, as feeds of the user's tensors
    with a batch of one; None where the user gave no data. `reduce_range` asks for 7-bit weights,
    right on CPUs whose 8-bit multiply-add saturates. `integer_io` leaves the file's inputs and
    outputs integer for the user too.
    """

    precision: str
    calibration: Callable[[], Iterator[Feeds]] | None = None
    samples: int = 0
    reduce_range: bool = False
    integer_io: bool = False


def quantize(artifact: Artifact, wish: Wish, folder: Path, tell: Tell) -> Artifact:
    """Write the artifact at `wish.precision` into `folder`, alone there.

    Raises:
        Unsupported: this format or this model cannot be had at that precision.
    """
    with needs(f"quantizing {artifact.format}"):
        made: Artifact = import_module(QUANTIZERS[artifact.format]).quantize(artifact, wish, folder, tell)
    return made

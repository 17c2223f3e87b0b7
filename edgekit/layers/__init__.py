"""Look inside an artifact: the error of each layer beside the float file, and what each operator costs.

Refuses nothing but a format that is not in the table; a tensor that has no partner in the other file is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from edgekit_runtime.tensors import Feeds

from edgekit.model import Artifact

LAYERS = {
    "onnx": "edgekit.layers.onnx",
    "openvino": "edgekit.layers.openvino",
    "tflite": "edgekit.layers.tflite",
}
"""Format -> the module with `errors` and `profile`, called as below."""


@dataclass(frozen=True)
class Layer:
    """One operator's result in the quantized file beside the same tensor of the float file.

    `error` is the norm of the difference in parts of the float tensor's norm, over all feeds (infinite where the
    quantized file has no number); `place` counts from the input of the model. `op` tells operators that the
    quantized file fused, such as "Conv+Relu". `inherited` is the largest error among the layers it is computed from.
    """

    place: int
    name: str
    op: str
    error: float
    cosine: float
    inherited: float = 0.0

    @property
    def added(self) -> float:
        """What this layer adds to the error that came to it: the largest is the layer to look at first."""
        return self.error - self.inherited if self.error > self.inherited else 0.0


@dataclass(frozen=True)
class Cost:
    """What one kind of operator takes in one inference: its kernel as the engine names it, whether it computes in
    integers, how many there are, and their time in ms (NaN where the engine does not tell)."""

    kernel: str
    integer: bool
    count: int
    ms: float


def errors(made: Artifact, source: Artifact, feeds: Sequence[Feeds]) -> tuple[Layer, ...]:
    """How far every layer of `made` is from the float file it was made from, on the user's `feeds`, by place."""
    found: tuple[Layer, ...] = import_module(LAYERS[made.format]).errors(made, source, feeds)
    return found


def profile(artifact: Artifact, feeds: Feeds) -> tuple[Cost, ...]:
    """What the kinds of operators of an artifact cost on one thread, the dearest first."""
    found: tuple[Cost, ...] = import_module(LAYERS[artifact.format]).profile(artifact, feeds)
    return found

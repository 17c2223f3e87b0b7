"""The table of quantizers: each is a module with `quantize` and `sensitivity` for one format, called as below.

Refuses a precision that the format cannot hold, naming the nearest that it can."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from edgekit_runtime.tensors import Feeds

from edgekit.extras import needs
from edgekit.model import Artifact, Tell
from edgekit.recipes import Group, Recipe

QUANTIZERS = {
    "onnx": "edgekit.quantizers.onnx",
    "openvino": "edgekit.quantizers.openvino",
    "tflite": "edgekit.quantizers.tflite",
}


@dataclass(frozen=True)
class Wish:
    """What to make of a float artifact.

    `calibration` gives the calibration samples anew at each call, as feeds of the user's tensors
    with a batch of one; None where the user gave no data. `integer_io` leaves the file's inputs and
    outputs integer for the user too. `statistics` is a folder where a quantizer may keep what calibration
    found, for the next recipe on the same file and samples; None where nothing is kept. `whole` is for units that
    compute in integers alone: nothing stays in float for a CPU's speed, and the user sees real numbers all the same.
    """

    recipe: Recipe
    calibration: Callable[[], Iterator[Feeds]] | None = None
    samples: int = 0
    integer_io: bool = False
    statistics: Path | None = None
    whole: bool = False

    @property
    def precision(self) -> str:
        """What the recipe asks for."""
        return self.recipe.precision


def quantize(artifact: Artifact, wish: Wish, folder: Path, tell: Tell) -> Artifact:
    """Write the artifact by `wish.recipe` into `folder`, alone there.

    Raises:
        Unsupported: this format or this model cannot be had so.
    """
    with needs(f"quantizing {artifact.format}"):
        made: Artifact = import_module(QUANTIZERS[artifact.format]).quantize(artifact, wish, folder, tell)
    return made


def sensitivity(artifact: Artifact, wish: Wish, scratch: Path, tell: Tell) -> tuple[Group, ...]:
    """All operators that int8 could hold, in groups, with what quantizing each group alone does to the answers,
    measured on the wish's calibration samples. `Recipe.keep` takes these operators' names.

    Raises:
        Unsupported: this format or this model cannot be looked at so.
    """
    with needs(f"quantizing {artifact.format}"):
        found: tuple[Group, ...] = import_module(QUANTIZERS[artifact.format]).sensitivity(artifact, wish, scratch, tell)
    return found

"""The recipes for each format and precision, from the cheapest to the dearest. Pure.

Refuses nothing: what a tool cannot do to a model, its quantizer says when it is asked."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from edgekit.recipes import Recipe

CONVOLVES, ATTENDS = ("conv",), ("matmul", "linear", "dense", "gemm", "fully", "attention", "einsum")
"""Words in the names of operators: what can be equalized, and what can be smoothed."""


@dataclass(frozen=True)
class Rung:
    """A recipe, why it is worth a try, and whether the sensitive operators are to be found and left in float."""

    recipe: Recipe
    why: str
    mixed: bool = False


PLAIN = Rung(Recipe("int8"), "")
CORRECTED = Rung(Recipe("int8", correct_bias=True), "takes the mean error of rounding out of the biases")
MSE = Rung(Recipe("int8", ranges="mse"), "the range of least squared error cuts off outliers of the activations")
PERCENTILE = Rung(Recipe("int8", ranges="percentile"), "cuts off the rarest values of the activations")
NARROW, NARROWER, NARROWEST = (
    Rung(Recipe("int8", ranges="percentile", percentile=part), "cuts off more of the outlying values")
    for part in (99.9, 99.5, 98.0)
)
BOTH = Rung(Recipe("int8", ranges="mse", correct_bias=True), "cuts off outliers and corrects the biases")
EQUALIZED = Rung(Recipe("int8", equalize=True), "evens out channels of uneven size")
SMOOTHED = Rung(Recipe("int8", smooth=True), "moves outliers of the activations into the weights")
MIXED = Rung(Recipe("int8"), "leaves the operators in float that cost the most quality, as measured", mixed=True)
MIXED_MSE = Rung(
    Recipe("int8", ranges="mse"), "the sensitive operators in float, and the range of least squared error", mixed=True
)
ENTROPY = Rung(Recipe("int8", ranges="entropy"), "keeps most of what the activations tell (KL divergence)")
PER_TENSOR = Rung(Recipe("int8", per_channel=False), "one scale a tensor, as some accelerators want it")

LONG = (
    *(PLAIN, CORRECTED, MSE, EQUALIZED, PERCENTILE, NARROW, NARROWER, NARROWEST),
    *(SMOOTHED, BOTH, MIXED, MIXED_MSE, ENTROPY, PER_TENSOR),
)
STATIC: dict[str, tuple[Rung, ...]] = {
    "onnx": LONG,
    "openvino": (
        *(PLAIN, MSE, SMOOTHED, EQUALIZED, CORRECTED, PERCENTILE),
        *(NARROW, NARROWER, NARROWEST, MIXED, MIXED_MSE, PER_TENSOR),
    ),
    "tflite": LONG,
}
"""Format -> what may be tried for static int8, in the order of what it takes and of how often it helped on
EfficientNet-Lite0, three small networks on Fashion-MNIST and a transformer."""


def ladder(format: str, precision: str, ops: Collection[str], saturates: bool, emulated: bool) -> tuple[Rung, ...]:
    """The rungs for one format and precision.

    `saturates` says that the target's 8-bit multiply-add does, so that 7-bit weights come first; `emulated`, that
    the files will be scored on the target's instruction set, so that the other width of weights may be tried too.
    """
    if precision != "int8":
        return (Rung(Recipe(precision), ""),)
    found = [rung for rung in STATIC.get(format, (PLAIN,)) if _fits(rung, ops)]
    if format != "tflite" and (saturates or emulated):
        first, *rest = found
        narrow = replace(first, recipe=replace(first.recipe, reduce_range=True))
        if saturates:
            found = [_narrow(rung) for rung in found]
            found[1:1] = [
                replace(first, why="8-bit weights, as far as scoring on the instruction set allows it")
            ] * emulated
        else:
            found = [first, replace(narrow, why="7-bit weights, right where an 8-bit multiply-add saturates"), *rest]
    return tuple(found)


def _narrow(rung: Rung) -> Rung:
    return replace(rung, recipe=replace(rung.recipe, reduce_range=True))


def _fits(rung: Rung, ops: Collection[str]) -> bool:
    """Whether the model has operators that the rung is for."""
    words = " ".join(ops).lower()
    if rung.recipe.equalize and not any(word in words for word in CONVOLVES):
        return False
    return not rung.recipe.smooth or any(word in words for word in ATTENDS)

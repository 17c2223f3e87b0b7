"""Follow a recipe for static int8 of an ONNX graph: mend the float graph, find the ranges, quantize, mend the biases.

Refuses a recipe that has nothing to work on in this graph."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import onnx

from edgekit.model import Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.onnx_bias import corrected
from edgekit.quantizers.onnx_equalize import equalize
from edgekit.quantizers.onnx_fusible import worth_integers
from edgekit.quantizers.onnx_ranges import Calibrated, Ranges, activation_ranges
from edgekit.quantizers.onnx_smooth import smooth
from edgekit.quantizers.onnx_static import quantized_static
from edgekit.recipes import Recipe


@dataclass(frozen=True)
class Mended:
    """A float graph as it goes into int8, its ranges, the operators that mending put in, which stay in float, and
    those that alone are worth int8 (empty: all)."""

    model: onnx.ModelProto
    ranges: Ranges
    keep: tuple[str, ...]
    worth: tuple[str, ...]

    def quantized(self, recipe: Recipe, only: Collection[str] = ()) -> onnx.ModelProto:
        """The graph in int8; of `only` alone, where there are any."""
        return quantized_static(self.model, self.ranges, recipe, {*self.keep, *recipe.keep}, only or self.worth)


def mended(source: onnx.ModelProto, samples: Calibration, wish: Wish, tell: Tell) -> Mended:
    """The graph equalized and smoothed as the wish's recipe says, with ranges found on the samples or kept."""
    recipe = wish.recipe
    model = equalize(source) if recipe.equalize else source
    keep: tuple[str, ...] = ()
    if recipe.smooth:
        smoothed = smooth(Calibrated(model, samples, wish.statistics, tell))
        model, keep = smoothed.model, smoothed.keep
    ranges = activation_ranges(Calibrated(model, samples, wish.statistics, tell), recipe)
    return Mended(model, ranges, keep, worth_integers(model.graph))


def static_int8(source: onnx.ModelProto, samples: Calibration, wish: Wish, tell: Tell) -> onnx.ModelProto:
    """`source` in int8 by the wish's recipe."""
    graph = mended(source, samples, wish, tell)
    tell("writing int8")
    made = graph.quantized(wish.recipe)
    if wish.recipe.correct_bias:
        tell("correcting the biases")
        graph = replace(graph, model=corrected(graph.model, made, samples))
        made = graph.quantized(wish.recipe)
    return made

"""Make a quantized TFLite file's bytes by a recipe: mend the float file, choose ranges, quantize, correct biases.

Refuses what a recipe asks for that LiteRT has no use for, and a mended file that answers differently."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.model import Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.tflite_bias import corrected, unsaturated
from edgekit.quantizers.tflite_channels import equalized, smoothed
from edgekit.quantizers.tflite_graph import Graph
from edgekit.quantizers.tflite_ranges import chosen_range
from edgekit.quantizers.tflite_recipes import recipe
from edgekit.quantizers.tflite_statistics import Statistics, every_tensor, statistics
from edgekit.quiet import quiet
from edgekit.recipes import Recipe

SAME = 1e-3
"""Largest difference of a mended float file's answers, in parts of the largest answer."""

Ranges = Mapping[str, Mapping[str, Array]]


@dataclass(frozen=True)
class Prepared:
    """A float file, mended as the recipe asks, and what its tensors hold on the samples."""

    graph: Graph
    samples: Calibration
    seen: Statistics


def prepared(graph: Graph, wish: Wish, samples: Calibration, tell: Tell) -> Prepared:
    """The file as it is to be quantized to int8, calibrated."""
    source, asked = graph, wish.recipe
    if asked.equalize:
        graph = equalized(graph)
    if asked.smooth:
        graph = smoothed(graph, statistics(graph, samples, wish.statistics, tell))
    if graph is not source:
        _insist_same(source, graph, next(iter(samples)))
    return Prepared(graph, samples, statistics(graph, samples, wish.statistics, tell))


def static(ready: Prepared, wish: Wish, tell: Tell) -> bytes:
    """The int8 file's bytes."""
    rules = recipe(ready.graph, wish)
    made = unsaturated(ready.graph, quantized(ready.graph, rules, _ranges(ready, wish.recipe)))
    if not wish.recipe.correct_bias:
        return made
    tell("correcting biases")
    return corrected(ready.graph, made, ready.samples)


def quantized(graph: Graph, rules: list[dict[str, Any]], ranges: Ranges | None = None) -> bytes:
    """The file's bytes by the tool's own rules; `ranges` as its calibrator would give them."""
    with quiet():
        from ai_edge_quantizer.quantizer import Quantizer

        maker = Quantizer(bytearray(graph.content), quantization_recipe=None)
        maker.load_quantization_recipe(rules)
        made = maker.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    return bytes(made)


def _ranges(ready: Prepared, asked: Recipe) -> Ranges:
    """Smallest and largest value of each tensor, with as many axes as the tensor, as the tool wants them."""
    axes = {tensor.name.decode(): len(tensor.shape) for part in ready.graph.model.subgraphs for tensor in part.tensors}
    found = {}
    for name, seen in ready.seen.items():
        low, high = chosen_range(asked, seen)
        shape = (1,) * axes[name]
        found[name] = {"min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
    return found


def _insist_same(source: Graph, made: Graph, feeds: Feeds) -> None:
    """Raise `Unsupported` where moving factors between layers changed the float answers."""
    before, after = (next(iter(every_tensor(graph, graph.content, [feeds]))) for graph in (source, made))
    main = source.model.subgraphs[0]
    for name in (main.tensors[index].name.decode() for index in main.outputs):
        if name not in before:
            continue
        far = float(np.abs(before[name] - after[name]).max())
        if not far <= SAME * float(np.abs(before[name]).max()) + 1e-9:
            raise Unsupported(
                f"evening out the channels changes the answers by {far:.2g} at {name}",
                hint="leave equalizing and smoothing out",
            )

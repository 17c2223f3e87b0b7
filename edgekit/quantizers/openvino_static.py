"""Static int8 of an OpenVINO model by NNCF, as a recipe says: what is mended first, the ranges, what stays in float.

Refuses ranges by entropy, a name of no operator, and a step that would change nothing in this model."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.untold import without_telemetry

from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.openvino_graph import attends
from edgekit.quantizers.openvino_mending import correctable, equalized, smoothed
from edgekit.quantizers.openvino_percentile import histograms_cut_at
from edgekit.quantizers.openvino_weights import RECURRENT
from edgekit.quiet import quiet
from edgekit.recipes import Recipe

MOST = 128
"""How many samples NNCF's bias correction is given: of every fifth it keeps whole activations in memory."""


@dataclass(frozen=True)
class Samples:
    """What NNCF iterates over, several times: the inputs in the model's order, never held together; every
    `step`-th sample of all."""

    samples: Calibration
    order: tuple[str, ...]
    step: int = 1

    def __iter__(self) -> Iterator[list[Any]]:
        for feeds in islice(self.samples, 0, None, self.step):
            yield [feeds[name] for name in self.order]

    def __len__(self) -> int:
        return -(-len(self.samples) // self.step)


def static(model: Any, samples: Samples, recipe: Recipe, weights_as_integers: bool = True) -> Any:
    """The model with integer weights and activations, everywhere but in LSTM and GRU and in what the recipe keeps:
    fed signed integers, OpenVINO's LSTM gave one answer to every input.

    Without `weights_as_integers` the weights are float constants behind a FakeQuantize.

    Raises:
        Unsupported: NNCF cannot follow the recipe, or a step of it changes nothing.
        EdgeKitError: `keep` names no operator.
    """
    nncf = import_nncf()
    _check(model, recipe)
    if recipe.correct_bias:
        samples = replace(samples, step=-(-len(samples) // MOST) or 1)
    count = max(len(samples), 1)
    with quiet():
        data = nncf.Dataset(samples)
        if recipe.equalize:
            model = equalized(model, data, count)
        if recipe.smooth:
            model = smoothed(model, data, count)
        with histograms_cut_at(recipe.percentile) if recipe.ranges == "percentile" else nullcontext():
            return nncf.quantize(
                model,
                data,
                subset_size=count,
                fast_bias_correction=False,
                model_type=nncf.ModelType.TRANSFORMER if attends(model) else None,
                ignored_scope=nncf.IgnoredScope(names=list(recipe.keep), types=sorted(RECURRENT), validate=False),
                advanced_parameters=_advanced(recipe, weights_as_integers),
            )


def import_nncf() -> Any:
    """NNCF, imported without a word and without telemetry."""
    with quiet(), without_telemetry():
        import nncf
    return nncf


def _advanced(recipe: Recipe, weights_as_integers: bool) -> Any:
    """NNCF's names for what the recipe says. Its own defaults are not these: ranges are means over the samples,
    biases are corrected the fast way, and a transformer is smoothed."""
    import nncf
    from nncf.openvino.quantization.backend_parameters import BackendParameters
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    known = RangeEstimatorParametersSet  # MINMAX is the widest of all samples, HISTOGRAM counts all their values
    return AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE if recipe.reduce_range else nncf.OverflowFix.DISABLE,
        disable_bias_correction=not recipe.correct_bias,
        smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        activations_range_estimator_params=known.MINMAX if recipe.ranges == "minmax" else known.HISTOGRAM,
        weights_quantization_params=None if recipe.per_channel else QuantizationParameters(per_channel=False),
        backend_params={BackendParameters.COMPRESS_WEIGHTS: weights_as_integers},
    )


def _check(model: Any, recipe: Recipe) -> None:
    if recipe.ranges == "entropy":
        raise Unsupported("NNCF finds no ranges by entropy", hint="use mse or percentile ranges")
    unknown = set(recipe.keep) - {op.get_friendly_name() for op in model.get_ops()}
    if unknown:
        raise EdgeKitError(
            f"the OpenVINO model has no operator {min(unknown)!r} to keep in float",
            hint="use the names that sensitivity gives",
        )
    if recipe.correct_bias and not correctable(model):
        raise Unsupported("no operator of this model has a bias to correct", hint="leave bias correction out")

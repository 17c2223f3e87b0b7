"""The range of every activation of an ONNX graph, from calibration samples that pass one at a time.

Refuses a graph that ONNX Runtime cannot calibrate. Memory does not grow with the number of samples."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.model import Tell
from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.onnx_graph import LARGE, save
from edgekit.quantizers.onnx_prepared import digest
from edgekit.quantizers.onnx_session import open_session
from edgekit.quantizers.onnx_statistics import Arrays, kept
from edgekit.quantizers.percentiles import held_range
from edgekit.quiet import last_line, quiet
from edgekit.recipes import Recipe

BINS = 2048
"""Bins of a histogram, from minus to plus the largest magnitude."""

ENTROPY_BINS, LEVELS = 512, 256
"""What ONNX Runtime's search by entropy gets. Its own defaults, 128 bins for 128 levels, leave it one choice, all of
the range; its time grows with the square of the bins (EfficientNet-Lite0: 15 s with 512, 50 s with 1024)."""

FRACTIONS = np.linspace(1.0, 0.02, 99)
"""Of the full range, on either side: among these the least squared error is looked for."""

Ranges = Mapping[str, tuple[np.float32, np.float32]]
"""Tensor name -> the smallest and the largest number that its integers shall reach."""


@dataclass(frozen=True)
class Calibrated:
    """A graph, the samples to run it on, and where what was found is kept (None: nowhere)."""

    model: onnx.ModelProto
    samples: Calibration
    statistics: Path | None
    tell: Tell

    def found(self, what: str, find: Callable[[], Arrays]) -> Arrays:
        """What `find` counts on the samples, from now or before.

        Raises:
            Unsupported: ONNX Runtime cannot run the graph so.
        """

        def guarded() -> Arrays:
            try:
                return find()
            except EdgeKitError:
                raise
            except Exception as error:  # ONNX Runtime raises whatever it meets
                raise Unsupported(
                    f"ONNX Runtime cannot calibrate this model: {last_line(error)}",
                    hint="use --precision int8-weights",
                ) from error

        return kept(self.statistics, f"{digest(self.model)}-{len(self.samples)}-{what}", guarded)


def activation_ranges(graph: Calibrated, recipe: Recipe) -> Ranges:
    """The ranges of all float activations, chosen as the recipe says, all but "minmax" on one and the same histograms.
    The search by entropy is ONNX Runtime's.

    Raises:
        Unsupported: ONNX Runtime cannot run the graph with all its tensors as outputs.
    """
    extremes = graph.found("minmax", lambda: _extremes(graph))
    full = {name: (np.float32(low), np.float32(high)) for name, (low, high) in extremes.items()}
    if recipe.ranges == "minmax":
        return full
    counts = graph.found("histograms", lambda: _histograms(graph, full))
    chosen = dict(full)
    for name, counted in counts.items():
        if counted.any():
            low, high = chosen_range(recipe, counted, *full[name])
            chosen[name] = (np.float32(min(low, 0.0)), np.float32(max(high, 0.0)))
    return chosen


def quantizable() -> set[str]:
    """The kinds of operators that ONNX Runtime holds in int8."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return {*QDQRegistry, *QLinearOpsRegistry}


def _extremes(graph: Calibrated) -> Arrays:
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    with _calibrater(MinMaxCalibrater, graph.model) as calibrater:
        _feed(calibrater, graph, "ranges")
        found = calibrater.compute_data()
    return {name: np.array([np.ravel(end)[0] for end in data.range_value]) for name, data in sorted(found.items())}


def _histograms(graph: Calibrated, full: Ranges) -> Arrays:
    """How often which value came, by ONNX Runtime's collector, which starts from the ranges that are known: left to
    itself it adds bins as wide as the first sample's, without end where that sample was small."""
    from onnxruntime.quantization.calibrate import HistogramCalibrater

    with _calibrater(HistogramCalibrater, graph.model) as calibrater:
        calibrater.collector = _collector(BINS)
        for name, (low, high) in full.items():
            limit = _limit(low, high)
            blank = (np.zeros(BINS, np.int64), _edges(BINS, limit), low, high, limit)
            calibrater.collector.histogram_dict[name] = blank
        _feed(calibrater, graph, "histograms")
        found = calibrater.collector.histogram_dict
    return {name: one[0] for name, one in sorted(found.items()) if len(one[0]) == BINS}


@contextmanager
def _calibrater(kind: Any, model: onnx.ModelProto) -> Iterator[Any]:
    """One of ONNX Runtime's calibraters on a graph, in a scratch folder."""
    with TemporaryDirectory(prefix="edgekit-") as scratch:
        path, grown = Path(scratch) / "graph.onnx", Path(scratch) / "grown.onnx"
        save(model, path)
        with quiet():
            made = kind(path, sorted(quantizable()), str(grown), use_external_data_format=model.ByteSize() >= LARGE)
            made.augment_graph()
        made.infer_session = open_session(grown, plain=True)
        yield made


def _feed(calibrater: Any, graph: Calibrated, what: str) -> None:
    """One sample a call: ONNX Runtime keeps every tensor of all the samples of a call in memory."""
    step = max(1, len(graph.samples) // 4)
    for seen, feeds in enumerate(graph.samples, 1):
        with quiet():
            calibrater.collect_data(_Once(feeds))
        if seen % step == 0:
            graph.tell(f"calibrating: {what}, sample {seen}")


class _Once:
    """ONNX Runtime's plug for calibration data, with one sample: `get_next` until None."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Feeds | None = feeds

    def get_next(self) -> Feeds | None:
        feeds, self._feeds = self._feeds, None
        return feeds


def _collector(bins: int) -> Any:
    from onnxruntime.quantization.calibrate import HistogramCollector

    return HistogramCollector(
        "entropy", symmetric=False, num_bins=bins, num_quantized_bins=LEVELS, percentile=100, scenario="same"
    )


def _limit(low: np.float32, high: np.float32) -> float:
    """Half the width of a histogram: a little more than was seen, so that it never grows."""
    return 1.001 * max(abs(float(low)), abs(float(high))) or 1.0


def _edges(bins: int, limit: float) -> Array:
    return np.linspace(-limit, limit, bins + 1)


def chosen_range(recipe: Recipe, counted: Array, low: np.float32, high: np.float32) -> tuple[float, float]:
    """What a recipe makes of a histogram from minus to plus the largest magnitude of `low` and `high`, the extremes."""
    if recipe.ranges == "entropy":
        return _entropy(counted, low, high)
    if recipe.ranges == "mse":
        return _least_error(counted, low, high)
    least, most = held_range(counted, _edges(len(counted), _limit(low, high)), recipe.percentile)
    return max(least, float(low)), min(most, float(high))


def _entropy(counted: Array, low: np.float32, high: np.float32) -> tuple[float, float]:
    coarse, limit = counted.reshape(ENTROPY_BINS, -1).sum(axis=1), _limit(low, high)
    collector = _collector(ENTROPY_BINS)
    collector.histogram_dict["tensor"] = (coarse, _edges(ENTROPY_BINS, limit), low, high, limit)
    with quiet():
        found = collector.compute_collection_result()["tensor"]
    return float(found[0]), float(found[1])


def _least_error(counted: Array, low: np.float32, high: np.float32) -> tuple[float, float]:
    """The range whose 255 steps lose least: what is cut off on either side plus what is rounded between, squared.

    One side is searched after the other, twice.
    """
    edges = _edges(len(counted), _limit(low, high))
    values = (edges[1:] + edges[:-1]) / 2
    least, most = min(float(low), 0.0), max(float(high), 0.0)
    ends = [least, most]
    for side in (1, 0, 1, 0):
        tried = FRACTIONS * (least, most)[side]
        lows, highs = (tried, np.full_like(tried, ends[1])) if side == 0 else (np.full_like(tried, ends[0]), tried)
        ends[side] = float(tried[np.argmin(_squared_errors(values, counted, lows, highs))])
    return ends[0], ends[1]


def _squared_errors(values: Array, counted: Array, lows: Array, highs: Array) -> Array:
    """[candidates]: the squared error of 255 steps between each low and high. Zero is a level, so that what is
    nearer to it than half a step becomes zero; other rounding errors are spread evenly."""
    steps = np.maximum(highs - lows, 1e-30)[:, None] / 255
    cut = values - np.clip(values, lows[:, None], highs[:, None])
    rounded = np.minimum(values**2, steps**2 / 12)
    return np.asarray((counted * np.where(cut != 0, cut**2, rounded)).sum(axis=1))

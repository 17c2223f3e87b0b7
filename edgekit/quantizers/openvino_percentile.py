"""Percentile ranges for NNCF: of all values of all samples, on the histogram that it keeps for least squared error.

Refuses nothing. NNCF's own quantiles are taken in each sample; what it then makes of those of all samples, the widest,
the mean or the median, is no share of the values: the widest keeps what is far out in but one sample, and a mean or a
median cuts off half of the samples' own."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from edgekit.quantizers.percentiles import held_range


@contextmanager
def histograms_cut_at(percentile: float) -> Iterator[None]:
    """While it is open, the ranges that NNCF finds by histogram hold `percentile` percent of all values.

    The histogram has 2,048 bins between the extremes, whatever the number of samples.
    """
    from nncf.common.tensor_statistics.collectors import HistogramAggregator
    from nncf.quantization.algorithms.min_max import algorithm

    class Percentile(HistogramAggregator):  # type: ignore[misc]
        """NNCF's counting, with another choice at its end."""

        def _non_linear_param_search(self) -> tuple[float, float]:
            assert self.min_val is not None
            assert self.max_val is not None
            counts = np.asarray(self.histogram.data, np.float64)
            return held_range(counts, np.linspace(self.min_val, self.max_val, len(counts) + 1), percentile)

    before, algorithm.HistogramAggregator = algorithm.HistogramAggregator, Percentile
    try:
        yield
    finally:
        algorithm.HistogramAggregator = before

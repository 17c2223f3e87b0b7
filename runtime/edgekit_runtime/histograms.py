"""How often a value fell where: counts between fixed bounds, as Prometheus' histograms have them, and their quantiles.

Refuses nothing; bounds rise, and there is one count more than bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values were at most `bounds[i]` and more than the bound before; the last count is of those beyond
    all bounds. `sum` is of the values."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """About what the share `q` of all values is at most, as if they lay evenly between two bounds.

        None where there is no value; the last bound where it lies beyond: as Prometheus' histogram_quantile tells.
        """
        total = self.count
        if not total:
            return None
        wanted = q * total
        for index, reached in enumerate(accumulate(self.counts[:-1])):
            here = self.counts[index]
            if reached >= wanted and here:
                low, high = self.bounds[index - 1] if index else 0.0, self.bounds[index]
                return low + (high - low) * max(0.0, 1 - (reached - wanted) / here)
        return self.bounds[-1]

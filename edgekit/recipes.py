"""How a file is quantized, as a value: precision, ranges, granularity, what is mended first, what stays in float.

Pure. Refuses nothing: whether a tool can follow a recipe, its quantizer says."""

from dataclasses import dataclass
from itertools import pairwise

RANGES = {
    "minmax": "smallest and largest",
    "percentile": "percentile",
    "entropy": "entropy",
    "mse": "least squared error",
}
"""How the range of an activation is chosen from what calibration saw, in words."""


@dataclass(frozen=True)
class Recipe:
    """What a quantizer is asked for.

    `ranges` (a key of RANGES) and `per_channel` are for static int8; `percentile`, for ranges of that kind, is the
    part in percent of all values, over all samples, that stays within the range (what is beyond is cut off at both
    ends alike). `reduce_range` gives 7-bit weights, right on
    CPUs whose 8-bit multiply-add saturates. `correct_bias` moves biases by the mean error that rounding made,
    `smooth` moves outliers of activations into the weights behind them (SmoothQuant), `equalize` evens out the
    channels of neighbouring layers (cross-layer equalization). `dense_per_tensor` gives the integer weights of
    dense layers and embeddings one scale where they meet float numbers, as old engines want it, whatever the others
    get. `keep` are operators left in float, by the names that the format's `operators` gives.
    """

    precision: str
    ranges: str = "minmax"
    percentile: float = 99.99
    per_channel: bool = True
    reduce_range: bool = False
    correct_bias: bool = False
    smooth: bool = False
    equalize: bool = False
    dense_per_tensor: bool = False
    keep: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Such as "percentile ranges, bias correction, 3 operators in float"; empty for the plain recipe."""
        said = [
            f"{self.percentile:g} % ranges" if self.ranges == "percentile" else "",
            f"{RANGES[self.ranges]} ranges" if self.ranges not in ("minmax", "percentile") else "",
            "one scale a tensor" if not self.per_channel else "",
            "one scale a dense layer" if self.dense_per_tensor and self.per_channel else "",
            "7-bit weights" if self.reduce_range else "",
            "equalized" if self.equalize else "",
            "smoothed" if self.smooth else "",
            "bias corrected" if self.correct_bias else "",
            f"{len(self.keep)} operator{'s' * (len(self.keep) > 1)} in float" if self.keep else "",
        ]
        return ", ".join(filter(None, said))


@dataclass(frozen=True)
class Group:
    """Operators that are quantized or left in float together, and how far the model's answers move when they alone
    are quantized (relative squared error, more is worse; NaN where it was not measured)."""

    operators: tuple[str, ...]
    error: float


def grouped(operators: tuple[str, ...], most: int = 12) -> tuple[tuple[str, ...], ...]:
    """The operators, in their order, in at most `most` runs of about equal length."""
    count = min(most, len(operators))
    edges = [len(operators) * i // count for i in range(count + 1)] if count else []
    return tuple(operators[a:b] for a, b in pairwise(edges))

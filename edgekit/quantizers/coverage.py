"""What share of a model's weights a quantizer really turned into integers, in numbers and in words.

Refuses a result that is int8 or int4 in name only."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit_runtime.errors import Unsupported

ENOUGH = 0.5
"""Below this share of the weights a precision would be a label, not a fact."""


@dataclass(frozen=True)
class Coverage:
    """Weights by number of elements: how many there are, how many are integers now, which operators hold the rest."""

    total: int
    quantized: int
    left: Mapping[str, int]

    @property
    def share(self) -> float:
        """From 0 to 1; a model without weights has nothing quantized."""
        return self.quantized / self.total if self.total else 0.0

    def note(self, precision: str) -> str:
        """`int8 holds 37 % of the weights; LSTM (2) stays in float`."""
        percent = min(int(self.share * 100 + 0.5), 99) if self.quantized < self.total else 100
        rest = ", ".join(f"{op} ({count})" for op, count in sorted(self.left.items()))
        verb = "stays" if len(self.left) == 1 else "stay"
        return f"{precision} holds {percent} % of the weights" + (f"; {rest} {verb} in float" if rest else "")


def insist(coverage: Coverage, precision: str) -> None:
    """Raise `Unsupported` unless most of the weights are at `precision`."""
    if coverage.share >= ENOUGH:
        return
    if not coverage.total:
        raise Unsupported(f"{precision}: the model has no weights to quantize", hint="use --precision float32")
    nearest = "float16" if precision == "int8-weights" else "int8-weights"
    raise Unsupported(
        f"{precision} would be so in name only: {coverage.note(precision)}", hint=f"use --precision {nearest}"
    )

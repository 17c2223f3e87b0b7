"""Where a model's operators run: how many on the accelerator, and which kinds were left on the CPU.

Refuses a model of which less than the wanted share runs on the accelerator, naming the operators left."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit_runtime.errors import Unsupported

SHOWN = 8


@dataclass(frozen=True)
class Placement:
    """`accelerated` operators run on `device`; `left` says which kinds did not, and how many of each."""

    device: str
    accelerated: int
    left: Mapping[str, int]

    @property
    def operators(self) -> int:
        """All of them."""
        return self.accelerated + sum(self.left.values())

    @property
    def share(self) -> float:
        """The share of the operators that runs on the device, 0 to 1; of no operators, all."""
        return self.accelerated / self.operators if self.operators else 1.0

    def text(self) -> str:
        """One line: `cuda: 40 of 42 operators (95%); on the CPU: NonMaxSuppression, Loop x2`."""
        told = f"{self.device}: {self.accelerated} of {self.operators} operators ({int(100 * self.share)}%)"
        return f"{told}; on the CPU: {self.left_text()}" if self.left else told

    def left_text(self) -> str:
        """The kinds left on the CPU, the most frequent first; of many, the first few."""
        kinds = sorted(self.left.items(), key=lambda item: (-item[1], item[0]))
        named = [f"{kind} x{count}" if count > 1 else kind for kind, count in kinds[:SHOWN]]
        return ", ".join(named) + (f" and {len(kinds) - SHOWN} more kinds" if len(kinds) > SHOWN else "")


def check_placement(placement: Placement, least: float, name: str) -> None:
    """Refuse a placement below the wanted share.

    Raises:
        Unsupported: it is; the operators left on the CPU are named.
    """
    if placement.share < least:
        part = f"{placement.accelerated} of {placement.operators} operators ({int(100 * placement.share)}%)"
        raise Unsupported(
            f"{name}: {part} run on {placement.device}, wanted are {100 * least:g}%; "
            f"left on the CPU: {placement.left_text() or 'none'}",
            hint="use a model without these operators, ask for less with --min-accelerated, or use device 'cpu'",
        )

"""What a build must keep to: the largest drop, drop of a class, latency, size and memory. Pure.

Refuses a goal that does not read, saying how it is written. A NaN is never within anything."""

import re
from dataclasses import dataclass
from typing import Literal

from edgekit_runtime.errors import EdgeKitError


@dataclass(frozen=True)
class Budget:
    """The largest drop allowed: `size` in points of a share (`0.5pt`) or in percent of the reference (`1%`)."""

    size: float
    unit: Literal["pt", "%"]

    def __str__(self) -> str:
        return f"{self.size:g}{self.unit}"

    def allows(self, metric: str, reference: float) -> float:
        """The largest drop in the metric's own units, where the reference has that value.

        Raises:
            EdgeKitError: points were asked of a metric that is no share.
        """
        if self.unit == "%":
            return self.size / 100 * abs(reference)
        if metric == "mae":
            raise EdgeKitError("a mean absolute error has no points", hint=f"say --max-drop {self.size:g}%")
        return self.size / 100


@dataclass(frozen=True)
class Goals:
    """What the user set, None where nothing was said. Times in ms, sizes in bytes, memory in MB.

    `smaller`: a quantized artifact is wanted for its size, and need not be faster than float.
    """

    max_drop: Budget | None = None
    max_class_drop: Budget | None = None
    max_latency_ms: float | None = None
    max_bytes: int | None = None
    max_memory_mb: float | None = None
    smaller: bool = False

    @property
    def judged(self) -> bool:
        """Whether quality has a limit."""
        return self.max_drop is not None or self.max_class_drop is not None

    @property
    def for_size(self) -> bool:
        """Whether being smaller is reason enough."""
        return self.smaller or self.max_bytes is not None

    @property
    def limits(self) -> str:
        """The limits on what it takes, in words; empty where there are none."""
        said = [
            f"at most {self.max_bytes / 1e6:.3g} MB" if self.max_bytes is not None else "",
            f"at most {self.max_memory_mb:.3g} MB of memory" if self.max_memory_mb is not None else "",
            f"at most {self.max_latency_ms:g} ms" if self.max_latency_ms is not None else "",
        ]
        return ", ".join(filter(None, said))

    def excess(self, size: int, peak_mb: float | None, latency_ms: float | None) -> float:
        """How far these measures are over the limits, in parts of them: the worst; at most 0 where all are kept."""
        pairs = (
            (size, self.max_bytes), (peak_mb, self.max_memory_mb), (latency_ms, self.max_latency_ms),
        )  # fmt: skip
        return max((took / most - 1 for took, most in pairs if took is not None and most is not None), default=0.0)

    def exceeded(self, size: int, peak_mb: float | None, latency_ms: float | None) -> str | None:
        """Which goal these measures are over, in words; None where all are kept or were not measured."""
        if self.max_bytes is not None and size > self.max_bytes:
            return f"{_size(size)}, over {_size(self.max_bytes)} (--max-size)"
        if self.max_memory_mb is not None and peak_mb is not None and peak_mb > self.max_memory_mb:
            return f"it peaks at {peak_mb:,.0f} MB of memory, over {self.max_memory_mb:,.0f} MB (--max-memory)"
        if self.max_latency_ms is not None and latency_ms is not None and not latency_ms <= self.max_latency_ms:
            return f"{latency_ms:.3g} ms (90th percentile), over {self.max_latency_ms:g} ms (--max-latency)"
        return None


def _size(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"


UNITS = {
    "time": {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6},
    "size": {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
}
EXAMPLES = {"--max-latency": "20ms", "--max-size": "5MB", "--max-memory": "200MB", "--budget-time": "10m"}


def parse_budget(text: str, flag: str = "--max-drop") -> Budget:
    """`0.5pt` or `1%`. Raises EdgeKitError on anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(pt|%)\s*", text)
    if not match:
        raise EdgeKitError(
            f"{flag} {text!r} has no unit" if re.fullmatch(r"[\d.]+", text) else f"{flag} {text!r} does not read",
            hint="say 0.5pt for half a point of accuracy, or 1% for a hundredth of what the source has",
        )
    return Budget(float(match[1]), "pt" if match[2] == "pt" else "%")


def parse_amount(flag: str, text: str, kind: Literal["time", "size"]) -> float:
    """A time (`20ms`, `10m`) in ms, or a size (`5MB`) in bytes. Raises EdgeKitError on anything else, and on 0."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]+)\s*", text)
    scale = UNITS[kind].get(match[2].lower()) if match else None
    if match is None or scale is None or float(match[1]) == 0:
        raise EdgeKitError(
            f"{flag} {text!r} has no unit" if re.fullmatch(r"[\d.]+", text) else f"{flag} {text!r} does not read",
            hint=f"say for example {flag} {EXAMPLES[flag]}",
        )
    return float(match[1]) * scale

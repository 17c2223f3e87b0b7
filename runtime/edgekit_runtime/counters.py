"""What the server counts beside its models: answers, refusals, connections. Plain integers by name and label.

Refuses nothing. Labels are words of ours, never a client's: their number is bounded."""

from collections import defaultdict


class Counters:
    """Counts by (name, label value), an empty label where the name says all."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = defaultdict(int)

    def add(self, name: str, label: str = "", count: int = 1) -> None:
        """Count it."""
        self.counts[name, label] += count

    def total(self, name: str) -> int:
        """The sum over all labels."""
        return sum(count for (known, _), count in self.counts.items() if known == name)

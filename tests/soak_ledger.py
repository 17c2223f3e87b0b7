"""What a soak sent and what came of it, and how that is held against the server's own counters. Pure but for its clock.

Refuses a run in which a number is wrong, a request is unaccounted for, health is late or memory grows."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.M)
GROWTH_MIB = 6.0
"""What the fitted line may rise by over the measured time: allocators are not exact, leaks do not stop."""
HEALTH_SECONDS = 0.25
"""The 99th percentile of a health check while all else goes on, on a machine that others use too."""


@dataclass
class Ledger:
    """One run's books. `gone` are requests whose answer the client did not wait for: they may have been answered."""

    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    rpc: Counter[str] = field(default_factory=Counter)
    gone: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    maybe: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    swaps: int = 0

    def fault(self, what: str) -> None:
        """Something that must not be."""
        self.wrong.append(what)

    def judge(self, metrics: Mapping[str, float], warm_up: float) -> list[str]:
        """Every reason why this run fails; `metrics` are the server's, read once at the end."""
        found = list(self.wrong[:20])
        if len(self.wrong) > 20:
            found.append(f"... and {len(self.wrong) - 20} more")
        return found + self._accounts(metrics) + self._health() + self._memory(warm_up)

    def _accounts(self, metrics: Mapping[str, float]) -> list[str]:
        found = []
        codes = labelled(metrics, "edgekit_http_requests_total", "code")
        gone = metrics.get("edgekit_clients_gone_total", 0)
        ours, theirs = sum(self.answers.values()) + self.gone, sum(codes.values()) + gone
        if ours != theirs:
            found.append(f"{ours} HTTP requests were sent and the server counts {theirs:.0f}")
        for code, count in self.answers.items():
            if not count <= codes.get(str(code), 0) <= count + self.gone:
                found.append(f"{count} answers of {code} were read, the server counts {codes.get(str(code), 0):.0f}")
        begun = metrics.get("edgekit_http_requests_begun_total", 0)
        if begun != theirs + 1:  # the request for these numbers is under way
            found.append(f"{begun:.0f} requests were begun, {theirs:.0f} were answered or given up")
        rpc = labelled(metrics, "edgekit_grpc_requests_total", "code")
        for code, count in self.rpc.items():
            if rpc.get(code, 0) != count:
                found.append(f"{count} gRPC calls ended in {code}, the server counts {rpc.get(code, 0):.0f}")
        rows = labelled(metrics, "edgekit_inferences_total", "model")
        for model, count in self.rows.items():
            if not count <= rows.get(model, 0) <= count + self.maybe[model]:
                found.append(f"{model}: {count} samples were answered, the server counts {rows.get(model, 0):.0f}")
        if codes.get("500"):
            found.append(f"{codes['500']:.0f} answers of 500")
        return found

    def _health(self) -> list[str]:
        late = percentile(self.health, 99)
        return [f"health: 99 % within {late * 1e3:.0f} ms"] if late > HEALTH_SECONDS else []

    def _memory(self, warm_up: float) -> list[str]:
        slope, minutes = self.slope(warm_up)
        return [f"memory grows by {slope:.2f} MiB/min"] if slope * minutes > GROWTH_MIB else []

    def slope(self, warm_up: float) -> tuple[float, float]:
        """MiB per minute by a line through what was measured after the warm-up, and over how many minutes."""
        kept = [(at / 60, size) for at, size in self.memory if at >= warm_up]
        if len(kept) < 5:
            return 0.0, 0.0
        at, size = np.array(kept).T
        return float(np.polyfit(at, size, 1)[0]), float(at[-1] - at[0])

    def table(self, metrics: Mapping[str, float], warm_up: float) -> str:
        """What happened, for a person."""
        slope, minutes = self.slope(warm_up)
        sizes = [size for _, size in self.memory] or [0.0]
        lines = ["what                       sent"]
        lines += [f"{kind:<20} {count:>10,}" for kind, count in sorted(self.sent.items())]
        lines.append("answers              " + "  ".join(f"{code}: {n:,}" for code, n in sorted(self.answers.items())))
        lines.append(
            f"given up by us       {self.gone:>10,}   server: {metrics.get('edgekit_clients_gone_total', 0):,.0f}"
        )
        lines.append(f"gRPC                 {dict(self.rpc)}")
        lines.append(f"hot swaps            {self.swaps:>10,}")
        lines.append(f"samples answered     {sum(self.rows.values()):>10,}")
        p50, p99, worst = (percentile(self.health, q) * 1e3 for q in (50, 99, 100))
        lines.append(f"health               {p50:.1f} ms median, {p99:.1f} ms p99, {worst:.1f} ms worst")
        lines.append(f"memory               {sizes[0]:.1f} -> {sizes[-1]:.1f} MiB, most {max(sizes):.1f}")
        lines.append(f"slope                {slope:+.3f} MiB/min over {minutes:.1f} min after {warm_up:.0f} s")
        return "\n".join(lines)


def percentile(values: Sequence[float], q: float) -> float:
    """0 where there are none."""
    return float(np.percentile(values, q)) if values else 0.0


def read_metrics(text: str) -> dict[str, float]:
    """Prometheus' text format: each series with its labels as written."""
    return {f"{name}{{{labels}}}" if labels else name: float(value) for name, labels, value in SAMPLE.findall(text)}


def labelled(metrics: Mapping[str, float], name: str, label: str) -> dict[str, float]:
    """The sums of a metric by one of its labels."""
    found: dict[str, float] = {}
    for series, value in metrics.items():
        if series.startswith(name + "{") and (match := re.search(rf'{label}="([^"]*)"', series)):
            found[match[1]] = found.get(match[1], 0) + value
    return found

"""The models' numbers under the names that NVIDIA's Triton gives them, for dashboards and scalers made for it.

Refuses nothing; what has no meaning here (a GPU's memory, a response cache) is left out."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from edgekit_runtime.families import Family, Kind, Sample
from edgekit_runtime.lane import Lane
from edgekit_runtime.metrics.models import labels

NUMBERS: tuple[tuple[str, Kind, str, Callable[[Lane], float]], ...] = (
    ("request_success", "counter", "Number of successful inference requests.", lambda lane: lane.stats.success.count),
    ("count", "counter", "Number of inferences performed.", lambda lane: lane.stats.inferences),
    ("exec_count", "counter", "Number of model executions performed.", lambda lane: lane.stats.executions),
    ("pending_request_count", "gauge", "Number of pending requests.", lambda lane: lane.waiting),
    (
        "request_duration_us",
        "counter",
        "Cumulative inference request duration in microseconds.",
        lambda lane: lane.stats.success.ns // 1000,
    ),
    (
        "queue_duration_us",
        "counter",
        "Cumulative inference queuing duration in microseconds.",
        lambda lane: lane.stats.queue.ns // 1000,
    ),
    (
        "compute_input_duration_us",
        "counter",
        "Cumulative compute input duration in microseconds.",
        lambda lane: lane.stats.input.ns // 1000,
    ),
    (
        "compute_infer_duration_us",
        "counter",
        "Cumulative compute inference duration in microseconds.",
        lambda lane: lane.stats.infer.ns // 1000,
    ),
    (
        "compute_output_duration_us",
        "counter",
        "Cumulative compute output duration in microseconds.",
        lambda lane: lane.stats.output.ns // 1000,
    ),
)
REASONS: Mapping[str, str] = {
    "busy": "REJECTED", "cancelled": "CANCELED", "late": "CANCELED", "bug": "BACKEND", "unsupported": "BACKEND",
}  # fmt: skip
"""Triton's word for ours; OTHER for all others."""


def families(lanes: Sequence[Lane]) -> Iterator[Family]:
    """Triton's view of these lanes."""
    named = [(lane, labels(lane)) for lane in lanes]
    failed: list[Sample] = []
    for lane, known in named:
        found = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
        for reason, count in lane.stats.reasons.items():
            found[REASONS.get(reason, "OTHER")] += count
        failed += [Sample(count, (*known, ("reason", reason))) for reason, count in found.items()]
    yield Family("nv_inference_request_failure", "counter", "Number of failed inference requests.", tuple(failed))
    for name, kind, words, value in NUMBERS:
        samples = tuple(Sample(value(lane), known) for lane, known in named)
        yield Family(f"nv_inference_{name}", kind, words, samples)

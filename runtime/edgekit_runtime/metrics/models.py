"""The families of the models: requests, times, batches, why requests failed, what is served and how it did.

Refuses nothing; what a model's bundle does not say is left out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from edgekit_runtime.families import Family, Kind, Labels, Sample
from edgekit_runtime.histograms import Histogram
from edgekit_runtime.lane import Lane

REASONS = ("bad_request", "bug", "busy", "cancelled", "late", "unsupported")
"""Why requests fail, mostly: told before the first of each, so that it is seen as a rise."""
LONGEST_TIME = 40
MOST = 1e12
"""A quality beyond is none: a bundle may say anything there, NaN and integers of a thousand digits too."""

NUMBERS: tuple[tuple[str, Kind, str, Callable[[Lane], float]], ...] = (
    (
        "edgekit_inferences_total",
        "counter",
        "Samples run.",
        lambda lane: lane.stats.inferences,
    ),
    ("edgekit_executions_total", "counter", "Runs of the engine.", lambda lane: lane.stats.executions),
    ("edgekit_requests_answered_total", "counter", "Requests answered.", lambda lane: lane.stats.success.count),
    ("edgekit_requests_rejected_total", "counter", "Found the queue full.", lambda lane: lane.stats.rejected),
    ("edgekit_requests_late_total", "counter", "Met their deadline.", lambda lane: lane.stats.late),
    ("edgekit_requests_cancelled_total", "counter", "Given up by their client.", lambda lane: lane.stats.cancelled),
    ("edgekit_queue_seconds_total", "counter", "Time spent waiting.", lambda lane: lane.stats.queue.ns / 1e9),
    ("edgekit_infer_seconds_total", "counter", "Time in the engine.", lambda lane: lane.stats.infer.ns / 1e9),
    ("edgekit_waiting_requests", "gauge", "Requests in the queue now.", lambda lane: lane.waiting),
    ("edgekit_waiting_requests_limit", "gauge", "Requests that may wait.", lambda lane: lane.options.queue),
    (
        "edgekit_model_loaded_timestamp_seconds",
        "gauge",
        "When the model was loaded, in seconds since 1970.",
        lambda lane: lane.loaded_ms / 1e3,
    ),
)

TIMES: tuple[tuple[str, str, Callable[[Lane], Histogram]], ...] = (
    (
        "edgekit_request_duration_seconds",
        "Answered requests, from read to written.",
        lambda lane: lane.stats.success.histogram(),
    ),
    ("edgekit_queue_duration_seconds", "Their wait for the engine.", lambda lane: lane.stats.queue.histogram()),
    ("edgekit_compute_duration_seconds", "Their time in the engine.", lambda lane: lane.stats.infer.histogram()),
    ("edgekit_batch_size", "Samples that each run of the engine took together.", lambda lane: lane.stats.batch()),
)


def families(lanes: Sequence[Lane], selftests: Mapping[tuple[str, str], tuple[bool, int]]) -> Iterator[Family]:
    """The numbers of these lanes; `selftests` as the package's `families` takes them."""
    named = [(lane, labels(lane)) for lane in lanes]
    for name, kind, words, value in NUMBERS:
        yield Family(name, kind, words, tuple(Sample(value(lane), known) for lane, known in named))
    yield Family(
        "edgekit_requests_failed_total",
        "counter",
        "Requests that were not answered, by reason.",
        tuple(sample for lane, known in named for sample in _failed(lane, known)),
    )
    for name, words, told in TIMES:
        samples = tuple(sample for lane, known in named for sample in buckets(told(lane), known))
        yield Family(name, "histogram", words, samples)
    yield Family(
        "edgekit_model_info",
        "gauge",
        "Always 1; the labels tell what is served.",
        tuple(Sample(1, known + _about(lane)) for lane, known in named),
    )
    yield Family(
        "edgekit_model_built_quality",
        "gauge",
        "The quality that the build measured on its evaluation data, in the metric's own unit (shares: 0 to 1).",
        tuple(sample for lane, known in named for sample in _built(lane, known)),
    )
    yield Family(
        "edgekit_model_built_timestamp_seconds",
        "gauge",
        "When the model was built, in seconds since 1970.",
        tuple(sample for lane, known in named for sample in _when_built(lane, known)),
    )
    tested = [
        (known, *found)
        for lane, known in named
        if (found := selftests.get((lane.served.name, lane.served.version))) is not None
    ]
    yield Family(
        "edgekit_selftest_passed",
        "gauge",
        "1 where the last replay of the recorded inputs gave the recorded answers.",
        tuple(Sample(float(passed), known) for known, passed, _ in tested),
    )
    yield Family(
        "edgekit_selftest_timestamp_seconds",
        "gauge",
        "When that was, in seconds since 1970.",
        tuple(Sample(when / 1e3, known) for known, _, when in tested),
    )


def labels(lane: Lane) -> Labels:
    """Whose number it is."""
    return (("model", lane.served.name), ("version", lane.served.version))


def buckets(told: Histogram, known: Labels) -> Iterator[Sample]:
    """A histogram as Prometheus has it: each bucket holds those before it too."""
    reached = list(accumulate(told.counts))
    for bound, count in zip((*map("{:g}".format, told.bounds), "+Inf"), reached, strict=True):
        yield Sample(count, (*known, ("le", bound)), "_bucket")
    yield Sample(told.sum, known, "_sum")
    yield Sample(reached[-1], known, "_count")


def _failed(lane: Lane, known: Labels) -> Iterator[Sample]:
    found = dict.fromkeys(REASONS, 0) | lane.stats.reasons
    return (Sample(found[reason], (*known, ("reason", reason))) for reason in sorted(found))


def _about(lane: Lane) -> Labels:
    served, manifest = lane.served, lane.served.manifest
    engine = ("engine", served.engine)
    if manifest is None:
        return (engine,)
    return (engine, ("target", manifest.target), ("precision", manifest.precision), ("format", manifest.format))


def _when_built(lane: Lane, known: Labels) -> Iterator[Sample]:
    """Nothing of a bundle of before it was written down, nor of one that says something else than a time."""
    manifest = lane.served.manifest
    told = manifest.provenance.get("built") if manifest else None
    try:
        when = datetime.fromisoformat(told) if isinstance(told, str) and len(told) <= LONGEST_TIME else None
        if when is not None and when.tzinfo is not None:
            yield Sample(when.timestamp(), known)
    except (ValueError, OverflowError):
        return


def _built(lane: Lane, known: Labels) -> Iterator[Sample]:
    manifest = lane.served.manifest
    quality = manifest.evidence.get("quality") if manifest else None
    value = quality.get("value") if isinstance(quality, dict) else None
    if isinstance(quality, dict) and isinstance(value, int | float) and -MOST < value < MOST:
        yield Sample(value, (*known, ("metric", str(quality.get("metric", ""))[:100])))

"""Score an artifact on the target's own instruction set, emulated, or on the device: on as many samples as it takes
to tell whether it answers there as it does here.

Refuses to take the builder's word for it: where neither can be had, the evidence says so."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

import numpy as np
from edgekit_runtime.detect import saturating
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.tensors import Array

from edgekit.answers import Answering, digest, here, machine, made_of, outputs, scores
from edgekit.evidence import SHARES, Outputs, Scores, amount, measure
from edgekit.intervals import bounds
from edgekit.job import Job, Order
from edgekit.model import Artifact
from edgekit.places import Absent, Place
from edgekit.places.emulated import find_place
from edgekit.places.over_ssh import over_ssh
from edgekit.places.there import There, open_at
from edgekit.plan import Candidate
from edgekit.target import Target

BATCHES = {"emulated": 8, "device": 32}
FIRST = 16
"""Samples that are compared answer by answer before anything is scored."""
ALIKE = 0.01
"""Largest difference, in parts of the outputs' range, at which the arithmetic is called the same."""
GROWTH = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""The numbers of samples after which it may be plain whether quality is lost there."""
SECONDS = 240.0
"""For how long more samples are scored while it is not plain."""
LEVEL = 0.99
MARGIN = 0.01
"""What an instruction set may cost, where no budget says it: one point of a share, or a hundredth of the metric."""


@dataclass(frozen=True)
class ScoredOn:
    """How an artifact answers at another place beside here, on the same `n` samples.

    `worst` is the largest difference in parts of the outputs' range, `same` the share with the same best class,
    `value` and `drop` the metric there and what was lost to the source, with its 95 % interval `low` to `high`.
    `worse` says that it is not to be shipped there; `words` say what was found, or why nothing was.
    """

    where: str
    n: int
    words: str
    worse: bool = False
    worst: float | None = None
    same: float | None = None
    value: float | None = None
    drop: float | None = None
    low: float | None = None
    high: float | None = None


def place_for(job: Job, target: Target, format: str) -> Place | Absent | None:
    """Where a format is scored beside here: the device, else the emulated core of the target; None where the target
    names none, so that this machine has to stand for it."""
    if job.order.measure_on:
        return over_ssh(job.order.measure_on)
    return None if target.emulate is None else find_place(target, format)


def can_score(order: Order, target: Target) -> bool:
    """Whether artifacts for the target can be scored on its own instruction set."""
    return bool(order.measure_on) or (
        target.emulate is not None and any(isinstance(find_place(target, engine), Place) for engine in target.engines)
    )


def score_on_target(job: Job, target: Target, candidate: Candidate, artifact: Artifact) -> list[ScoredOn]:
    """What becomes of the artifact on the target's instruction set, and that nothing is known of an accelerator which
    this machine lacks; empty where there is nothing to score."""
    if job.evaluation is None:
        return []
    lacking = candidate.options.device
    if lacking == here(candidate.options).device or job.order.measure_on:
        return _on_instructions(job, target, candidate, artifact)
    alone = [ScoredOn("this machine", 0, f"proved on the CPU of this machine only: no {lacking} is used here")]
    return alone if target.emulate is None else [*_on_instructions(job, target, candidate, artifact), *alone]


def _on_instructions(job: Job, target: Target, candidate: Candidate, artifact: Artifact) -> list[ScoredOn]:
    place = place_for(job, target, candidate.format)
    if not isinstance(place, Place):
        if place is None and _is_of(target):
            return [ScoredOn("this machine", 0, "scored on this machine, which has the target's instruction set")]
        why = f"no core stands for {target.title}" if place is None else f"{place.why} ({place.hint})"
        return [ScoredOn("this machine", 0, f"builder's instruction set only: {why}")]
    basis = {"artifact": digest(artifact), "options": asdict(candidate.options), "place": [place.kind, place.name]}
    with _lazily(place, job, candidate) as there:
        far = Answering(
            f"{candidate.title} on {place.words}", basis, lambda: there().runner(artifact), BATCHES[place.kind]
        )
        try:
            return [_compared(job, place, made_of(artifact, candidate.title, candidate.options), far)]
        except Unsupported as error:
            return [ScoredOn(place.words, 0, f"it does not run on {place.words}: {error.what}", worse=True)]
        except EdgeKitError as error:
            if place.kind == "device":
                raise
            return [ScoredOn(place.words, 0, f"builder's instruction set only: {error.what}")]


def _is_of(target: Target) -> bool:
    """Whether this machine computes as the target does: all its features, and the same sums in 8 bits."""
    found = machine()
    alike = saturating(target.arch, target.isa) == saturating(found["arch"], found["isa"])
    return found["arch"] == target.arch and set(target.isa) <= set(found["isa"]) and alike


@contextmanager
def _lazily(place: Place, job: Job, candidate: Candidate) -> Iterator[Callable[[], There]]:
    """A worker that starts when it is first asked for: kept answers need none."""
    with ExitStack() as stack:
        held: list[There] = []

        def there() -> There:
            if not held:
                held.append(stack.enter_context(open_at(place, here(candidate.options), job.tell)))
            return held[0]

        yield there


def _compared(job: Job, place: Place, near: Answering, far: Answering) -> ScoredOn:
    """Answer by answer on a few samples; where they differ, by the metric on more and more."""
    assert job.evaluation is not None
    start, total = job.seen, len(job.evaluation) - job.seen
    count = min(FIRST, total)
    rows = range(start, start + count)
    worst, same = _apart(outputs(job, near, rows), outputs(job, far, rows))
    if worst <= ALIKE:
        told = f"answers on {place.words} as here: largest difference {worst:.2g} of the range on {count} samples"
        return _scored(job, far, place, count, told, worst, same)
    begun = time.monotonic()
    sizes = [size for size in GROWTH if size < total] + [total]
    for size in sizes:
        lost, low, high, metric = _lost(job, near, far, size)
        allowed = _allowed(job, near, size)
        found = f"{metric} {amount(metric, -lost)} beside here [{amount(metric, -high)}, {amount(metric, -low)}]"
        if low > 0 and not high <= allowed:
            told = f"answers worse on {place.words}: {found} on {size} samples"
            return _scored(job, far, place, size, told, worst, same, worse=True)
        enough = high <= allowed or size == total or time.monotonic() - begun > SECONDS or job.late()
        if enough:
            break
    told = f"no loss shown on {place.words}: {found} on {size} samples" if high > allowed else (
        f"as good on {place.words}: {found} on {size} samples"
    )  # fmt: skip
    return _scored(job, far, place, size, told, worst, same)


def _lost(job: Job, near: Answering, far: Answering, size: int) -> tuple[float, float, float, str]:
    """How much worse it scores there than here on the first `size` samples, with bounds, and by what metric."""
    start = job.seen
    a, b = scores(job, near, start, start + size), scores(job, far, start, start + size)
    worse = Scores(a.metric, a.candidate, b.candidate).worse
    low, high = bounds(worse, LEVEL, shares=a.metric in SHARES)
    return float(worse.mean()), low, high, a.metric


def _allowed(job: Job, near: Answering, size: int) -> float:
    """What an instruction set may cost: the budget for all, else MARGIN."""
    found = scores(job, near, job.seen, job.seen + size)
    reference = float(found.reference.mean())
    if job.order.goals.max_drop is not None:
        return job.order.goals.max_drop.allows(found.metric, reference)
    return MARGIN if found.metric in SHARES else MARGIN * abs(reference)


def _scored(
    job: Job, far: Answering, place: Place, n: int, told: str, worst: float, same: float | None, worse: bool = False
) -> ScoredOn:  # fmt: skip
    quality = measure(scores(job, far, job.seen, job.seen + n))
    return ScoredOn(place.words, n, told, worse, worst, same, quality.value, quality.drop, quality.low, quality.high)


def _apart(near: Outputs, far: Outputs) -> tuple[float, float | None]:
    """(largest difference in parts of the range, share with the same best class or None without classes)."""
    both: list[tuple[Array, Array]] = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(near, far, strict=True)
    ]
    if any(a.shape != b.shape for a, b in both):
        return float("inf"), None
    spread = max((float(np.ptp(a)) for a, _ in both if a.size), default=0.0)
    spread = spread or max((float(np.abs(a).max()) for a, _ in both if a.size), default=1.0) or 1.0
    worst = max((float(np.abs(a - b).max()) for a, b in both if a.size), default=0.0) / spread
    if all(a.ndim == 1 and a.size > 1 for a, _ in both):
        return worst, float(np.mean([a.argmax() == b.argmax() for a, b in both]))
    return worst, None

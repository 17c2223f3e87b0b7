"""Try a candidate: make it, screen it, measure what it takes, confirm it on samples that the search never saw.

Refuses nothing by itself: what a converter or quantizer cannot do becomes a `Tried` with the reason."""

import math
from dataclasses import dataclass, field, replace
from functools import cache as once

import numpy as np
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.answers import Answering, made_of, nature, scores, source_of
from edgekit.elsewhere import ScoredOn, score_on_target
from edgekit.evidence import (
    LEVEL,
    SHARES,
    Quality,
    Scores,
    Verdict,
    agreement,
    amount,
    by_class,
    measure,
    words,
)  # fmt: skip
from edgekit.goals import Budget
from edgekit.intervals import enough
from edgekit.job import Job
from edgekit.making import float_artifact, quantized_artifact, sensitive_groups
from edgekit.measuring import FASTER, Timed, peak_mb, timed, with_threads
from edgekit.mixing import Kept, frozen_then_squeezed, most_of_the_error
from edgekit.model import Artifact
from edgekit.parity import Parity
from edgekit.plan import Candidate, Plan
from edgekit.target import Target
from edgekit.trial import LOOKS, Bound, Limit, Standing, Trial, as_trusted, hold, screen

LEAST_COSINE = 0.8
"""Where no budget was set, an artifact further than this from float is not the same model any more."""


@dataclass(frozen=True)
class Tried:
    """A candidate and all that is known of it. Sizes in bytes, memory in MB.

    `quality`, `agreement` (how often the best class is the source's) and `classes` are over all samples that were
    scored; `screened` and `confirmed` are what the verdict rests on. `artifact` is None, and `verdict` says why,
    where it could not be made. `too_slow` says that it was timed and is no faster than float.
    """

    candidate: Candidate
    verdict: Verdict
    artifact: Artifact | None = None
    source: Artifact | None = None
    parity_to_source: tuple[Parity, ...] = ()
    parity_to_float: tuple[Parity, ...] = ()
    bytes: int = 0
    float_bytes: int = 0
    peak_mb: float | None = None
    times: Timed = field(default_factory=lambda: Timed("not measured"))
    standing: Standing = "out"
    screened: Bound | None = None
    confirmed: Bound | None = None
    quality: Quality | None = None
    agreement: Quality | None = None
    classes: dict[int, Quality] = field(default_factory=dict)
    scored_on: tuple[ScoredOn, ...] = ()
    too_slow: bool = False

    @property
    def cost(self) -> float:
        """What ranks candidates: the median time in ms where it was timed, the size in MB where it was not."""
        if self.times.made is None:
            return self.bytes / 1e6
        return min((self.times.threads or {1: self.times.made.median_ms}).values())


def attempt(job: Job, plan: Plan, candidate: Candidate) -> Tried:
    """Make the candidate, measure it, screen it on the samples that are for the search."""
    try:
        source, to_source = float_artifact(job, candidate.steps, candidate.format)
        if candidate.mixed:
            candidate = _settled(job, candidate, source)
        if source.precision == candidate.precision:  # float was asked for, or it came quantized already
            made, to_float = source, tuple[Parity, ...]()
        else:
            made, to_float = quantized_artifact(job, candidate, source)
        memory = peak_mb(job, candidate, made)
    except Unsupported as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Tried(candidate, Verdict("refused", f"{error.what}{hint}"))
    tried = Tried(
        candidate,
        Verdict("screened" if job.order.goals.judged else "unbudgeted", ""),
        made,
        source,
        to_source,
        to_float,
        made.size(),
        source.size(),
        memory,
    )
    if reason := _too_big(plan.target, tried):
        return replace(tried, verdict=Verdict("refused", reason))
    tried = _screened(job, tried)
    if tried.standing == "out":
        return tried
    return _timed(job, plan.target, tried)


def confirm(job: Job, plan: Plan, tried: Tried, alpha: float) -> Tried:
    """Hold the candidate against its goals on samples that the search never saw, spending `alpha`, then on the
    target's instruction set; where it passes, score it on every sample for the record, which must keep them too."""
    data, made = job.evaluation, tried.artifact
    assert made is not None
    if not job.order.goals.judged:
        return _on_target(job, plan.target, recorded(job, tried))
    if data is None:
        return replace(tried, verdict=Verdict("inconclusive", "no evaluation data to hold the budget against"))
    one = made_of(made, tried.candidate.title, tried.candidate.options)
    n = len(data) - job.seen
    found = _trial(job, one, job.seen, n, alpha)
    tried = replace(tried, confirmed=found.bound, verdict=_verdict(job, found, n))
    if tried.verdict.outcome != "passed":
        return _rescored(job, tried, found.bound.n)
    tried = _on_target(job, plan.target, tried)
    if tried.verdict.outcome != "passed" or job.late():
        return _rescored(job, tried, found.bound.n)
    tried = recorded(job, tried)
    return replace(tried, verdict=_on_record(job, tried))


def recorded(job: Job, tried: Tried) -> Tried:
    """The candidate with its quality over every evaluation sample; as it was where there are none."""
    data = job.evaluation
    if tried.artifact is None or data is None:
        return tried
    tried = _rescored(job, tried, len(data) - job.seen)
    if job.order.goals.judged or tried.quality is None or tried.verdict.outcome != "unbudgeted":
        return tried
    return replace(tried, verdict=Verdict("unbudgeted", f"{words(tried.quality)}; no budget was set"))


def _screened(job: Job, tried: Tried) -> Tried:
    """How it stands on the search's samples; without a limit on the loss, whether it is the same model at all."""
    made, goals = tried.artifact, job.order.goals
    assert made is not None
    worst = min((one.cosine for one in tried.parity_to_float), default=1.0)
    if not goals.judged:
        if not worst >= LEAST_COSINE:
            why = f"cosine {worst:.2f} to the float artifact, below {LEAST_COSINE}, and no budget allows it"
            return replace(tried, verdict=Verdict("missed", why))
        told = "no data: checked against the source on random inputs alone"
        return replace(tried, standing="good", verdict=Verdict("unbudgeted", told if job.evaluation is None else ""))
    if job.evaluation is None or not job.seen:
        return replace(tried, standing="good")
    one = made_of(made, tried.candidate.title, tried.candidate.options)
    limits = _limits(job, one, 0, job.seen)
    standing, found = screen(limits, job.seen, _parts(job))
    verdict = _verdict(job, found, job.seen)
    if standing == "good":
        verdict = Verdict("screened", f"{verdict.why.split(',')[0]}, n = {found.bound.n:,}: good, and not needed")
    tried = replace(tried, standing=standing, screened=found.bound, verdict=verdict)
    return _with_quality(tried, scores(job, one, 0, found.bound.n))


def _timed(job: Job, target: Target, tried: Tried) -> Tried:
    """With what was timed; out where that is slower than float, or over a goal."""
    made, source, goals = tried.artifact, tried.source, job.order.goals
    assert made is not None
    assert source is not None
    times = timed(job, target, tried.candidate, made, source)
    tried = replace(tried, times=times, candidate=with_threads(tried.candidate, times))
    p90 = None if times.made is None else times.made.p90_ms
    if reason := goals.exceeded(tried.bytes, tried.peak_mb, p90):
        return replace(tried, standing="out", verdict=Verdict("missed", reason))
    quantized = tried.candidate.precision != "float32" and made.path != source.path
    if times.made is None or not quantized or (goals.for_size and tried.bytes < tried.float_bytes) or times.faster:
        return tried
    word = "slower than" if times.made.low > 1 / FASTER else "no faster than"
    why = f"{word} float32 ({times.made.ratio:.2f} of its time [{times.made.low:.2f}, {times.made.high:.2f}])"
    verdict = Verdict("missed", f"{why}: {times.slow}" if times.slow else why)
    return replace(tried, standing="out", verdict=verdict, too_slow=True)


def _on_target(job: Job, target: Target, tried: Tried) -> Tried:
    """Scored on the target's own instruction set, where that can be had; out where it answers worse there."""
    assert tried.artifact is not None
    found = score_on_target(job, target, tried.candidate, tried.artifact)
    tried = replace(tried, scored_on=tuple(found))
    worse = next((one for one in found if one.worse), None)
    return tried if worse is None else replace(tried, verdict=Verdict("missed", worse.words))


def _settled(job: Job, candidate: Candidate, source: Artifact) -> Candidate:
    """The candidate with the operators that are to stay in float: as few as stand on the search's samples."""
    groups = sensitive_groups(job, candidate, source)

    def with_kept(kept: Kept) -> Candidate:
        return replace(candidate, recipe=replace(candidate.recipe, keep=kept), mixed=False)

    if not job.seen:
        return with_kept(most_of_the_error(groups))

    @once
    def stands(kept: Kept) -> bool:
        try:
            made, _ = quantized_artifact(job, with_kept(kept), source)
        except Unsupported:  # with so much in float it would be int8 in name only
            return False
        one = made_of(made, candidate.title, candidate.options)
        return screen(_limits(job, one, 0, job.seen), job.seen, _parts(job))[0] == "good"

    kept = frozen_then_squeezed(groups, stands)
    if kept is None:
        raise Unsupported("even with half of the operators in float it is over the budget on the search's samples")
    return with_kept(kept)


def _parts(job: Job) -> tuple[float, ...]:
    """When to look: real-valued metrics need many samples for a bootstrap at a high level, and a user's metric of
    all samples together takes 500 calls of it at each look."""
    kind = nature(job)
    if kind.whole is not None:
        return (1.0,)
    return LOOKS if kind.metric in SHARES else (0.5, 1.0)


def _trial(job: Job, one: Answering, start: int, n: int, alpha: float) -> Trial:
    trusted = as_trusted(alpha, nature(job).metric in SHARES)
    return hold(_limits(job, one, start, n), n, trusted, _parts(job), job.late)


def _limits(job: Job, one: Answering, start: int, n: int) -> list[Limit]:
    """What `one` must keep to on the evaluation samples from `start`: the drop of all, and of each class."""
    goals = job.order.goals

    @once
    def found(count: int) -> Scores:
        return scores(job, one, start, start + count)

    def limit(name: str, budget: Budget, index: int | None) -> Limit:
        def measured(count: int, level: float) -> Bound:
            part = found(count) if index is None else found(count).of_class(index)
            if not len(part):
                return Bound(0, 0.0, float("-inf"), float("inf"), level, 0.0)
            quality = measure(part, level)
            allowed = budget.allows(quality.metric, quality.reference)
            return Bound(count, quality.drop, quality.low, quality.high, level, allowed)

        def needed(count: int, level: float) -> int:
            part = found(count) if index is None else found(count).of_class(index)
            if not len(part) or part.whole is not None:
                return 2 * count
            allowed = budget.allows(part.metric, float(part.reference.mean()))
            return math.ceil(enough(part.worse, level, allowed, part.metric in SHARES) * count / len(part))

        return Limit(name, measured, needed)

    limits = [limit("", goals.max_drop, None)] if goals.max_drop is not None else []
    if goals.max_class_drop is not None:
        names = job.order.labels
        for index in _classes(job, start, n):
            limits.append(limit(names[index] if index < len(names) else str(index), goals.max_class_drop, index))
    return limits


def _classes(job: Job, start: int, n: int) -> list[int]:
    """The classes whose drop can be told: those of the labels, else those that the source answers.

    Raises:
        EdgeKitError: there are none.
    """
    one = source_of(job)
    found = scores(job, one, start, start + n, beside=one).classes
    if found is None:
        raise EdgeKitError(
            f"--max-class-drop needs classes, and {nature(job).metric} has none", hint="leave it out, or use --max-drop"
        )
    return sorted({int(index) for index in found})


def _verdict(job: Job, found: Trial, of: int) -> Verdict:
    """A trial's end in words. `of` is how many samples there were for it."""
    bound, goals, metric = found.bound, job.order.goals, nature(job).metric
    budget = goals.max_drop if not found.limit.name else goals.max_class_drop
    subject = f"class {found.limit.name}: " if found.limit.name else ""
    drop, low, high = (amount(metric, value) for value in (bound.drop, bound.low, bound.high))
    said = f"{subject}{metric} drop {drop} [{low}, {high}], n = {bound.n:,}{f' of {of:,}' if bound.n < of else ''}"
    if not np.isfinite(bound.drop):
        return Verdict("missed", f"{said}: not a number")
    if found.outcome == "passed":
        return Verdict("passed", f"{said}, within {budget}")
    if found.outcome == "missed":
        return Verdict("missed", f"{said}, over {budget}")
    if bound.n < of:
        return Verdict("inconclusive", f"{said}: the time was over before it could be told against {budget}")
    assert job.evaluation is not None
    needed = math.ceil((found.needed or 0) * len(job.evaluation) / (len(job.evaluation) - job.seen))
    why = f"{said}: too few samples to tell against {budget}; about {needed:,} would do"
    return Verdict("inconclusive", why, needed)


def _on_record(job: Job, tried: Tried) -> Verdict:
    """The verdict over all samples of a candidate that was confirmed: the 95 % interval must keep the goals too."""
    assert tried.artifact is not None
    assert tried.confirmed is not None
    assert job.evaluation is not None
    one, n = made_of(tried.artifact, tried.candidate.title, tried.candidate.options), len(job.evaluation)
    found = hold(_limits(job, one, 0, n), n, 1 - LEVEL, (1.0,))
    verdict = _verdict(job, found, n)
    if verdict.outcome != "passed" or not job.seen:
        return verdict
    return replace(verdict, why=f"{verdict.why}; confirmed on {tried.confirmed.n:,} that the search never saw")


def _too_big(target: Target, tried: Tried) -> str | None:
    """Why it does not fit the target, or None."""
    if tried.bytes / 1e6 > target.storage_mb:
        return f"{tried.bytes / 1e6:,.0f} MB do not fit into {target.storage_mb:,} MB of storage"
    if tried.peak_mb is not None and tried.peak_mb > target.memory_mb:
        return f"it peaks at {tried.peak_mb:,.0f} MB; {target.title} has {target.memory_mb:,} MB"
    return None


def _with_quality(tried: Tried, found: Scores) -> Tried:
    return replace(tried, quality=measure(found), agreement=agreement(found), classes=by_class(found))


def _rescored(job: Job, tried: Tried, confirmed: int) -> Tried:
    """With quality over the search's samples and the first `confirmed` of the others."""
    assert tried.artifact is not None
    one = made_of(tried.artifact, tried.candidate.title, tried.candidate.options)
    return _with_quality(tried, scores(job, one, 0, job.seen + confirmed))

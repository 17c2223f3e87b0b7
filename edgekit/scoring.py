"""Try a candidate: make it, screen it, measure what it takes, confirm it on samples that the search never saw.

Refuses nothing by itself: what a converter or quantizer cannot do becomes a `Tried` with the reason."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache as once

from edgekit_runtime.errors import Unsupported

from edgekit.answers import Answering, made_of, nature, scores
from edgekit.coverage import covered
from edgekit.elsewhere import ScoredOn, score_on_target
from edgekit.evidence import (
    LEVEL,
    Quality,
    Scores,
    Verdict,
    agreement,
    amount,
    by_class,
    measure,
    words,
)  # fmt: skip
from edgekit.job import Job
from edgekit.judging import limits, looks_of, trial, verdict_of
from edgekit.making import float_artifact, quantized_artifact, sensitive_groups
from edgekit.measuring import FASTER, Timed, floats_in_turn, peak_mb, timed, with_threads
from edgekit.mixing import Kept, frozen_then_squeezed, most_of_the_error
from edgekit.model import Artifact
from edgekit.parity import Parity
from edgekit.plan import Candidate, Plan
from edgekit.target import Target
from edgekit.trial import Bound, Standing, hold, screen

SURE = 0.8
"""With --best, at which level a candidate must keep its goals in screening to be confirmed before the others: they
are confirmed by cost, and each confirmation that fails makes the next one harder to pass."""
LEAST_COSINE = 0.8
"""Where no budget was set, an artifact further than this from float is not the same model any more."""


@dataclass(frozen=True)
class Tried:
    """A candidate and all that is known of it. Sizes in bytes, memory in MB.

    `quality`, `agreement` (how often the best class is the source's) and `classes` are over all samples that were
    scored; `screened` and `confirmed` are what the verdict rests on. `artifact` is None, and `verdict` says why,
    where it could not be made. `too_slow` says that it was timed and is no faster than float; `over` how far it is over
    a limit on size, memory or latency, in parts of that limit.
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
    over: float = 0.0

    @property
    def answering(self) -> Answering:
        """The artifact that was made, as one that answers here."""
        assert self.artifact is not None
        return made_of(self.artifact, self.candidate.title, self.candidate.options)

    @property
    def cost(self) -> float:
        """What ranks candidates: the time in ms where it was timed, the size in MB where it was not."""
        return self.bytes / 1e6 if self.times.cost_ms is None else self.times.cost_ms


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
        made = covered(made, candidate.options)
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
    return _timed(job, plan, tried)


def confirm(job: Job, plan: Plan, tried: Tried, alpha: float) -> Tried:
    """Hold the candidate against its goals on samples that the search never saw, spending `alpha`, then on the
    target's instruction set; where it passes, score it on every sample for the record, which must keep them too."""
    data, made = job.evaluation, tried.artifact
    assert made is not None
    if not job.order.goals.judged:
        return _on_target(job, plan.target, recorded(job, tried))
    assert data is not None
    one = tried.answering
    n = len(data) - job.seen
    found = trial(job, one, job.seen, n, alpha)
    tried = replace(tried, confirmed=found.bound, verdict=verdict_of(job, found, n))
    if tried.verdict.outcome != "passed":
        return _rescored(job, tried, found.size)
    tried = _on_target(job, plan.target, tried)
    if tried.verdict.outcome != "passed" or job.late():
        return _rescored(job, tried, found.size)
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
    if not job.seen:
        return replace(tried, standing="good")
    one = tried.answering
    standing, found = screen(limits(job, one, 0, job.seen), job.seen, looks_of(job), SURE if job.order.best else 0.5)
    verdict = verdict_of(job, found, job.seen)
    if standing == "good":
        drop = amount(nature(job).metric, found.bound.drop)
        verdict = Verdict("screened", f"{nature(job).metric} drop {drop}, n = {found.size:,}: good, and not needed")
    tried = replace(tried, standing=standing, screened=found.bound, verdict=verdict)
    return _with_quality(tried, scores(job, one, 0, found.size))


def _floats(job: Job, plan: Plan) -> dict[str, Artifact]:
    """The float artifact of each format of the plan that can be had."""
    found = {}
    for candidate in plan.candidates:
        with suppress(Unsupported):
            if candidate.format not in found:
                found[candidate.format] = float_artifact(job, candidate.steps, candidate.format)[0]
    return found


def _timed(job: Job, plan: Plan, tried: Tried) -> Tried:
    """With what was timed; out where that is slower than float, or over a goal."""
    made, source, goals = tried.artifact, tried.source, job.order.goals
    assert made is not None
    assert source is not None
    times = timed(job, plan.target, tried.candidate, made, source)
    if job.order.best and times.made is not None and job.order.measure_on is None:
        times = replace(times, float_ms=floats_in_turn(job, _floats(job, plan)).get(made.format))
    tried = replace(tried, times=times, candidate=with_threads(tried.candidate, times))
    p90 = None if times.made is None else times.made.p90_ms
    if reason := goals.exceeded(tried.bytes, tried.peak_mb, p90):
        over = goals.excess(tried.bytes, tried.peak_mb, p90)
        return replace(tried, standing="out", verdict=Verdict("missed", reason), over=over)
    quantized = tried.candidate.precision != "float32" and made.path != source.path
    if times.made is None or not quantized or (goals.for_size and tried.bytes < tried.float_bytes) or times.faster:
        return tried
    word = "slower than" if times.made.low > 1 / FASTER else "no faster than"
    speed, least, most = (1 / ratio for ratio in (times.made.ratio, times.made.high, times.made.low))
    why = f"{word} float32 ({speed:.2f}x its speed [{least:.2f}, {most:.2f}])"
    if goals.for_size:
        why += f", and no smaller ({tried.bytes / 1e3:,.0f} kB, float32 {tried.float_bytes / 1e3:,.0f} kB)"
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
        return screen(limits(job, one, 0, job.seen), job.seen, looks_of(job))[0] == "good"

    kept = frozen_then_squeezed(groups, stands)
    if kept is None:
        raise Unsupported("even with half of the operators in float it is over the budget on the search's samples")
    return with_kept(kept)


def _on_record(job: Job, tried: Tried) -> Verdict:
    """The verdict over all samples of a candidate that was confirmed: the 95 % interval must keep the goals too."""
    assert tried.confirmed is not None
    assert job.evaluation is not None
    one, n = tried.answering, len(job.evaluation)
    found = hold(limits(job, one, 0, n), n, 1 - LEVEL, (1.0,))
    verdict = verdict_of(job, found, n)
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
    return _with_quality(tried, scores(job, tried.answering, 0, job.seen + confirmed))

"""What a build found, as plain facts for machines: JSON values that the page and the model card render.

Refuses nothing; what was not measured is None."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import edgekit_runtime

from edgekit.answers import machine
from edgekit.cache import versions
from edgekit.data import raw_fingerprint
from edgekit.dataset import coverage_of_classes, duplicates_within
from edgekit.evidence import Quality
from edgekit.goals import Goals
from edgekit.job import Job
from edgekit.plan import Plan
from edgekit.scoring import Tried
from edgekit.timing import Latency
from edgekit.trial import Bound

MOST_CLASSES = 50
"""Of how many classes the facts tell, those that lose the most first."""


def as_json(job: Job, plan: Plan, tried: Sequence[Tried], best: Tried) -> dict[str, Any]:
    """All facts of one target's build, as JSON values. Sizes in bytes, times in ms, shares from 0 to 1."""
    model, order = job.model, job.order
    front = pareto(tried)
    found = {
        "name": order.name,
        "version": order.version,
        "target": {"name": plan.target.name, "title": plan.target.title, "arch": plan.target.arch},
        "verdict": best.verdict.outcome,
        "why": best.verdict.why,
        "hint": "",
        "sentence": _sentence(job, plan, best),
        "pick": _pick(job, tried, best),
        "command": order.command,
        "budget": None if order.goals.max_drop is None else str(order.goals.max_drop),
        "goals": _goals(order.goals),
        "source": {
            "model": order.origin.model,
            "kind": model.kind,
            "sha256": job.fingerprint,
            "parameters": model.facts.parameters,
            "bytes": model.facts.bytes,
            "inputs": [str(spec) for spec in model.inputs],
            "outputs": [str(spec) for spec in model.outputs],
        },
        "data": _data(job),
        "candidates": [_candidate(job, one, one is best, one in front) for one in tried],
        "left_out": [*plan.left_out, *_closed(plan, tried)],
        "machine": machine(),
        "tools": versions(),
        "edgekit": edgekit_runtime.__version__,
    }
    return _finite(found)  # type: ignore[no-any-return]


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """Those that none beats in both drop and cost."""
    known = [one for one in tried if one.quality is not None and math.isfinite(one.quality.drop)]

    def beaten(one: Tried) -> bool:
        assert one.quality is not None
        return any(
            other.quality is not None
            and other.quality.drop <= one.quality.drop
            and other.cost <= one.cost
            and (other.quality.drop, other.cost) != (one.quality.drop, one.cost)
            for other in known
        )

    return [one for one in known if not beaten(one)]


def _closed(plan: Plan, tried: Sequence[Tried]) -> list[str]:
    """Recipes that were not tried since a plainer one of the same operators was no faster than float."""
    told = []
    made = {one.candidate.recipe for one in tried}
    for one in (one for one in tried if one.too_slow):
        kind = (one.candidate.format, one.candidate.precision)
        others = [c for c in plan.candidates if (c.format, c.precision) == kind and c.recipe not in made]
        if others:
            told.append(f"{len(others)} more recipes of {one.candidate.title}: the same operators, which are no faster")
    return told


def _sentence(job: Job, plan: Plan, best: Tried) -> str:
    """The verdict in one sentence."""
    title, target, budget = best.candidate.title, plan.target.title, job.order.goals.max_drop
    only = job.order.goals == Goals(max_drop=budget, smaller=job.order.goals.smaller)
    kept = f"the budget of {budget}" if budget is not None and only else "every goal"
    return {
        "passed": f"{title} is ready for {target}: it keeps {kept}.",
        "unbudgeted": f"{title} is packed for {target}; no budget was set: what it loses was measured, not judged.",
        "missed": f"No bundle for {target}: nothing that was tried keeps {kept}; {title} comes nearest.",
        "inconclusive": f"No bundle for {target}: too few samples to tell whether {title} keeps {kept}.",
        "refused": f"No bundle for {target}: {title} could not be made as it has to be.",
    }[best.verdict.outcome]


def _pick(job: Job, tried: Sequence[Tried], best: Tried) -> str:
    """Why this candidate, in words."""
    if best.verdict.outcome not in ("passed", "unbudgeted"):
        return f"{best.candidate.title} lost the least of what came furthest among {len(tried)} that were tried"
    if job.order.best:
        return (
            f"{best.candidate.title} costs the least of those that keep every goal, among {len(tried)} that were tried"
        )
    if len(tried) == 1:
        return f"{best.candidate.title} was tried first and keeps every goal"
    return f"{best.candidate.title} is the cheapest to make that keeps every goal; {len(tried) - 1} before it did not"


def _goals(goals: Goals) -> dict[str, Any]:
    return {
        "max_drop": None if goals.max_drop is None else str(goals.max_drop),
        "max_class_drop": None if goals.max_class_drop is None else str(goals.max_class_drop),
        "max_latency_ms": goals.max_latency_ms,
        "max_bytes": goals.max_bytes,
        "max_memory_mb": goals.max_memory_mb,
        "smaller": goals.smaller,
    }


def _data(job: Job) -> dict[str, Any]:
    """Both sides: where from, how many, a digest of the files' bytes (of the samples, where there is no file)."""
    found: dict[str, Any] = {"evaluation": None, "calibration": None}
    given = {"evaluation": job.order.data, "calibration": job.order.calibration or job.order.data}
    for side, data in (("evaluation", job.evaluation), ("calibration", job.calibration)):
        if data is not None:
            digest = raw_fingerprint(given[side] or "") or data.fingerprint
            labelled = data.labels is not None
            found[side] = {"where": data.where, "n": len(data), "sha256": digest, "labelled": labelled}
    if job.evaluation is not None:
        found["evaluation"] |= {"search": job.seen, "confirm": len(job.evaluation) - job.seen}
        found["evaluation"]["repeated"] = duplicates_within(job.evaluation)
    if job.calibration is not None:
        classes = job.primary.shape[-1] if len(job.primary.shape) == 2 else None
        found["calibration"] |= coverage_of_classes(job.calibration, classes, job.order.labels) or {}
    return found


def _candidate(job: Job, tried: Tried, chosen: bool, front: bool) -> dict[str, Any]:
    candidate, times = tried.candidate, tried.times
    classes = [
        {"class": job.word(index), **asdict(quality)}
        for index, quality in sorted(tried.classes.items(), key=lambda item: -item[1].drop)
    ]
    return {
        "chosen": chosen,
        "title": candidate.name,
        "recipe": candidate.how,
        "format": candidate.format,
        "precision": candidate.precision,
        "threads": candidate.options.threads,
        "kept_in_float": list(candidate.recipe.keep),
        "chosen_because": candidate.why,
        "verdict": tried.verdict.outcome,
        "why": tried.verdict.why,
        "bytes": tried.bytes,
        "float_bytes": tried.float_bytes,
        "peak_mb": tried.peak_mb,
        "quality": _quality(tried.quality),
        "agreement": _quality(tried.agreement),
        "screened": _bound(tried.screened, job.seen),
        "confirmed": _bound(tried.confirmed, len(job.evaluation) - job.seen if job.evaluation is not None else 0),
        "classes": classes[:MOST_CLASSES],
        "latency": _latency(times.made),
        "float_latency": _latency(times.source),
        "latency_by_threads": {str(count): ms for count, ms in (times.threads or {}).items()},
        "cost_ms": times.cost_ms,
        "timed": times.words,
        "slow": times.slow,
        "scored_on": [asdict(one) for one in tried.scored_on],
        "parity_to_source": [asdict(one) for one in tried.parity_to_source],
        "parity_to_float": [asdict(one) for one in tried.parity_to_float],
        "notes": list(tried.artifact.notes) if tried.artifact else [],
        "front": front,
    }  # fmt: skip


def _latency(found: Latency | None) -> dict[str, Any] | None:
    """Without its shape, which the details of the chosen one hold."""
    return None if found is None else {key: value for key, value in asdict(found).items() if key != "shape"}


def _quality(found: Quality | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _bound(found: Bound | None, of: int) -> dict[str, Any] | None:
    return None if found is None else {**asdict(found), "of": of}


def _finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON has not, as None."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

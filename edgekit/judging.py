"""Judge a candidate by the order's goals: what it must keep to, on which samples, and the end of a trial in words.

Refuses a drop of classes where there are none."""

import math
from functools import cache as once

import numpy as np
from edgekit_runtime.errors import EdgeKitError

from edgekit.answers import Answering, nature, scores, source_of
from edgekit.evidence import SHARES, Scores, Verdict, amount, measure
from edgekit.goals import Budget
from edgekit.intervals import enough
from edgekit.job import Job
from edgekit.searching import SEEN
from edgekit.trial import LOOKS, Bound, Limit, Trial, as_trusted, hold, looks


def trial(job: Job, one: Answering, start: int, n: int, alpha: float) -> Trial:
    """`one` on trial on `n` evaluation samples from `start`, with the error `alpha` to spend."""
    trusted = as_trusted(alpha, nature(job).metric in SHARES)
    return hold(limits(job, one, start, n), n, trusted, looks_of(job))


def limits(job: Job, one: Answering, start: int, n: int) -> list[Limit]:
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
            return Bound(len(part), quality.drop, quality.low, quality.high, level, allowed)

        def needed(count: int, level: float) -> int:
            part = found(count) if index is None else found(count).of_class(index)
            if not len(part) or part.whole is not None:
                return 2 * count
            allowed = budget.allows(part.metric, float(part.reference.mean()))
            strict = looks(10**6, 1 - level)[-1][1]
            return math.ceil(1.05 * enough(part.worse, strict, allowed, part.metric in SHARES) * count / len(part))

        return Limit(name, measured, needed)

    held = [limit("", goals.max_drop, None)] if goals.max_drop is not None else []
    if goals.max_class_drop is not None:
        for index in classes_of(job, start, n):
            held.append(limit(f"class {job.word(index)}", goals.max_class_drop, index))
    return held


def verdict_of(job: Job, found: Trial, of: int) -> Verdict:
    """A trial's end in words. `of` is how many samples there were for it."""
    bound, goals, metric = found.bound, job.order.goals, nature(job).metric
    budget = goals.max_drop if not found.limit.name else goals.max_class_drop
    subject = f"{found.limit.name}: " if found.limit.name else ""
    drop, low, high = (amount(metric, value) for value in (bound.drop, bound.low, bound.high))
    early = f" of {of:,}" if found.size < of and not found.limit.name else ""
    early += f" (bounds at {bound.level * 100:.4g} % each)" if bound.level > 0.985 else ""
    said = f"{subject}{metric} drop {drop} [{low}, {high}], n = {bound.n:,}{early}"
    if not np.isfinite(bound.drop):
        return Verdict("missed", f"{said}: not a number")
    if found.outcome == "passed":
        each = f", every class within {goals.max_class_drop}" if goals.max_class_drop is not None else ""
        return Verdict("passed", f"{said}, within {budget}{each if budget != goals.max_class_drop else ''}")
    if found.outcome == "missed":
        return Verdict("missed", f"{said}, {'' if bound.low > bound.allowed else 'seems '}over {budget}")
    confirmed = found.needed or 0
    part, _, least = SEEN
    needed = confirmed if confirmed < least else math.ceil(confirmed * part / (part - 1))
    why = f"{said}: too few samples to tell against {budget}; about {needed:,} evaluation samples would do"
    return Verdict("inconclusive", why, needed)


def looks_of(job: Job) -> tuple[float, ...]:
    """When to look: real-valued metrics need many samples for a bootstrap at a high level, and a user's metric of
    all samples together takes 500 calls of it at each look."""
    kind = nature(job)
    if kind.whole is not None:
        return (1.0,)
    return LOOKS if kind.metric in SHARES else (0.5, 1.0)


def classes_of(job: Job, start: int, n: int) -> list[int]:
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

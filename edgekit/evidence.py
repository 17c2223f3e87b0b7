"""What a conversion cost: quality of each sample, of all and of each class, beside the source's on the same samples.

Refuses a metric that does not fit the output or the labels. A NaN is never within anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.marks import METRICS as METRICS
from edgekit_runtime.marks import SHARES as SHARES
from edgekit_runtime.marks import amount as amount
from edgekit_runtime.marks import best_classes, marks, squeezed, worse
from edgekit_runtime.tensors import Array

from edgekit.intervals import bounds, bounds_of_numbers, unseen
from edgekit.userland import load_function, raised

LEVEL = 0.975
"""The one-sided confidence of each bound: both together are a 95 % interval."""

Outputs = list[Array]
"""One output of the model for every sample, without the batch axis."""


@dataclass(frozen=True)
class Quality:
    """A metric of the candidate beside the reference's on the same `n` samples.

    `drop` is how much worse the candidate is, with its confidence interval `low` to `high`; for
    metrics where less is better it is the increase. Units: those of the metric (shares: 0.01 is one point).
    """

    metric: str
    n: int
    reference: float
    value: float
    drop: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may be shipped, and why in words. `needed` is the n that would settle it. "screened" is one
    that the search found good and did not need."""

    outcome: Literal["passed", "screened", "missed", "inconclusive", "unbudgeted", "refused"]
    why: str
    needed: int | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of n samples by one metric: `reference` and `candidate` [n], more being better but for mae.

    `classes` [n] is what class a sample counts for, None where there are none. `best` holds the best class of
    reference and candidate [n] each, where the output has classes. `whole` is for a user's metric that gives one
    number for all samples: the outputs and labels that it is called with.
    """

    metric: str
    reference: Array
    candidate: Array
    classes: Array | None = None
    best: tuple[Array, Array] | None = None
    whole: tuple[Outputs, Outputs, Array | None] | None = None

    def __len__(self) -> int:
        return len(self.reference)

    @property
    def worse(self) -> Array:
        """How much worse the candidate did on each sample [n]."""
        return worse(self.metric, self.reference, self.candidate)

    def take(self, rows: Array) -> "Scores":
        """The scores of the samples at `rows` (indices)."""
        whole = None
        if self.whole is not None:
            before, after, labels = self.whole
            chosen = [[side[i] for i in rows] for side in (before, after)]
            whole = (chosen[0], chosen[1], labels if labels is None else labels[rows])
        return Scores(
            self.metric, self.reference[rows], self.candidate[rows],
            None if self.classes is None else self.classes[rows],
            None if self.best is None else (self.best[0][rows], self.best[1][rows]), whole,
        )  # fmt: skip

    def of_class(self, index: int) -> "Scores":
        """The samples of one class."""
        assert self.classes is not None
        return self.take(np.flatnonzero(self.classes == index))


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of several runs of samples as one."""
    first = parts[0]
    classes = [part.classes for part in parts if part.classes is not None]
    best = [part.best for part in parts if part.best is not None]
    wholes = [part.whole for part in parts if part.whole is not None]
    labels = [whole[2] for whole in wholes if whole[2] is not None]
    return Scores(
        first.metric,
        np.concatenate([part.reference for part in parts]),
        np.concatenate([part.candidate for part in parts]),
        np.concatenate(classes) if len(classes) == len(parts) else None,
        (np.concatenate([one[0] for one in best]), np.concatenate([one[1] for one in best]))
        if len(best) == len(parts)
        else None,
        (
            [one for whole in wholes for one in whole[0]],
            [one for whole in wholes for one in whole[1]],
            np.concatenate(labels) if labels else None,
        )
        if wholes
        else None,
    )


def choose_metric(asked: str | None, labels: Array | None, example: Array) -> str:
    """The metric that was asked for, or the one that fits: top1 for class indices, mae for numbers, else
    agreement with the source where the output has classes, cosine where it has none.

    Raises:
        EdgeKitError: the metric is unknown or needs labels or classes that are not there.
    """
    classes = example.ndim == 1 and example.size > 1
    if asked is None:
        if labels is None:
            return "agreement" if classes else "cosine"
        return "top1" if labels.dtype.kind in "iu" and labels.ndim == 1 and classes else "mae"
    if asked not in METRICS and ":" not in asked:
        raise EdgeKitError(f"no metric {asked!r}", hint=f"use one of {', '.join(METRICS)}, or module:function")
    if asked in ("top1", "top5", "mae") and labels is None:
        raise EdgeKitError(f"{asked} needs labels, and the data has none", hint="add labels, or use --metric agreement")
    if asked in SHARES and not classes:
        raise EdgeKitError(
            f"{asked} needs a score for each class; the output has shape {list(example.shape)}",
            hint="use --metric cosine or mae",
        )
    return asked


def score(metric: str, reference: Outputs, candidate: Outputs, labels: Array | None) -> Scores:
    """Score both on the same samples."""
    best = None
    if all(one.ndim == 1 and one.size > 1 for one in (*reference, *candidate)):
        best = (np.array([one.argmax() for one in reference]), np.array([one.argmax() for one in candidate]))
    if ":" in metric:
        whole = (reference, candidate, labels)
        both = [_users_own(metric, outputs, labels) for outputs in (reference, candidate)]
        each = all(found.shape == (len(reference),) for found in both)
        if each:
            return Scores(metric, both[0], both[1], _classes(labels), best)
        return Scores(metric, np.full(len(reference), both[0]), np.full(len(reference), both[1]), None, best, whole)
    before, after = (_scores(metric, outputs, reference, labels) for outputs in (reference, candidate))
    classes = best[0] if metric == "agreement" and best is not None else _classes(labels)
    return Scores(metric, before, after, classes if metric in SHARES else None, best)


def measure(scores: Scores, level: float = LEVEL) -> Quality:
    """The metric over all the samples, the drop with bounds each at the one-sided `level`."""
    metric, n = scores.metric, len(scores)
    if scores.whole is not None:
        return _measured_whole(scores, level)
    before, after = scores.reference, scores.candidate
    worse = scores.worse
    both = np.concatenate([before, after])
    if metric not in SHARES and np.isfinite(both).all():
        low, high = bounds_of_numbers(worse, float(np.ptp(both)), level)
        return Quality(metric, n, float(before.mean()), float(after.mean()), float(worse.mean()), low, high)
    low, high = bounds(worse, level, shares=metric in SHARES)
    return Quality(metric, n, float(before.mean()), float(after.mean()), float(worse.mean()), low, high)


def agreement(scores: Scores) -> Quality | None:
    """How often the best class is the source's, where there are classes."""
    if scores.best is None:
        return None
    same = np.asarray(scores.best[0] == scores.best[1], np.float64)
    return measure(Scores("agreement", np.ones(len(same)), same))


def by_class(scores: Scores, level: float = LEVEL) -> dict[int, Quality]:
    """The metric for the samples of each class (recall, for top1); empty where there are none."""
    if scores.classes is None:
        return {}
    return {int(index): measure(scores.of_class(index), level) for index in np.unique(scores.classes)}


def words(quality: Quality) -> str:
    """Such as `top1 drop +0.12pt [-0.10, +0.34], n = 10,000`."""
    drop, low, high = (amount(quality.metric, value) for value in (quality.drop, quality.low, quality.high))
    return f"{quality.metric} drop {drop} [{low}, {high}], n = {quality.n:,}"


def _classes(labels: Array | None) -> Array | None:
    return labels if labels is not None and labels.dtype.kind in "iu" and labels.ndim == 1 else None


def _scores(metric: str, outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """A score for each sample: 0 or 1 for shares, a real number else."""
    if metric == "cosine":
        return marks(metric, outputs, reference)
    if metric == "agreement":
        return marks(metric, outputs, best_classes(reference))
    assert labels is not None
    if metric == "mae":
        _refuse_other_shapes(outputs, labels)
    return marks(metric, outputs, labels)


def _refuse_other_shapes(outputs: Outputs, labels: Array) -> None:
    for output, label in zip(outputs, labels, strict=True):
        if squeezed(output).shape != squeezed(label).shape:
            raise EdgeKitError(
                f"an output of shape {list(squeezed(output).shape)} cannot be compared with a label of shape "
                f"{list(squeezed(label).shape)}",
                hint="say --metric cosine or agreement, --output NAME, or --metric module:function of your own",
            )


def _users_own(metric: str, outputs: Outputs, labels: Array | None) -> Array:
    """`function(outputs, labels)` gives a score for each sample or one number for all, more being better."""
    try:
        found = np.asarray(load_function(metric)(outputs, labels), np.float64)
    except EdgeKitError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise EdgeKitError(
            f"metric {metric} raised {raised(error)}", hint="mend it: it gets (outputs, labels)"
        ) from error
    if found.shape not in ((), (len(outputs),)):
        raise EdgeKitError(
            f"metric {metric} gave shape {list(found.shape)} for {len(outputs)} samples",
            hint="return a number, or one for each sample",
        )
    return found


def _measured_whole(scores: Scores, level: float) -> Quality:
    """One number for all samples: both sides over resampled samples, 500 times."""
    assert scores.whole is not None
    metric, n = scores.metric, len(scores)
    before, after, labels = scores.whole

    def both(rows: Array | None = None) -> tuple[float, float]:
        told = labels if labels is None or rows is None else labels[rows]
        sides = [[side[i] for i in rows] if rows is not None else side for side in (before, after)]
        return float(_users_own(metric, sides[0], told)), float(_users_own(metric, sides[1], told))

    reference, value = both()
    drops = [np.subtract(*both(rows)) for rows in np.random.default_rng(0).integers(0, n, (500, n))]
    low, high = (float(q) for q in np.quantile(drops, [1 - level, level]))
    if low == high:  # nothing changed on any sample that was seen; something may on the next
        width = max(abs(reference), abs(value)) * unseen(n, level)
        low, high = low - width, high + width
    return Quality(metric, n, reference, value, reference - value, low, high)

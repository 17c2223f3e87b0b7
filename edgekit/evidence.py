"""What a conversion cost: parity with the source, quality on labelled data, and the verdict against the budget.

Refuses a budget that does not read, and a metric that does not fit the labels. A NaN is never within anything."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array, Feeds, Runner
from scipy import stats

from edgekit.dataset import Dataset
from edgekit.model import Tell
from edgekit.userland import load_function, raised

CONFIDENCE = 0.95
SHARES = ("top1", "top5", "agreement")
METRICS = (*SHARES, "mae", "cosine")

Outputs = list[Array]
"""One output of the model for every sample, without the batch axis."""


@dataclass(frozen=True)
class Parity:
    """How far one output is from the reference's: differences absolute, `scale` the reference's largest magnitude.

    `agreement` is the share of samples with the same best class, None where there are no classes.
    """

    output: str
    worst: float
    mean: float
    cosine: float
    agreement: float | None
    scale: float
    samples: int

    def within(self, tolerance: float) -> bool:
        """Whether the worst difference is at most `tolerance` parts of the reference's magnitude. False for NaN."""
        return self.worst <= tolerance * max(self.scale, 1e-6)


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
class Budget:
    """The largest drop allowed: `size` in points of a share (`0.5pt`) or in percent of the reference (`1%`)."""

    size: float
    unit: Literal["pt", "%"]

    def __str__(self) -> str:
        return f"{self.size:g}{self.unit}"

    def allows(self, quality: Quality) -> float:
        """The largest drop in the metric's own units.

        Raises:
            EdgeKitError: points were asked of a metric that is no share.
        """
        if self.unit == "%":
            return self.size / 100 * abs(quality.reference)
        if quality.metric == "mae":
            raise EdgeKitError("a mean absolute error has no points", hint=f"say --max-drop {self.size:g}%")
        return self.size / 100


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may be shipped, and why in words. `needed` is the n that would settle it."""

    outcome: Literal["passed", "missed", "inconclusive", "unbudgeted", "refused"]
    why: str
    needed: int | None = None


def parse_budget(text: str) -> Budget:
    """`0.5pt` or `1%`. Raises EdgeKitError on anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(pt|%)\s*", text)
    if not match:
        raise EdgeKitError(
            f"--max-drop {text!r} has no unit"
            if re.fullmatch(r"[\d.]+", text)
            else f"--max-drop {text!r} does not read",
            hint="say 0.5pt for half a point of accuracy, or 1% for a hundredth of what the source has",
        )
    return Budget(float(match[1]), "pt" if match[2] == "pt" else "%")


def outputs_of(run: Runner, data: Dataset, output: str, tell: Tell, doing: str) -> Outputs:
    """What `run` answers for every sample, in order."""
    answers: Outputs = []
    size = 32
    for feeds in data.batches(size):
        answer = run(feeds)[output]
        answers += list(answer) if data.batchable else [answer[0] if answer.ndim and len(answer) == 1 else answer]
        tell(f"{doing}: {len(answers):,} of {len(data):,} samples")
    return answers


def parity(reference: Iterable[Feeds], candidate: Iterable[Feeds]) -> tuple[Parity, ...]:
    """Compare two runs of the same feeds, output by output."""
    pairs: dict[str, list[tuple[Array, Array]]] = {}
    for wanted, got in zip(reference, candidate, strict=True):
        for name, value in wanted.items():
            pairs.setdefault(name, []).append((value, got[name]))
    return tuple(_parity(name, arrays) for name, arrays in pairs.items())


def _parity(name: str, pairs: list[tuple[Array, Array]]) -> Parity:
    if any(a.shape != b.shape for a, b in pairs):
        return Parity(name, np.inf, np.inf, 0.0, None, 0.0, len(pairs))
    worst, total, count, scale = 0.0, 0.0, 0, 0.0
    cosines, same, rows = [], 0, 0
    for a, b in pairs:
        left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if not left.size:
            continue
        far = np.abs(left - right)
        worst = float(np.maximum(worst, far.max()))
        total, count, scale = total + float(far.sum()), count + far.size, max(scale, float(np.abs(left).max()))
        cosines.append(_cosine(left.ravel(), right.ravel()))
        if left.ndim >= 2 and left.shape[-1] > 1:
            same += int((left.argmax(-1) == right.argmax(-1)).sum())
            rows += left[..., 0].size
    mean = total / count if count else 0.0
    return Parity(
        name, worst, mean, float(np.mean(cosines)) if cosines else 1.0, same / rows if rows else None, scale, len(pairs)
    )


def _cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    if size == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(a @ b / size)


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


def measure(metric: str, reference: Outputs, candidate: Outputs, labels: Array | None) -> Quality:
    """Score both on the same samples; the drop's interval is paired, at 95 %."""
    n = len(reference)
    if ":" in metric:
        return _users_own(metric, reference, candidate, labels)
    before, after = (_scores(metric, outputs, reference, labels) for outputs in (reference, candidate))
    worse = after - before if metric == "mae" else before - after
    low, high = _interval(worse, shares=metric in SHARES)
    return Quality(metric, n, float(before.mean()), float(after.mean()), float(worse.mean()), low, high)


def judge(quality: Quality, budget: Budget | None) -> Verdict:
    """A candidate passes only if the upper bound of its drop is within the budget."""
    drop, low, high = (_amount(quality, value) for value in (quality.drop, quality.low, quality.high))
    words = f"{quality.metric} drop {drop} [{low}, {high}], n = {quality.n:,}"
    if budget is None:
        return Verdict("unbudgeted", f"{words}; no budget was set")
    allowed = budget.allows(quality)
    if not np.isfinite([quality.drop, quality.low, quality.high]).all():
        return Verdict("missed", f"{words}: not a number")
    if quality.high <= allowed:
        return Verdict("passed", f"{words}, within {budget}")
    if quality.drop >= allowed:
        return Verdict("missed", f"{words}, over {budget}")
    needed = int(np.ceil(quality.n * ((quality.high - quality.drop) / (allowed - quality.drop)) ** 2))
    return Verdict(
        "inconclusive", f"{words}: too few samples to tell against {budget}; about {needed:,} would do", needed
    )


def _amount(quality: Quality, value: float) -> str:
    return f"{value * 100:+.2f}pt" if quality.metric in SHARES else f"{value:+.4g}"


def _scores(metric: str, outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """A score for each sample: 0 or 1 for shares, a real number else."""
    if metric in ("mae", "cosine"):
        wanted: Sequence[Any] = reference if metric == "cosine" else list(labels)  # type: ignore[arg-type]
        pairs = zip(outputs, wanted, strict=True)
        if metric == "cosine":
            return np.array([_cosine(np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)) for a, b in pairs])
        return np.array([_distance(_squeezed(a), _squeezed(b)) for a, b in pairs])
    scores = np.stack(outputs)
    if metric == "agreement":
        return np.asarray(scores.argmax(1) == np.stack(reference).argmax(1), np.float64)
    assert labels is not None
    if metric == "top1":
        return np.asarray(scores.argmax(1) == labels, np.float64)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return np.asarray((best == labels[:, None]).any(1), np.float64)


def _distance(output: Array, label: Array) -> float:
    if output.shape != label.shape:
        raise EdgeKitError(
            f"an output of shape {list(output.shape)} cannot be compared with a label of shape {list(label.shape)}",
            hint="say --metric cosine or agreement, --output NAME, or --metric module:function of your own",
        )
    return float(np.abs(output - label).mean())


def _squeezed(value: Any) -> Array:
    return np.squeeze(np.asarray(value, np.float64))


def _interval(worse: Array, shares: bool) -> tuple[float, float]:
    """95 % interval of the mean of paired differences: Agresti and Min (2005) for shares, bootstrap (scipy) else."""
    n = len(worse)
    mean = float(worse.mean())
    if not np.isfinite(mean):
        return mean, mean
    if shares:
        lost, won = float((worse > 0).sum()) + 0.5, float((worse < 0).sum()) + 0.5
        centre = (lost - won) / (n + 2)
        half = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * np.sqrt(((lost + won) / (n + 2) - centre**2) / (n + 2))
        return centre - half, centre + half
    if n < 2:
        return -np.inf, np.inf
    if np.ptp(worse) == 0.0:
        return mean, mean
    result = stats.bootstrap(
        (worse,), np.mean, confidence_level=CONFIDENCE, n_resamples=2000, batch=100, method="percentile", rng=0
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _users_own(metric: str, reference: Outputs, candidate: Outputs, labels: Array | None) -> Quality:
    """`function(outputs, labels)` gives a score for each sample or one number for all, more being better."""
    function = load_function(metric)

    def score(outputs: Outputs, indices: Array | None = None) -> Array:
        chosen = outputs if indices is None else [outputs[i] for i in indices]
        told = labels if labels is None or indices is None else labels[indices]
        try:
            return np.asarray(function(chosen, told), np.float64)
        except Exception as error:  # the user's own code may raise anything
            raise EdgeKitError(
                f"metric {metric} raised {raised(error)}", hint="mend it: it gets (outputs, labels)"
            ) from error

    before, after, n = score(reference), score(candidate), len(reference)
    if before.shape == (n,):
        low, high = _interval(before - after, shares=False)
    elif before.shape == ():
        resampled = np.random.default_rng(0).integers(0, n, (500, n))
        drops = [float(score(reference, i) - score(candidate, i)) for i in resampled]
        low, high = (float(q) for q in np.quantile(drops, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    else:
        raise EdgeKitError(
            f"metric {metric} gave shape {list(before.shape)} for {n} samples",
            hint="return a number, or one for each sample",
        )
    return Quality(metric, n, float(before.mean()), float(after.mean()), float(before.mean() - after.mean()), low, high)

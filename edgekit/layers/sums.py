"""From tensors to layers and from timings to costs: the arithmetic that the three formats share. Holds no tensor.

Refuses nothing; what has another shape in the other file, or no number in the float file, is left out."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from edgekit_runtime.tensors import Array, Feeds

from edgekit.layers import Cost, Layer
from edgekit.model import Artifact

Moments = dict[str, Array]
"""Tensor -> the sums over all feeds of difference², float², quantized² and float times quantized."""


@dataclass(frozen=True)
class Step:
    """An operator of the float file: the tensors it takes, the one it gives, and whether it computes or only moves."""

    name: str
    op: str
    takes: tuple[str, ...]
    gives: str
    computes: bool = True


def inside(artifact: Artifact, feeds: Feeds) -> Feeds:
    """A user's sample as the artifact's arrays, repeated or cut where the artifact has fixed a size."""
    found = {}
    for port in artifact.in_floats().inputs:
        value, cut = feeds[port.spec.name], port.cut()
        if cut is not None:
            axis, size = cut
            value = value.take(np.arange(size) % value.shape[axis], axis=axis)
        found[port.inside.name] = port.inward(value)
    return found


def add(sums: Moments, name: str, real: Array, made: Array) -> None:
    """Add one feed's tensor of both files; positions without a finite float number (masks) do not count."""
    if real.shape != made.shape:
        return
    a, b = real.ravel().astype(np.float64), made.ravel().astype(np.float64)
    finite = np.isfinite(a)
    if not finite.all():
        a, b = a[finite], b[finite]
    with np.errstate(invalid="ignore", over="ignore"):
        difference = b - a
        found = np.array([difference @ difference, a @ a, b @ b, a @ b])
    sums[name] = sums[name] + found if name in sums else found


def layers(steps: Sequence[Step], sums: Moments) -> tuple[Layer, ...]:
    """The layers of the steps whose tensors were compared. A step before that the other file fused into a layer
    (a convolution into its activation) gives the layer its name."""
    makers = {step.gives: step for step in steps}
    users = Counter(name for step in steps for name in step.takes)
    scores = {name: _score(found) for name, found in sums.items()}
    found: list[Layer] = []
    for step in steps:
        if step.computes and step.gives in scores:
            error, cosine = scores[step.gives]
            chain = _fused(step, makers, users, scores)
            op = "+".join(one.op for one in chain)
            before = max((scores[name][0] for name in _compared_before(step, makers, scores)), default=0.0)
            found.append(Layer(len(found), chain[0].name, op, error, cosine, before))
    return tuple(found)


def costs(rows: Iterable[tuple[str, bool, float]]) -> tuple[Cost, ...]:
    """Costs from (kernel, integer, ms) of every operator, the dearest first, then the most numerous."""
    times: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for kernel, integer, ms in rows:
        times[kernel, integer].append(ms)
    found = [Cost(kernel, integer, len(taken), sum(taken)) for (kernel, integer), taken in times.items()]
    return tuple(sorted(found, key=lambda cost: (-np.nan_to_num(cost.ms), -cost.count, cost.kernel)))


def often(run: Callable[[], object], seconds: float = 0.4, most: int = 100) -> int:
    """Run for about `seconds`, at least 5 and at most `most` times; how often it was."""
    end, runs = time.perf_counter() + seconds, 0
    while runs < 5 or (runs < most and time.perf_counter() < end):
        run()
        runs += 1
    return runs


def _score(sums: Array) -> tuple[float, float]:
    """(relative error, cosine); infinite and 0 where the quantized file has no number."""
    difference, real, made, product = sums
    if not np.isfinite(sums).all():
        return float("inf"), 0.0
    if real == 0 or made == 0:
        same = real == made
        return (0.0, 1.0) if same else (float("inf") if real == 0 else 1.0, 0.0)
    return float(np.sqrt(difference / real)), float(np.clip(product / np.sqrt(real * made), -1.0, 1.0))


def _fused(
    step: Step, makers: Mapping[str, Step], users: Mapping[str, int], compared: Mapping[str, object]
) -> list[Step]:
    """The step and those right before it that were not compared and that nothing else uses, in order."""
    chain = [step]
    while chain[0].takes:
        before = makers.get(chain[0].takes[0])
        if before is None or not before.computes or before.gives in compared or users[before.gives] != 1:
            break
        chain.insert(0, before)
    return chain


def _compared_before(step: Step, makers: Mapping[str, Step], compared: Mapping[str, object]) -> Iterator[str]:
    """The compared tensors that the step's result comes from, past those that were not compared."""
    waiting, seen = list(step.takes), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in compared:
            yield name
        elif name in makers:
            waiting += makers[name].takes

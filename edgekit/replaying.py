"""Recorded answers held against those of another CPU: as they were recorded, one by one, several together. Pure.

Refuses recordings that do not fit the model; a NaN, or an answer of another shape, is infinitely far."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from edgekit_runtime.errors import BadBundle, BadRequest
from edgekit_runtime.manifest import Golden
from edgekit_runtime.ports import Port
from edgekit_runtime.selftest import judged
from edgekit_runtime.tensors import Array, Feeds, Runner, check_feeds, dequantized

Pair = tuple[Feeds, Feeds]


@dataclass(frozen=True)
class Replay:
    """`answers` recorded answers, in runs of `batches` samples; an empty `batches` is a model without a batch.

    `worst` is the largest difference in parts of the range of its output, which is `output`; `same` of `told`
    samples have the best class that was recorded, where the first output has classes.
    """

    answers: int
    batches: tuple[int, ...]
    worst: float
    output: str
    same: int
    told: int


def replay(golden: Golden, pairs: Sequence[Pair], ports: tuple[Sequence[Port], Sequence[Port]], run: Runner) -> Replay:
    """Ask `run`, which takes and gives real numbers, for all recorded inputs; also one by one and several together.

    `ports` are the inputs' and outputs'. Recorded integers are seen as the numbers that they stand for.

    Raises:
        BadBundle: what was recorded is not of these inputs and outputs.
    """
    _check(golden, pairs, ports)
    recorded = [(_in_floats(feeds, ports[0]), _in_floats(answer, ports[1])) for feeds, answer in pairs]
    free = all(port.spec.shape and port.spec.shape[0] is None for side in ports for port in side)
    asked = [*recorded, *(_rebatched(recorded) if free else ())]
    answers = [run(feeds) for feeds, _ in asked]
    found = judged(golden, asked, answers)
    batches = tuple(sorted({_rows(feeds) for feeds, _ in asked})) if free else ()
    first = ports[1][0].spec.name
    same, told = _best([(recorded[i][1][first], answers[i][first]) for i in range(len(recorded))])
    return Replay(len(pairs), batches, found.worst, found.output, same, told)


def _check(golden: Golden, pairs: Sequence[Pair], ports: tuple[Sequence[Port], Sequence[Port]]) -> None:
    specs, names = [port.spec for port in ports[0]], {port.spec.name for port in ports[1]}
    for feeds, answer in pairs:
        try:
            check_feeds(specs, feeds)
        except BadRequest as error:
            raise BadBundle(f"{golden.file}: {error.what}", hint="build it again") from error
        if set(answer) != names:
            raise BadBundle(f"{golden.file} records {', '.join(answer)} of {', '.join(names)}", hint="build it again")


def _in_floats(values: Feeds, ports: Sequence[Port]) -> Feeds:
    scaled = {port.spec.name: port.spec for port in ports if port.spec.scale is not None}
    return {
        name: dequantized(value, scaled[name]) if name in scaled and value.dtype.kind in "iu" else value
        for name, value in values.items()
    }


def _rebatched(pairs: Sequence[Pair]) -> list[Pair]:
    """What was recorded together apart, and what was recorded one by one, in the same shapes, together."""
    whole = [pair for pair in pairs if all(_is_of(value, _rows(pair[0])) for side in pair for value in side.values())]
    apart = [
        (_row(feeds, index), _row(answer, index))
        for feeds, answer in whole
        if _rows(feeds) > 1
        for index in range(_rows(feeds))
    ]
    singles = sorted((pair for pair in whole if _rows(pair[0]) == 1), key=_shapes)
    alike = [list(found) for _, found in groupby(singles, _shapes)]
    together = [(_joined([f for f, _ in found]), _joined([a for _, a in found])) for found in alike if len(found) > 1]
    return apart + together


def _rows(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def _is_of(value: Array, rows: int) -> bool:
    return value.ndim > 0 and len(value) == rows


def _row(values: Feeds, index: int) -> Feeds:
    return {name: value[index : index + 1] for name, value in values.items()}


def _joined(parts: Sequence[Feeds]) -> Feeds:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _shapes(pair: Pair) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((name, value.shape) for side in pair for name, value in side.items())


def _best(pairs: Sequence[tuple[Array, Array]]) -> tuple[int, int]:
    """(samples whose best class is the recorded one, samples); (0, 0) where the output has no classes."""
    if not all(a.shape == b.shape and a.ndim == 2 and a.shape[1] > 1 and a.dtype.kind in "fiu" for a, b in pairs):
        return 0, 0
    same = [int((a.argmax(1) == b.argmax(1)).sum()) for a, b in pairs]
    return sum(same), sum(len(a) for a, _ in pairs)

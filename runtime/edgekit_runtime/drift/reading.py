"""What one answered sample looked like: a few numbers and classes, read off its inputs and outputs.

Refuses nothing: what is not a number counts as such, and what cannot be told is left out.

Integer inputs count as the integers that they are, at the build as in the field. At most 4 inputs and 4 outputs are
looked at, and of a large tensor a part: 64 x 64 pixels, 16,384 values.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edgekit_runtime.drift.answers import Verdict
from edgekit_runtime.drift.choosing import batched, input_looks, output_looks
from edgekit_runtime.drift.looking import Look
from edgekit_runtime.preprocess.kinds import Preprocess
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

LONGEST = 80
"""Characters of a tensor's name that its features keep."""
_Seer = TypeVar("_Seer", Look, Verdict)


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample: feature name -> value, and feature name -> class."""

    numbers: Mapping[str, float]
    classes: Mapping[str, int]


def reader(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], preprocess: Preprocess | None, labels: int
) -> Callable[[Feeds, Feeds], list[Reading]]:
    """A function from the tensors of a request and of its answer to a `Reading` a row.

    `labels` is how many classes have words, 0 where none have.
    """
    by_row = batched([*inputs, *outputs], preprocess)
    given = list(_named(input_looks(inputs, preprocess, by_row)))
    values, verdicts = output_looks(outputs, labels, by_row)
    made, judged = list(_named(values)), list(_named(verdicts))

    def read(feeds: Feeds, answer: Feeds) -> list[Reading]:
        with np.errstate(all="ignore"):  # numbers beyond all measure overflow; what comes of it is counted
            return [one(*row) for row in (_rows(feeds, answer) if by_row else [(feeds, answer)])]

    def one(feeds: Mapping[str, Array], answer: Mapping[str, Array]) -> Reading:
        numbers: dict[str, float] = {}
        classes: dict[str, int] = {}
        for tensors, looks in ((feeds, given), (answer, made)):
            for names, tensor, look in looks:
                if tensor in tensors:  # a client may have asked for some of the outputs
                    numbers.update(zip(names, look.see(tensors[tensor]), strict=True))
        for names, tensor, verdict in judged:
            if tensor in answer:
                classes[names[0]], found = verdict.see(answer[tensor])
                numbers.update(zip(names[1:], found, strict=True))
        return Reading(numbers, classes)

    return read


def _named(chosen: Sequence[tuple[TensorSpec, _Seer]]) -> Iterator[tuple[tuple[str, ...], str, _Seer]]:
    """With the names of their features; from the second tensor on they say which one's."""
    for number, (spec, seer) in enumerate(chosen):
        plain = "".join(c if c.isprintable() else "?" for c in spec.name[:LONGEST])
        suffix = "" if number == 0 else f" of {plain}"
        yield tuple(name + suffix for name in seer.names), spec.name, seer


def _rows(feeds: Feeds, answer: Feeds) -> Iterable[tuple[Feeds, Feeds]]:
    count = min(len(value) for value in (*feeds.values(), *answer.values()))
    for row in range(count):
        yield ({k: value[row] for k, value in feeds.items()}, {k: value[row] for k, value in answer.items()})

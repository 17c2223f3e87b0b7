"""Replays the recorded inputs of a bundle through its engine and compares the answers with the recorded ones.

Refuses a bundle without recordings. A NaN is not within tolerance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import BadBundle, NotFound
from edgekit_runtime.manifest import Golden
from edgekit_runtime.tensors import Array, Feeds, Runner


@dataclass(frozen=True)
class SelfTest:
    """`worst` is the largest difference, in parts of its output's range, and inf for a NaN; `output` is where."""

    pairs: int
    worst: float
    output: str
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every answer was within tolerance."""
        return self.worst <= self.tolerance


def selftest(bundle: Bundle, run: Runner | None = None) -> SelfTest:
    """Replay the golden inputs of `bundle`, through `run` where the model is already open.

    Raises:
        NotFound: the bundle has no recordings.
        BadBundle: it has not as many as it says, or not of all outputs.
    """
    golden, pairs = recordings(bundle)
    run = run or bundle.open_model()
    return judged(golden, pairs, (run(feeds) for feeds, _ in pairs))


def recordings(bundle: Bundle) -> tuple[Golden, list[tuple[Feeds, Feeds]]]:
    """What was recorded, as (inputs, outputs). Raises as `selftest` does."""
    golden, pairs = bundle.manifest.golden, bundle.golden()
    if golden is None:
        raise NotFound(f"bundle {bundle.manifest.name} has no recorded inputs", hint="build it again with --data")
    if len(pairs) != golden.count or not pairs:
        raise BadBundle(f"{golden.file} holds {len(pairs)} recordings, the manifest says {golden.count}")
    for number, (_, recorded) in enumerate(pairs):
        for port in bundle.manifest.outputs:
            if port.spec.name not in recorded:
                raise BadBundle(f"{golden.file}: recording {number} has no output {port.spec.name!r}")
    return golden, pairs


def judged(golden: Golden, pairs: Sequence[tuple[Feeds, Feeds]], answers: Iterable[Feeds]) -> SelfTest:
    """How far the answers to the recorded inputs are from the recorded ones."""
    ranges = spans(pairs)
    worst, output = 0.0, next(iter(ranges), "")
    for (_, recorded), answer in zip(pairs, answers, strict=True):
        for name, span in ranges.items():
            off = difference(recorded, answer, name) / span
            if not off <= worst:
                worst, output = off, name
    return SelfTest(len(pairs), worst, output, golden.tolerance)


def spans(pairs: Sequence[tuple[Feeds, Feeds]]) -> dict[str, float]:
    """The range of each recorded output."""
    return {name: _range([recorded[name] for _, recorded in pairs]) for name in pairs[0][1]}


def difference(recorded: Mapping[str, Array], answer: Mapping[str, Array], name: str) -> float:
    """The largest difference; inf where shapes differ or a NaN came or was recorded."""
    if name not in answer or answer[name].shape != recorded[name].shape:
        return float("inf")
    want, got = recorded[name], answer[name]
    if want.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(want, got) else float("inf")
    if not want.size:
        return 0.0
    want, got = want.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = float(np.max(np.where(want == got, 0.0, np.abs(want - got))))
    return off if off >= 0 else float("inf")


def _range(recorded: list[Array]) -> float:
    """From the least to the greatest recorded value; the greatest magnitude, or 1, where they are all the same."""
    values = np.concatenate([value.ravel() for value in recorded])
    if values.dtype.kind not in "fiub":
        return 1.0
    values = values.astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 1.0
    return float(np.ptp(values)) or float(np.abs(values[0])) or 1.0

"""The float model beside the one that is served: on a few requests, do both answer the same?

Refuses to take more than its share of the requests, or of the time.

For a classifier (an output with one value for each label) both agree on a sample when their best class is the same.
For other models they agree when each output of numbers is within 14.1 % of the float model's, by the length of the
difference to the length of the float output: that is a cosine of at least .99, and holds for a single number too, of
which a cosine would tell the sign alone. What is no number agrees with nothing."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.feedback import Pair, Quality, quality
from edgekit_runtime.tensors import Array, Feeds, Runner

log = logging.getLogger("edgekit_runtime.shadow")

WINDOW = 1_000
"""Over how many samples the agreement rolls."""
MOST_TIME = 0.01
"""The share of all time that the float model may run."""
NEAR = 0.141
"""The sine of the angle whose cosine is .99."""
MOST_FAILURES = 3
"""In a row: then the float model does not run here, and is not asked again."""


class Turns:
    """Whose turn it is: the part `share` of all requests, and `MOST_TIME` of the time. Belongs to one thread."""

    def __init__(self, share: float, clock: Callable[[], float]) -> None:
        self._share, self._clock = share, clock
        self._credit = 0.0
        self._rests = -float("inf")

    def due(self) -> bool:
        """Whether this request is to be answered; what the time did not allow is not made up for."""
        self._credit = min(self._credit + self._share, 1.0)
        if self._credit < 1.0 - 1e-9 or self._clock() < self._rests:
            return False
        self._credit = 0.0
        return True

    def took(self, seconds: float) -> None:
        """It has just been answered, in so many seconds: rest accordingly."""
        self._rests = self._clock() + seconds * (1 / MOST_TIME - 1)


class Shadow:
    """One model's shadow. `look` belongs to one thread; `state` is read from any."""

    def __init__(
        self, run: Runner, labels: Sequence[str], share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._classes, self._clock = run, len(labels), clock
        self._turns = Turns(share, clock)
        self._failures = 0
        self._seen: deque[bool] = deque(maxlen=WINDOW)
        self._agreed = 0
        self.state: Quality | None = None
        """How many samples were compared lately, and the share that agreed; None before the first."""

    def look(self, feeds: Feeds, outputs: Feeds) -> None:
        """Compare what was answered, if it is this one's turn. Never raises for what the float model does."""
        if self._failures >= MOST_FAILURES or not self._turns.due():
            return
        begun = self._clock()
        try:
            ours = self._run(feeds)
        except Exception as error:  # a foreign engine's: whatever it is, it must not end what else is watched
            self._failed(error)
            return
        finally:
            self._turns.took(self._clock() - begun)
        self._failures = 0
        for same in agreements(outputs, ours, self._classes):
            self._agreed += same - (self._seen[0] if len(self._seen) == WINDOW else 0)
            self._seen.append(same)
        self.state = quality(self._agreed, len(self._seen))

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        what = error.what if isinstance(error, EdgeKitError) else type(error).__name__
        end = ", and is not asked again" if self._failures == MOST_FAILURES else ""
        log.warning("the float model did not run%s: %s", end, what)


def families(shadows: Mapping[Pair, Shadow]) -> list[Family]:
    """For /metrics, by model and version."""
    found = [((("model", m), ("version", v)), one.state) for (m, v), one in shadows.items() if one.state is not None]

    def gauge(name: str, words: str, value: Callable[[Quality], float]) -> Family:
        return Family(name, "gauge", words, tuple(Sample(value(state), labels) for labels, state in found))

    words = f"Share of the last {WINDOW} compared samples that the float model answers alike."
    return [
        gauge("edgekit_shadow_agreement", words, lambda state: state.accuracy),
        gauge("edgekit_shadow_agreement_low", "Lower end of its 95 % interval.", lambda state: state.low),
        gauge("edgekit_shadow_agreement_high", "Upper end of its 95 % interval.", lambda state: state.high),
        gauge("edgekit_shadow_samples", "Compared samples in it.", lambda state: state.n),
    ]


def agreements(served: Feeds, floats: Feeds, classes: int) -> list[bool]:
    """For each sample whether both answer the same; as one sample where they are no classifiers."""
    if (found := same_classes(served, floats, classes)) is not None:
        return found
    names = [name for name in floats if name in served]
    return [bool(names) and all(_near(served[name], floats[name]) for name in names)]


def same_classes(served: Feeds, other: Feeds, classes: int) -> list[bool] | None:
    """For each sample whether the best class is the same; None where these are no classifiers' answers."""
    for name in [name for name in other if name in served]:
        ours, theirs = _scores(other[name], classes), _scores(served[name], classes)
        if ours is not None and theirs is not None and len(ours) == len(theirs):
            fine = np.isfinite(ours).all(axis=1) & np.isfinite(theirs).all(axis=1)
            return [bool(one) for one in fine & (ours.argmax(axis=1) == theirs.argmax(axis=1))]
    return None


def _scores(value: Array, classes: int) -> Array | None:
    """A row of `classes` values for each sample; None where an output is no such thing."""
    if classes < 2 or value.dtype.kind not in "fiu" or not value.size or value.ndim == 0:
        return None
    rows = value.reshape(len(value), -1) if value.ndim > 1 else value.reshape(1, -1)
    return rows.astype(np.float64) if rows.shape[1] == classes else None


def _near(served: Array, floats: Array) -> bool:
    if served.shape != floats.shape:
        return False
    if served.dtype.kind not in "fiub" or floats.dtype.kind not in "fiub":
        return bool(np.array_equal(served, floats))
    theirs, ours = served.astype(np.float64).ravel(), floats.astype(np.float64).ravel()
    with np.errstate(all="ignore"):
        apart, length = float(np.linalg.norm(theirs - ours)), float(np.linalg.norm(ours))
    return apart <= NEAR * length and length < float("inf")

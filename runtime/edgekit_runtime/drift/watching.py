"""Hold what is seen in the field against the baseline, pane by pane, and raise an alarm where that is beyond chance.

Refuses a rate of false alarms that is none.

Samples are counted in panes of 50. At the end of each the last 100, 200, 450, 1,000 and 3,000 are held against the
baseline. A feature alarms where its distance is beyond chance (see `bounds`) and its population stability index is
not trifling. It is calm again when for 6 panes all windows were well within.

The rate: an evaluation that ends T seconds after the last one may raise a false alarm with a chance of
`rate_per_day * T / 86400`, shared evenly between features and windows. So on unshifted traffic there are on average
at most `rate_per_day` alarms a day, at 1 request a second as at 1,000, but for the 0.1 % of bundles whose baseline
itself is unlucky.

This takes samples to be independent. The frames of a video are not, nor is what one machine tells every millisecond:
then a scene that lasts counts as many samples that agree. `per_second` thins them: at most so many a second are
looked at. Choose it so that two samples that follow each other have nothing to do with each other.
"""

import math
from bisect import bisect_left

import numpy as np

from edgekit_runtime.drift.baseline import Baseline, Numeric
from edgekit_runtime.drift.reading import Reading
from edgekit_runtime.drift.sketches import Found, Sketches
from edgekit_runtime.drift.state import FeatureState, State
from edgekit_runtime.drift.words import words
from edgekit_runtime.errors import EdgeKitError

PANE = 50
WINDOWS = (2, 4, 9, 20, 60)
CALM, WITHIN = 6, 0.8
"""So many panes in turn at most this near to an alarm end one."""
DAY = 86400.0
LEAST, MOST = 1e-12, 0.1
"""What an evaluation may spend: numbers stay finite where two end at the same time, or a device was off for years."""


class Drift:
    """Watches one model; its memory does not grow. One thread calls it, any may ask for `state`."""

    def __init__(self, baseline: Baseline, rate_per_day: float = 0.01, per_second: float | None = None) -> None:
        for value, what in ((rate_per_day, "false alarms a day"), (per_second or 1.0, "samples a second")):
            if not (math.isfinite(value) and value > 0):
                raise EdgeKitError(f"{value} is no number of {what}", hint="give a number above 0")
        self._rate, self._apart = rate_per_day, 1 / per_second if per_second else 0.0
        self._sketches = sketches = Sketches(baseline)
        shape = sketches.shares.shape
        self._pane: list[list[int]] = [[0] * shape[1] for _ in range(shape[0])]
        rows = list(zip(sketches.features, self._pane, strict=True))
        self._numbers = [(one.name, one.edges, row) for one, row in rows if isinstance(one, Numeric)]
        self._classes = [
            (one.name, dict(zip(one.classes, range(len(one.classes)), strict=True)), len(one.classes), row)
            for one, row in rows
            if not isinstance(one, Numeric)
        ]  # fmt: skip
        self._ring = np.zeros((WINDOWS[-1], *shape), np.uint8)
        self._windows = np.zeros((len(WINDOWS), *shape), np.int32)
        self._n = self._panes = 0
        self._evaluated: float | None = None
        self._taken = -math.inf
        self._alarms, self._calm = [False] * shape[0], [0] * shape[0]
        self._since: float | None = None
        self._fixed = [_fixed(sketches, row) for row in range(shape[0])]
        self._state = State(False, None, 0, tuple(self._feature(row, None) for row in range(shape[0])))

    def wants(self, now: float) -> bool:
        """Whether a sample of this time would be looked at: ask before reading it."""
        return now - self._taken >= self._apart

    def add(self, reading: Reading, now: float) -> None:
        """Count one more sample, at `now` seconds on a clock that only goes forward."""
        if self._apart:
            if not self.wants(now):
                return
            self._taken = now
        if self._evaluated is None:
            self._evaluated = now
        values, classes = reading.numbers, reading.classes
        for name, edges, row in self._numbers:
            value = values.get(name)
            if value is not None:
                row[bisect_left(edges, value) if value == value else len(edges)] += 1
        for name, places, others, row in self._classes:
            number = classes.get(name)
            if number is not None:
                row[places.get(number, others)] += 1
        self._n += 1
        if self._n % PANE == 0:
            self._close(now)

    def state(self) -> State:
        """As it was at the end of the last pane."""
        return self._state

    def _close(self, now: float) -> None:
        """End the pane: add it to the windows, take out of each the one that falls off, and look."""
        pane = np.array(self._pane, np.uint8).reshape(self._ring.shape[1:])
        for row in self._pane:
            row[:] = [0] * len(row)
        for window, length in zip(self._windows, WINDOWS, strict=True):
            window += pane
            window -= self._ring[(self._panes - length) % WINDOWS[-1]]
        self._ring[self._panes % WINDOWS[-1]] = pane
        self._panes += 1
        if self._fixed:
            self._look(now)

    def _look(self, now: float) -> None:
        since = max(0.0, now - (now if self._evaluated is None else self._evaluated))
        self._evaluated = now
        spend = min(max(self._rate * min(since, DAY) / DAY, LEAST), MOST)
        alpha = spend / (len(self._fixed) * len(WINDOWS))
        found = self._sketches.compare(self._windows, alpha)
        near = found.nearness
        worst = near.argmax(axis=0).tolist()
        for row, most in enumerate(near.max(axis=0).tolist()):
            self._calm[row] = self._calm[row] + 1 if most < WITHIN else 0
            self._alarms[row] = most > 1 or (self._alarms[row] and self._calm[row] < CALM)
        alarm = any(self._alarms)
        self._since = (now if self._since is None else self._since) if alarm else None
        features = (self._feature(row, found, window) for row, window in enumerate(worst))
        self._state = State(alarm, self._since, self._n, tuple(features))

    def _feature(self, row: int, found: Found | None, window: int = 0) -> FeatureState:
        name, told, edges, labels, before = self._fixed[row]
        if found is None:
            return FeatureState(name, told, 0.0, 0.0, 1.0, False, edges, labels, before, (0.0,) * len(before))
        counts, samples = self._windows[window, row, : len(before)], int(found.samples[window, row])
        return FeatureState(
            name, told, float(found.psi[window, row]), float(found.ks[window, row]), found.limit(window, row),
            self._alarms[row], edges, labels, before, tuple((counts / max(samples, 1)).tolist()), samples,
        )  # fmt: skip


_Fixed = tuple[str, str, tuple[float, ...], tuple[str, ...], tuple[float, ...]]


def _fixed(sketches: Sketches, row: int) -> _Fixed:
    """Name, words, edges, labels and the baseline's shares: what no pane changes."""
    one = sketches.features[row]
    shares = tuple(sketches.shares[row, : len(one.counts)].tolist())
    if isinstance(one, Numeric):
        return one.name, words(one.name), one.edges, (), shares
    return one.name, words(one.name), (), (*map(str, one.classes), "others"), shares

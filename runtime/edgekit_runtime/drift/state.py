"""What the drift watch found, as values for metrics, the log and the page.

Refuses nothing: `Drift` made them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureState:
    """One feature over the window that tells most against it: `ks` alarms above `limit`.

    For a number `ks` is the largest distance between both cumulative distributions, and bin i is what lies above
    `edges[i - 1]` up to `edges[i]`. For classes `ks` is the distance of one class's share, that which tells most;
    `labels` are their numbers, then "others". `baseline` and `now` are shares by bin; `n` samples are in `now`.
    """

    name: str
    words: str
    psi: float
    ks: float
    limit: float
    alarm: bool
    edges: tuple[float, ...]
    labels: tuple[str, ...]
    baseline: tuple[float, ...]
    now: tuple[float, ...]
    n: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """As it was at the end of the last pane: `n` samples so far; in alarm `since` a time, on the caller's clock."""

    alarm: bool
    since: float | None
    n: int
    features: tuple[FeatureState, ...]

"""The search: screen candidates on samples of its own, confirm the pick on samples that it never saw. Pure.

Refuses to pick on the samples it chose by: that is how a model over budget slips through."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgekit.trial import Standing, share_of_alpha

ALPHA = 0.05
"""The chance that a build passes a candidate that is over budget, at most, all confirmations together. The first
confirmation spends half of it, so that its last bound is about the usual 95 % interval's."""
CONFIRMATIONS = 5
"""After so many the share of ALPHA that is left proves nothing on any sensible number of samples."""

SEEN = (8, 1_000, 400)
"""The search sees one in 8 of the evaluation samples, at most 1,000, and none where there are under 400: screening
only has to weed out, and what it sees is lost to the confirmation."""

C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True)
class Steps(Generic[C, T]):
    """What the search does with a candidate: `attempt` makes, screens and measures it; `standing` says whether it is
    worth a confirmation; `cost` ranks the good ones and `loss` the doubtful
    (less is better); `confirm(tried, alpha)` tries it on fresh samples and gives
    it anew with its verdict; `passed` reads that; `hopeless` says that no other candidate could do better. `kind`
    names candidates that cost the same to run, so that one of them is enough; `closed` says that no other of its
    kind could do better."""

    attempt: Callable[[C], T]
    standing: Callable[[T], Standing]
    cost: Callable[[T], float]
    loss: Callable[[T], float]
    confirm: Callable[[T, float], T]
    passed: Callable[[T], bool]
    hopeless: Callable[[T], bool]
    kind: Callable[[C], Hashable]
    closed: Callable[[T], bool]


@dataclass(frozen=True)
class Found(Generic[T]):
    """All that was tried, in order, the one that passed (None where none did), and how many were left untried."""

    tried: tuple[T, ...]
    pick: T | None
    untried: int


def search_share(n: int) -> int:
    """How many of `n` evaluation samples screening sees; the others are for the confirmation alone."""
    part, most, least = SEEN
    return min(n // part, most) if n >= least else 0


def search(
    candidates: Iterable[C], steps: Steps[C, T], best: bool = False, late: Callable[[], bool] = bool
) -> Found[T]:
    """Try candidates from the cheapest to make to the dearest; the first good one that is confirmed is the pick.

    With `best`, the first good one of each kind is looked for, and of these the one that costs the least to run is
    confirmed first; where that fails, the next of its kind takes its place. Doubtful ones are confirmed last.
    `late` true ends the search; the first attempt is always made.
    """
    run = _Run(steps, late)
    lanes: dict[Hashable, list[C]] = {}
    for candidate in candidates:
        lanes.setdefault(steps.kind(candidate) if best else None, []).append(candidate)
    good: dict[Hashable, int] = {}
    while True:
        for kind, lane in lanes.items():
            while kind not in good and lane and not run.over():
                candidate = lane.pop(0)
                place = run.attempt(candidate)
                if place is not None:
                    good[kind] = place
                elif steps.closed(run.tried[-1]):
                    lane[:] = [other for other in lane if steps.kind(other) != steps.kind(candidate)]
        if not good:
            break
        kind = min(good, key=lambda kind: steps.cost(run.tried[good[kind]]))
        if run.confirm(good.pop(kind)):
            break
    if run.pick is None:
        for place in sorted(run.doubtful, key=lambda place: steps.loss(run.tried[place])):
            if run.confirm(place):
                break
    return Found(tuple(run.tried), run.pick, sum(map(len, lanes.values())))


class _Run(Generic[C, T]):
    """One search under way: all that was tried, the doubtful ones, the pick, how many confirmations were spent."""

    def __init__(self, steps: Steps[C, T], late: Callable[[], bool]) -> None:
        self.steps, self.late = steps, late
        self.tried: list[T] = []
        self.doubtful: list[int] = []
        self.pick: T | None = None
        self.confirmations = 0
        self.hopeless = False

    def over(self) -> bool:
        """Whether nothing more is to be made."""
        return self.hopeless or self.confirmations == CONFIRMATIONS or bool(self.tried and self.late())

    def attempt(self, candidate: C) -> int | None:
        """Make it; its place where it is good."""
        self.tried.append(self.steps.attempt(candidate))
        standing, place = self.steps.standing(self.tried[-1]), len(self.tried) - 1
        if standing == "doubtful":
            self.doubtful.append(place)
        return place if standing == "good" else None

    def confirm(self, place: int) -> bool:
        """Confirm it on fresh samples, unless too many were; whether the search ends with that."""
        if self.hopeless or self.confirmations == CONFIRMATIONS:
            return True
        found = self.steps.confirm(self.tried[place], share_of_alpha(ALPHA, self.confirmations))
        self.tried[place], self.confirmations = found, self.confirmations + 1
        if self.steps.passed(found):
            self.pick = found
        self.hopeless = self.steps.hopeless(found)
        return self.pick is not None or self.hopeless

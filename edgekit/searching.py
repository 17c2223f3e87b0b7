"""The search: screen candidates on samples of its own, confirm the pick on samples that it never saw. Pure.

Refuses to pick on the samples it chose by: that is how a model over budget slips through."""

from collections.abc import Callable, Iterable
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
    worth a confirmation; `cost` ranks (less is better); `confirm(tried, alpha)` tries it on fresh samples and gives
    it anew with its verdict; `passed` reads that; `hopeless` says that no other candidate could do better."""

    attempt: Callable[[C], T]
    standing: Callable[[T], Standing]
    cost: Callable[[T], float]
    confirm: Callable[[T, float], T]
    passed: Callable[[T], bool]
    hopeless: Callable[[T], bool]


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
    """Try candidates from the cheapest to the dearest; the first good one that is confirmed is the pick. With `best`
    all are screened first, and confirmed in the order of their cost. Doubtful ones are confirmed last. `late` true
    ends the search; the first attempt is always made."""
    waiting, tried = list(candidates), list[T]()
    later: list[int] = []
    attempts = 0
    while waiting and not (tried and late()):
        tried.append(steps.attempt(waiting.pop(0)))
        standing, place = steps.standing(tried[-1]), len(tried) - 1
        if standing == "doubtful" or (best and standing == "good"):
            later.append(place)
        elif standing == "good" and attempts < CONFIRMATIONS:
            tried[place] = steps.confirm(tried[place], share_of_alpha(ALPHA, attempts))
            attempts += 1
            if steps.passed(tried[place]) or steps.hopeless(tried[place]):
                return Found(tuple(tried), tried[place] if steps.passed(tried[place]) else None, len(waiting))
    for place in sorted(later, key=lambda place: (steps.standing(tried[place]) != "good", steps.cost(tried[place]))):
        if attempts == CONFIRMATIONS:
            break
        tried[place] = steps.confirm(tried[place], share_of_alpha(ALPHA, attempts))
        attempts += 1
        if steps.passed(tried[place]):
            return Found(tuple(tried), tried[place], len(waiting))
    return Found(tuple(tried), None, len(waiting))

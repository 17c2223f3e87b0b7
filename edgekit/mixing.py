"""Mixed precision: which operators to leave in float, by measured sensitivity. Pure but for what it is given to ask.

Refuses to leave more than half of the groups in float (two of three): that would be float with another name."""

from collections.abc import Callable, Sequence

import numpy as np

from edgekit.recipes import Group

Kept = tuple[str, ...]


def frozen_then_squeezed(groups: Sequence[Group], stands: Callable[[Kept], bool]) -> Kept | None:
    """The operators to leave in float, so that `stands` is true of what is made so; None where none are enough.

    First freeze: the most sensitive group, then the two most sensitive, four, ... until it stands. Then squeeze:
    give each frozen group back, the least sensitive first, as long as it still stands.
    """
    ranked = sorted(groups, key=lambda group: -np.nan_to_num(group.error, nan=np.inf))
    most = min(max(2, len(ranked) // 2), len(ranked) - 1)
    frozen: list[Group] = []
    count = 1
    while count <= most:
        frozen = ranked[:count]
        if stands(_kept(groups, frozen)):
            break
        count = count * 2 if count * 2 <= most or count == most else most
    else:
        return None
    for group in reversed(ranked[:count]):
        fewer = [one for one in frozen if one is not group]
        if fewer and stands(_kept(groups, fewer)):
            frozen = fewer
    return _kept(groups, frozen)


def most_of_the_error(groups: Sequence[Group], share: float = 0.9) -> Kept:
    """The fewest operators, at most half of the groups, whose groups make up `share` of all groups' errors."""
    ranked = sorted(groups, key=lambda group: -np.nan_to_num(group.error, nan=np.inf))
    errors = np.nan_to_num([group.error for group in ranked], nan=0.0)
    reached = np.cumsum(errors) >= share * errors.sum()
    count = min(int(np.argmax(reached)) + 1, max(1, len(ranked) // 2))
    return _kept(groups, ranked[:count])


def _kept(groups: Sequence[Group], frozen: Sequence[Group]) -> Kept:
    """The operators of the frozen groups, in the order of the model."""
    return tuple(name for group in groups if any(group is one for one in frozen) for name in group.operators)

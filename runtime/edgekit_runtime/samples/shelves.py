"""Which samples are worth keeping, within so many bytes: for each model three shelves, one for each reason. Pure.

Refuses what is worth no more than what was given up for lack of room.

On a shelf the worst is first. Each shelf may take an equal share of the bytes, and more while others need less; a
shelf beyond its share gives first. What a shelf gives up raises its floor, and only what is above the floor is taken
from then on. So a shelf holds all that was ever offered above its floor, and the random one, where the worth is a
random number, is a uniform sample whatever the sizes are (bottom-k sampling: Cohen and Kaplan, "Summarizing data
using bottom-k sketches", PODC 2007)."""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

REASONS = ("confidence", "drift", "random")
Worths = tuple[float | None, float | None, float]
"""How much a sample is worth for each of the reasons: None where there is no telling."""
Row = tuple[float, str]
NOTHING: Row = (-float("inf"), "")
MOST = 5_000
"""Samples that are kept at most: each takes memory. One that is small counts as this part of the limit."""


@dataclass(slots=True)
class Kept:
    """What is remembered of a sample on disk; `why` are the reasons for which it is kept, `size` its bytes there.

    `label` is the true one, where somebody told it, `index` its class.
    """

    name: str
    model: str
    version: str
    id: str
    when_ms: int
    kind: str
    file: str
    size: int
    worths: Worths
    answer: str | None = None
    label: str | None = None
    index: int | None = None
    why: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Shelf:
    """Samples kept for one reason as (worth, name), the worst first; `used` are their bytes.

    `floor` is the last that was given up: of those that are worth the same, some may be above it."""

    rows: list[Row] = field(default_factory=list)
    used: int = 0
    floor: Row = NOTHING


class Shelves:
    """All models' shelves within one limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: dict[str, Kept] = {}
        self.total = 0
        self._shelves: dict[str, tuple[Shelf | None, ...]] = {}
        self._count = 0

    def weight(self, size: int) -> int:
        """What so many bytes count as."""
        return max(size, self.limit // MOST)

    def share(self) -> int:
        """What each shelf may take where all are full."""
        return self.limit // max(1, self._count)

    def wanted(self, model: str, worths: Worths, weight: int) -> list[str]:
        """The reasons for which such a sample may be worth its room; none for most, and quickly."""
        shelves = self._shelves.get(model) or ()
        if len(shelves) != 3 or any(s is None and w is not None for s, w in zip(shelves, worths, strict=True)):
            shelves = self._more(model, worths)
        room, share = weight <= self.limit - self.total, self.share()
        if weight > share:
            return []
        found = []
        for reason, shelf, worth in zip(REASONS, shelves, worths, strict=True):
            if shelf is None or worth is None or worth <= shelf.floor[0]:
                continue
            if room or shelf.used + weight <= share or worth > shelf.rows[0][0]:
                found.append(reason)
        return found

    def plan(self, weight: int, wants: Mapping[tuple[str, str], float]) -> list[tuple[str, str]] | None:
        """What to take off which shelf, as (name, reason), so that so much fits; None where it is not worth it.

        `wants` is the worth for each (model, reason) that is wanted."""
        need, share = weight - (self.limit - self.total), self.share()
        all_shelves = self._named()
        at, used = dict.fromkeys(all_shelves, 0), {key: shelf.used for key, shelf in all_shelves.items()}
        left: dict[str, set[str]] = {}
        strips: list[tuple[str, str]] = []
        while need > 0:
            givers = [key for key, shelf in all_shelves.items() if used[key] > share and at[key] < len(shelf.rows)]
            if not givers:
                givers = [key for key, worth in wants.items() if _gives(all_shelves[key], at[key], worth)]
            if not givers:
                return None
            key = max(givers, key=lambda one: used[one])
            name = all_shelves[key].rows[at[key]][1]
            at[key] += 1
            weighs = self.weight(self.kept[name].size)
            used[key] -= weighs
            strips.append((name, key[1]))
            reasons = left.setdefault(name, set(self.kept[name].why))
            reasons.discard(key[1])
            need -= 0 if reasons else weighs
        return strips

    def strip(self, name: str, reason: str) -> None:
        """Take a sample off a shelf; off its last one it is forgotten."""
        kept = self.kept[name]
        shelf, worth = self._shelf(kept.model, reason), kept.worths[REASONS.index(reason)]
        assert worth is not None
        del shelf.rows[bisect_left(shelf.rows, (worth, name))]
        shelf.used -= self.weight(kept.size)
        shelf.floor = max(shelf.floor, (worth, name))
        kept.why.discard(reason)
        if not kept.why:
            del self.kept[name]
            self.total -= self.weight(kept.size)

    def put(self, kept: Kept, again: bool = False) -> bool:
        """Put a sample on all shelves where it is above the floor; False where there is none.

        `again`: it was kept before, and may be worth no more than what went; a new one must be worth more."""
        shelves = self._more(kept.model, kept.worths)
        for reason, shelf, worth in zip(REASONS, shelves, kept.worths, strict=True):
            if shelf is None or worth is None:
                continue
            if (worth, kept.name) > shelf.floor if again else worth > shelf.floor[0]:
                insort(shelf.rows, (worth, kept.name))
                shelf.used += self.weight(kept.size)
                kept.why.add(reason)
        if kept.why:
            self.kept[kept.name] = kept
            self.total += self.weight(kept.size)
        return bool(kept.why)

    def resize(self, kept: Kept, size: int) -> None:
        """A sample takes more or less bytes than it did."""
        more = self.weight(size) - self.weight(kept.size)
        for reason in kept.why:
            self._shelf(kept.model, reason).used += more
        self.total += more
        kept.size = size

    def floors(self) -> dict[str, dict[str, Row]]:
        """The floors that are above nothing, by model and reason."""
        found: dict[str, dict[str, Row]] = {}
        for (model, reason), shelf in self._named().items():
            if shelf.floor > NOTHING:
                found.setdefault(model, {})[reason] = shelf.floor
        return found

    def raise_floors(self, floors: Mapping[str, Mapping[str, Row]]) -> None:
        """Take up floors that `floors` told."""
        for model, by_reason in floors.items():
            worths = [0.0 if reason in by_reason else None for reason in REASONS]
            self._more(model, worths)
            for reason, floor in by_reason.items():
                self._shelf(model, reason).floor = floor

    def _more(self, model: str, worths: Sequence[float | None]) -> tuple[Shelf | None, ...]:
        """The model's shelves, those that are needed first made."""
        old = self._shelves.get(model, (None, None, None))
        made = tuple(s or (None if w is None else Shelf()) for s, w in zip(old, worths, strict=True))
        self._count += sum(s is not None for s in made) - sum(s is not None for s in old)
        self._shelves[model] = made
        return made

    def _shelf(self, model: str, reason: str) -> Shelf:
        shelf = self._shelves[model][REASONS.index(reason)]
        assert shelf is not None
        return shelf

    def _named(self) -> dict[tuple[str, str], Shelf]:
        return {
            (model, reason): shelf
            for model, shelves in self._shelves.items()
            for reason, shelf in zip(REASONS, shelves, strict=True)
            if shelf is not None
        }


def _gives(shelf: Shelf, at: int, worth: float) -> bool:
    """Whether its next is worth less than what comes."""
    return at < len(shelf.rows) and shelf.rows[at][0] < worth

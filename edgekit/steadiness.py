"""Whether a machine kept its pace over a long run, and what went with it where it did not. Pure.

Refuses to say so of fewer than eight intervals. The rule, which the evidence names:

The intervals' medians (p50) are cut in two where that leaves the least absolute deviation from the two halves' own
medians, each half of at least an eighth of the intervals and of four. The run became slower if the later half's median
is more than 5 % above the earlier one's, and three quarters of the later intervals lie above three quarters of the
earlier ones; and, where no clock fell and the machine told nothing, if that is worth eight standard errors. It was
throttled if the machine told so meanwhile, or a clock fell by more than 3 % (medians of the halves) at 60 degrees and
more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from edgekit_runtime.tensors import Array

from edgekit.stretch import Begun, Interval

FEWEST, SHORTEST = 8, 4
SLOWER, FELL, HOT = 1.05, 0.97, 60.0
ERRORS, MEDIANS = 8.0, 1.2533
"""Standard errors that a rise has to be worth, and what a median's is in those of a mean. With 8, one run of
mere noise in 150 is called slower, and one in 50 where neighbours are alike (correlated by 0.7); throttled, none."""
HELD = 0.9
"""A clock that never came above this part of what it could be was held down from the start."""
CUTS = 400
"""Places to cut that are looked at, in a run of very many intervals."""
BUSY_CORES, STOLEN = 0.2, 0.02
"""More than so much taken by others, and the machine was not quiet."""
NOISY = 0.1
"""More than this between the quartiles of the medians, in parts of their median, is noise that hides small changes."""
Kind = Literal["steady", "throttled", "slower", "short"]


@dataclass(frozen=True)
class Verdict:
    """`words` for a person, `notes` on how far to trust them. `before_ms` and `after_ms`: the medians of the p50s
    before and after `after_s`; without a change, of the first and the last quarter. `n` intervals were looked at."""

    kind: Kind
    words: str
    n: int
    before_ms: float
    after_ms: float
    after_s: float | None = None
    notes: tuple[str, ...] = ()


def judge(begun: Begun, rows: Sequence[Interval]) -> Verdict:
    """The verdict by the rule above; there must be an interval."""
    p50 = np.array([row.p50_ms for row in rows])
    quarter = max(1, len(rows) // 4)
    first, last = float(np.median(p50[:quarter])), float(np.median(p50[-quarter:]))
    notes = _notes(begun, rows, p50)
    if len(rows) < FEWEST:
        wide = rows[-1].at / len(rows)
        words = f"too short to tell: {len(rows)} intervals; take {FEWEST * wide * 2:.0f} s or more"
        return Verdict("short", words, len(rows), first, last, notes=notes)
    cut = _cut(p50)
    before, after = float(np.median(p50[:cut])), float(np.median(p50[cut:]))
    if after > SLOWER * before and _apart(p50[:cut], p50[cut:], _backed(rows[:cut], rows[cut:])):
        kind, words = _slowed(begun, rows[:cut], rows[cut:], (before, after))
        return Verdict(kind, words, len(rows), before, after, rows[cut - 1].at, notes)
    return Verdict("steady", _steady(begun, rows, (first, last)), len(rows), first, last, notes=notes)


def _cut(p50: Array) -> int:
    """How many intervals belong to the earlier half."""
    least = max(SHORTEST, len(p50) // 8)
    places = np.unique(np.linspace(least, len(p50) - least, CUTS).astype(int))
    return int(min(places, key=lambda cut: _deviation(p50[:cut]) + _deviation(p50[cut:])))


def _apart(before: Array, after: Array, backed: bool) -> bool:
    """Whether the halves differ by more than a cut that is chosen where they differ most makes of noise; `backed` by
    what else was seen, they need not differ so much."""
    if not np.quantile(after, 0.25) > np.quantile(before, 0.75):
        return False
    spread = [1.4826 * np.median(np.abs(half - np.median(half))) for half in (before, after)]
    error = MEDIANS * np.sqrt(spread[0] ** 2 / len(before) + spread[1] ** 2 / len(after))
    rise = np.median(after) - np.median(before)
    return backed or bool(rise > ERRORS * error)


def _backed(before: Sequence[Interval], after: Sequence[Interval]) -> bool:
    return _fallen(before, after) is not None or any(row.throttled for row in after)


def _deviation(values: Array) -> float:
    return float(np.abs(values - np.median(values)).sum())


def _slowed(
    begun: Begun, before: Sequence[Interval], after: Sequence[Interval], p50: tuple[float, float]
) -> tuple[Kind, str]:
    what = f"after {before[-1].at:.0f} s: p50 {p50[0]:.3g} -> {p50[1]:.3g} ms"
    fell = _fallen(before, after)
    told = sorted({reason for row in after for reason in row.throttled})
    said = f", and the machine told of {', '.join(told)}" if told else ""
    hottest = max((row.hottest for row in after if row.hottest is not None), default=None)
    heat = "" if hottest is None else f" at {hottest:.0f} °C"
    if told or (fell and hottest is not None and hottest >= HOT):
        meanwhile = f" while the clock fell {fell[0]:.0f} -> {fell[1]:.0f} MHz" if fell else ""
        return "throttled", f"throttled {what}{meanwhile}{heat}{said}"
    if fell:
        rule = _rule(begun)
        return "slower", f"slower {what} while the clock fell {fell[0]:.0f} -> {fell[1]:.0f} MHz{heat}: not hot{rule}"
    if any(row.clocks for row in (*before, *after)):
        return "slower", f"slower {what}{heat}; no clock fell, so this is not throttling"
    return "slower", f"slower {what}{heat}; this machine tells no clock, so it is not known why"


def _steady(begun: Begun, rows: Sequence[Interval], quarters: tuple[float, float]) -> str:
    told = sorted({reason for row in rows for reason in row.throttled})
    p50 = f"p50 {quarters[0]:.3g} ms in the first quarter, {quarters[1]:.3g} ms in the last"
    if told:
        times = sum(bool(row.throttled) for row in rows)
        return f"the machine told of {', '.join(told)} in {times} of {len(rows)} intervals; no slower for it: {p50}"
    held = _held(begun, rows)
    if held:
        return f"no change seen, but {held}; {p50}"
    able = bool(begun.reasons) or any(row.clocks or row.temperatures for row in rows)
    blind = "" if able else "; this machine tells no temperature, clock or throttling"
    return f"no throttling seen in {rows[-1].at:.0f} s: {p50}{blind}"


def _held(begun: Begun, rows: Sequence[Interval]) -> str:
    """A machine that is hot already when a run begins, or kept slow, is as slow at its end: that is no steadiness."""
    reached = {cpu: max(row.clocks.get(cpu, 0.0) for row in rows) for cpu in begun.fastest}
    low = [cpu for cpu, hertz in reached.items() if 0 < hertz < HELD * begun.fastest[cpu]]
    if not low or len(low) < len(reached):  # one of two clusters may well be idle
        return ""
    cpu = max(low, key=lambda name: begun.fastest[name])
    return (
        f"the clock was at most {reached[cpu] / 1e6:.0f} of {begun.fastest[cpu] / 1e6:.0f} MHz all along{_rule(begun)}"
    )


def _rule(begun: Begun) -> str:
    rules = sorted(set(begun.governors.values()))
    return f" (governor {', '.join(rules)})" if rules else ""


def _fallen(before: Sequence[Interval], after: Sequence[Interval]) -> tuple[float, float] | None:
    """The clock that fell the most, in MHz before and after; None where none fell."""
    old, new = _clocks(before), _clocks(after)
    found = [(old[name], new[name]) for name in old.keys() & new.keys() if new[name] < FELL * old[name]]
    return min(found, key=lambda pair: pair[1] / pair[0], default=None)


def others_cores(begun: Begun, row: Interval) -> float | None:
    """How many cores' worth of time others took in an interval, a hypervisor too."""
    if row.busy is None or begun.cpus is None or row.seconds <= 0:
        return None
    return max(0.0, row.busy * begun.cpus - row.cpu_s / row.seconds)


def _notes(begun: Begun, rows: Sequence[Interval], p50: Array) -> tuple[str, ...]:
    """What makes the numbers less than a quiet machine's."""
    notes = []
    others = _median(rows, lambda row: others_cores(begun, row))
    stolen = _median(rows, lambda row: row.stolen)
    if others is not None and others > BUSY_CORES:
        notes.append(f"the machine was busy: others took {others:.1f} of {begun.cpus} cores")
    if stolen is not None and stolen > STOLEN:
        notes.append(f"a hypervisor took {stolen * 100:.0f} % of the time")
    low, middle, high = np.quantile(p50, (0.25, 0.5, 0.75))
    if len(rows) >= SHORTEST and high - low > NOISY * middle:
        notes.append(f"noisy: half of the intervals' p50 lie between {low:.3g} and {high:.3g} ms")
    if missed := sum(row.missed for row in rows):
        notes.append(f"{missed:,} starts were missed: runs took too long for that rate, or others did")
    return tuple(notes)


def _clocks(rows: Sequence[Interval]) -> dict[str, float]:
    """The median of each clock, in MHz."""
    names = sorted({name for row in rows for name in row.clocks})
    return {name: float(np.median([row.clocks[name] for row in rows if name in row.clocks])) / 1e6 for name in names}


def _median(rows: Sequence[Interval], of: Callable[[Interval], float | None]) -> float | None:
    found = [value for row in rows if (value := of(row)) is not None]
    return float(np.median(found)) if found else None

"""Marks on a scale: inline SVG whose places are percentages, so that its text keeps its size on every screen.

Refuses what is not a finite number: it is left out."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from edgekit.report.words import number

ROW = 18


@dataclass(frozen=True)
class Scale:
    """From a value to a place in percent. Beyond its ends it stops at them; `log` needs both ends above zero."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of the value, from 0 to 100."""
        turn: Callable[[float], float] = math.log if self.log else float
        if self.log and value <= 0:
            return 0.0
        low, high = turn(self.low), turn(self.high)
        place = (turn(value) - low) / (high - low) if high > low else 0.5
        return round(min(1.0, max(0.0, place)) * 100, 1)

    def beyond(self, value: float) -> bool:
        """Whether the value lies above the end of the scale."""
        return value > self.high * (1 + 1e-9)

    def ticks(self, most: int = 4) -> list[float]:
        """About as many round values; for a logarithmic scale powers of two or ten."""
        if self.log:
            base = 2.0 if self.high / self.low < 200 else 10.0
            first, last = (round(math.log(end, base)) for end in (self.low, self.high))
            every = max(1, -(-(last - first) // (most + 2)))
            return [base**power for power in range(first, last + 1, every) if 4 < self.at(base**power) < 98]
        step = nice((self.high - self.low) / most)
        least = math.ceil(self.low / step - 1e-9)
        return [round(step * i, 12) for i in range(least, math.floor(self.high / step + 1e-9) + 1)]


def nice(size: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    if not size > 0 or not math.isfinite(size):
        return 1.0
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= size * (1 - 1e-9))


def drop_scale(drops: Iterable[Any], budget: float | None, focus: Iterable[Any] = ()) -> Scale:
    """A scale for drops: zero and the budget are on it, and one ruined candidate does not squeeze the others."""
    known = [value for value in map(number, drops) if value is not None]
    near = [abs(value) for value in map(number, focus) if value is not None]
    limit = 3 * max([budget or 0.0, *near], default=0.0) or max(map(abs, known), default=1.0) or 1.0
    shown = [min(limit, max(-limit, value)) for value in [*known, 0.0, budget or 0.0]]
    low, high = min(shown), max(shown)
    room = ((high - low) or 1e-3) * 0.06
    return Scale(low - room, high + room)


@dataclass(frozen=True)
class Whisker:
    """A drop with its interval. `kind` is its shape: screened, confirmed or all; `of` gives its colour."""

    kind: str
    drop: Any
    low: Any
    high: Any
    of: str = ""


def whisker(kind: str, found: Mapping[str, Any], of: str) -> Whisker:
    """The whisker of anything that has a drop, a low and a high."""
    return Whisker(kind, found.get("drop"), found.get("low"), found.get("high"), of)


def whiskers(rows: Sequence[Whisker], scale: Scale, budget: float | None = None) -> str:
    """Dots with whiskers, one below the other, over the lines of zero and of the budget."""
    height = ROW * max(1, len(rows)) + 8
    lines = _upright(scale.at(0.0), "zero") + (_upright(scale.at(budget), "cap") if budget is not None else "")
    body = "".join(_whisker(row, scale, 4 + ROW * i + ROW // 2) for i, row in enumerate(rows))
    return f'<svg class="strip" height="{height}">{lines}{body}</svg>'


def _upright(x: float, css: str) -> str:
    return f'<line class="{css}" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>'


def _whisker(row: Whisker, scale: Scale, y: int) -> str:
    drop, low, high = number(row.drop), number(row.low), number(row.high)
    parts = []
    if low is not None and high is not None:
        left, right = scale.at(low), scale.at(high)
        parts.append(f'<line x1="{left}%" x2="{right}%" y1="{y}" y2="{y}"/>')
        parts += [f'<svg x="100%" y="{y}"><path d="M0-4 5 0 0 4z"/></svg>'] if scale.beyond(high) else []
    if drop is not None:
        x = scale.at(drop)
        if scale.beyond(drop) or row.kind == "confirmed":
            shape = "M-1-6 6 0-1 6z" if scale.beyond(drop) else "M0-6 6 0 0 6-6 0z"
            parts.append(f'<svg x="{x}%" y="{y}"><path d="{shape}"/></svg>')
        else:
            hollow = ' class="screened"' if row.kind == "screened" else ""
            parts.append(f'<circle{hollow} cx="{x}%" cy="{y}" r="4.5"/>')
    return f'<g class="iv f-{escape(row.of)}">{"".join(parts)}</g>' if parts else ""


def axis(scale: Scale, words: Callable[[float], str], budget: float | None = None) -> str:
    """The values along a strip of whiskers or bars, and where the budget lies."""
    marks = [(scale.at(value), words(value), "") for value in scale.ticks()]
    if budget is not None:
        at = scale.at(budget)
        marks = [mark for mark in marks if abs(mark[0] - at) > 12] + [(at, "budget", ' class="cap"')]
    texts = "".join(f'<text{css} x="{x}%" y="12">{escape(text)}</text>' for x, text, css in marks)
    return f'<svg class="axis" height="16" aria-hidden="true">{texts}</svg>'


def bars(pairs: Sequence[tuple[Any, str]], scale: Scale, thick: int = 7) -> str:
    """Level bars from the left end of the scale, one below the other, each with its class of colour."""
    known = [(number(value), css) for value, css in pairs]
    step = thick + 2
    body = "".join(
        f'<rect class="{escape(css)}" width="{scale.at(value)}%" y="{step * i}" height="{thick}"/>'
        for i, (value, css) in enumerate(known)
        if value is not None
    )
    return f'<svg class="bars" height="{step * len(known) - 2}">{body}</svg>'


def histogram(values: Sequence[Any], scale: Scale, css: str, told: str, bins: int = 40) -> str:
    """How often each value came, with a line at the median; what is beyond the scale is left out."""
    known = [value for value in map(number, values) if value is not None and not scale.beyond(value)]
    tallies = [0] * bins
    for value in known:
        tallies[min(bins - 1, int(scale.at(value) / 100 * bins))] += 1
    most = max(tallies, default=0) or 1
    body = "".join(
        f'<rect x="{100 * i / bins:g}%" width="{86 / bins:.3g}%" y="{100 - 96 * tally / most:.1f}%"'
        f' height="{96 * tally / most:.1f}%"/>'
        for i, tally in enumerate(tallies)
        if tally
    )
    ordered = sorted(known)
    middle = _upright(scale.at(ordered[len(ordered) // 2]), "middle") if ordered else ""
    return f'<svg class="hist {escape(css)}" role="img" height="64"><title>{escape(told)}</title>{body}{middle}</svg>'


def sparklines(series: Sequence[Any], told: str, most: int = 6, points: int = 64) -> str:
    """Each channel of a series as a thin line, all on one scale; at most `most` of them."""
    channels = [kept for kept in (_thinned(one, points) for one in series[:most]) if len(kept) > 1]
    values = [value for channel in channels for value in channel]
    if not values:
        return ""
    scale = Scale(min(values), max(values))
    lines = "".join(
        '<polyline points="'
        + " ".join(f"{100 * i / (len(one) - 1):.0f},{100 - scale.at(value):.0f}" for i, value in enumerate(one))
        + '"/>'
        for one in channels
    )
    return (
        '<svg class="spark" role="img" viewBox="-2 -4 104 108" preserveAspectRatio="none">'
        f"<title>{escape(told)}</title>{lines}</svg>"
    )


def _thinned(channel: Any, points: int) -> list[float]:
    known = [value for value in map(number, channel if isinstance(channel, list | tuple) else []) if value is not None]
    step = max(1, math.ceil(len(known) / points))
    return known[::step]

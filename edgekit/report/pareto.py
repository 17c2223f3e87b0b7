"""The plot of quality lost against cost: a mark for each candidate, the budget, the Pareto front, the pick.

Refuses to place what was not measured: it is named below the plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekit.report.charts import Scale, drop_scale
from edgekit.report.parts import FORMATS, Markup, family, text
from edgekit.report.words import (
    Facts,
    allowed,
    best_of,
    bytes_words,
    candidates,
    change,
    interval,
    latency_words,
    mapped,
    megabytes,
    number,
    shipped,
    who,
    worse_words,
)

SHAPES = {
    "onnx": "M-9 0a9 9 0 1 0 18 0a9 9 0 1 0-18 0z",
    "tflite": "M0-12 12 9-12 9z",
    "openvino": "M-8-8H8V8H-8z",
    "other": "M0-11 11 0 0 11-11 0z",
}


@dataclass(frozen=True)
class Mark:
    """A candidate in the plot: its number, and where it stands."""

    one: Facts
    key: int
    cost: float
    drop: float


@dataclass(frozen=True)
class Frame:
    """What the marks are drawn on. `timed` tells what the cost is: a latency in ms, else a size in bytes."""

    marks: tuple[Mark, ...]
    across: Scale
    up: Scale
    timed: bool
    metric: str
    budget: float | None


def pareto(facts: Facts) -> Markup:
    """The plot, its legend, and who is not in it. Nothing where no candidate has both a quality and a cost."""
    tried = candidates(facts)
    frame = _frame(facts)
    if not frame:
        return Markup("")
    inside = {mark.key for mark in frame.marks}
    without = [f"{key}. {who(one)}" for key, one in enumerate(tried, 1) if key not in inside]
    left = (
        f"<p class='fine'>Not in the plot, for want of a measurement: {text('; '.join(without))}.</p>"
        if without
        else ""
    )
    marks = "".join(_mark(frame, mark) for mark in frame.marks)
    cost = "median time of one inference" if frame.timed else "size of the artifact"
    return Markup(
        f'<figure class="plot"><div class="up">↑ {text(worse_words(frame.metric))}</div>'
        f'<div class="area">{_ground(frame, cost)}<ul class="marks">{marks}</ul></div>'
        f'<div class="across">{cost} → <span>better is down and to the left</span></div>{_legend(frame)}</figure>{left}'
    )


def _frame(facts: Facts) -> Frame | None:
    tried, best = candidates(facts), best_of(facts)
    timed = _ms(best) is not None
    marks = []
    for key, one in enumerate(tried, 1):
        cost = _ms(one) if timed else number(one.get("bytes"))
        drop = number(mapped(one.get("quality")).get("drop"))
        if drop is not None and cost is not None and cost > 0:
            marks.append(Mark(one, key, cost, drop))
    if not marks:
        return None
    budget, picked = allowed(facts, best), mapped(best.get("quality"))
    ends = [mapped(mark.one.get("quality")).get(end) for mark in marks for end in ("low", "drop", "high")]
    up = drop_scale(ends, budget, [picked.get("low"), picked.get("high")])
    metric = str(mapped(marks[0].one.get("quality")).get("metric"))
    return Frame(tuple(marks), _across([mark.cost for mark in marks], timed), up, timed, metric, budget)


def _ms(one: Facts) -> float | None:
    """What the build ranked it by, else its median."""
    known = number(one.get("cost_ms"))
    return number(mapped(one.get("latency")).get("median_ms")) if known is None else known


def _across(costs: Sequence[float], timed: bool) -> Scale:
    if not timed:
        return Scale(0.0, max(costs) * 1.1)
    low, high = min(costs), max(costs)
    return Scale(low / 1.25, high * 1.25, log=True) if high > 4 * low else Scale(0.0, high * 1.12)


def _ground(frame: Frame, cost: str) -> str:
    """Grid, budget, intervals and front, as one drawing with a title and a description."""
    over, up = frame.across, frame.up
    grid = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{100 - up.at(v):.1f}%" y2="{100 - up.at(v):.1f}%"/>'
        f'<text x="0" dx="-8" y="{100 - up.at(v):.1f}%" dy="4" class="end">{change(frame.metric, v, bare=True)}</text>'
        for v in up.ticks(5)
    ) + "".join(
        f'<line class="grid" x1="{over.at(v)}%" x2="{over.at(v)}%" y1="0" y2="100%"/>'
        f'<text x="{over.at(v)}%" y="100%" dy="18" class="mid">{_cost(frame, v)}</text>'
        for v in over.ticks(6)
    )
    best = [mark for mark in frame.marks if mark.one.get("chosen")]
    told = f"{len(frame.marks)} candidates; {cost} from left to right, {worse_words(frame.metric)} upwards."
    told += "".join(f" {_tip(frame, mark)}" for mark in best)
    return (
        f'<svg role="img" aria-labelledby="pareto-t pareto-d"><title id="pareto-t">Quality lost against cost</title>'
        f'<desc id="pareto-d">{text(told)}</desc>{_budget(frame)}{grid}'
        f"{''.join(_interval(frame, m) for m in frame.marks)}{_front(frame)}</svg>"
    )


def _cost(frame: Frame, value: float) -> str:
    return f"{value:g} ms" if frame.timed else megabytes(value) if value else "0"


def _budget(frame: Frame) -> str:
    if frame.budget is None:
        return ""
    y = f"{100 - frame.up.at(frame.budget):.1f}%"
    words = f"budget {change(frame.metric, frame.budget).lstrip('+')}"
    return (
        f'<rect class="over" width="100%" height="{y}"/><line class="cap" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="cap end" x="100%" dx="-6" y="{y}" dy="-6">{words}</text>'
    )


def _interval(frame: Frame, mark: Mark) -> str:
    quality = mapped(mark.one.get("quality"))
    low, high = number(quality.get("low")), number(quality.get("high"))
    if low is None or high is None:
        return ""
    x = frame.across.at(mark.cost)
    css = f"iv f-{family(mark.one)}"
    return (
        f'<line class="{css}" x1="{x}%" x2="{x}%" '
        f'y1="{100 - frame.up.at(high):.1f}%" y2="{100 - frame.up.at(low):.1f}%"/>'
    )


def _front(frame: Frame) -> str:
    """The staircase from the cheapest to the best."""
    front = sorted((m.cost, m.drop) for m in frame.marks if m.one.get("front"))
    places = [(frame.across.at(cost), 100 - frame.up.at(drop)) for cost, drop in front]
    return "".join(
        f'<line class="front" x1="{x}%" y1="{y:.1f}%" x2="{x2}%" y2="{y:.1f}%"/>'
        f'<line class="front" x1="{x2}%" y1="{y:.1f}%" x2="{x2}%" y2="{y2:.1f}%"/>'
        for (x, y), (x2, y2) in pairwise(places)
    )


def _mark(frame: Frame, mark: Mark) -> str:
    x, y = frame.across.at(mark.cost), frame.up.at(mark.drop)
    css = ["f-" + family(mark.one)]
    css += ["hollow"] if str(mark.one.get("precision")).startswith("float") else []
    css += ["pick"] if mark.one.get("chosen") else []
    css += ["left"] if _leftwards(frame, mark) else []
    css += ["inward"] if x > 50 else []
    css += ["below"] if y > 60 else []
    css += ["off"] if frame.up.beyond(mark.drop) else []
    words, down = _label(frame, mark), 6 if family(mark.one) == "tflite" else 4
    label = f'<span class="label">{text(words)}</span>' if words else ""
    return (
        f'<li class="{" ".join(css)}" style="left:{x}%;bottom:{y}%"><a href="#c{mark.key}">'
        f'<svg viewBox="-13 -13 26 26" aria-hidden="true"><path d="{SHAPES[family(mark.one)]}"/>'
        f'<text y="{down}">{mark.key}</text></svg>{label}<span class="tip">{text(_tip(frame, mark))}</span></a></li>'
    )


def _label(frame: Frame, mark: Mark) -> str:
    """What stands beside a mark: the pick, how far it is off the scale, or the name of one on the front with room."""
    if mark.one.get("chosen"):
        return "the pick" if shipped(mark.one) else "the nearest"
    if frame.up.beyond(mark.drop):
        return f"↑ {change(frame.metric, mark.drop)}"
    roomy = mark.one.get("front") and not _near(frame, mark, left=_leftwards(frame, mark))
    return str(mark.one.get("title")) if roomy else ""


def _leftwards(frame: Frame, mark: Mark) -> bool:
    """Whether what is written beside the mark goes to its left: at the right end, or where the right is taken."""
    x = frame.across.at(mark.cost)
    return x > 75 or (x > 30 and _near(frame, mark, left=False) and not _near(frame, mark, left=True))


def _near(frame: Frame, mark: Mark, left: bool) -> bool:
    """Whether another mark is where a label on that side would be."""
    x, y = frame.across.at(mark.cost), frame.up.at(mark.drop)
    others = [(frame.across.at(o.cost) - x, frame.up.at(o.drop) - y) for o in frame.marks if o is not mark]
    return any(-4 < (-along if left else along) < 20 and -5 < above < 11 for along, above in others)


def _tip(frame: Frame, mark: Mark) -> str:
    one, quality = mark.one, mapped(mark.one.get("quality"))
    off = " (off the scale)" if frame.up.beyond(mark.drop) else ""
    words = [
        f"{mark.key}. {who(one)}",
        f"{worse_words(frame.metric)} {change(frame.metric, mark.drop)}{off}, {interval(frame.metric, quality)}",
        latency_words(one) if one.get("latency") else "not timed",
        bytes_words(one.get("bytes")),
        str(one.get("verdict")),
    ]
    return " · ".join(words)


def _legend(frame: Frame) -> str:
    shown = [name for name in SHAPES if any(family(mark.one) == name for mark in frame.marks)]
    items = [
        f'<li class="f-{name}"><svg viewBox="-13 -13 26 26" aria-hidden="true"><path d="{SHAPES[name]}"/></svg>'
        f"{FORMATS.get(name, 'other')}</li>"
        for name in shown
    ]
    if any(str(mark.one.get("precision")).startswith("float") for mark in frame.marks):
        items.append("<li>hollow: float</li>")
    items.append("<li>whisker: 95 % interval</li>")
    if sum(bool(mark.one.get("front")) for mark in frame.marks) > 1:
        items.append('<li><i class="front"></i>Pareto front</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'

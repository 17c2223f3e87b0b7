"""Inside the artifact and around it: error layer by layer, latency, and where it was scored.

Refuses to compare times that were not taken side by side."""

from collections.abc import Sequence
from typing import Any

from edgekit.report.charts import Scale, axis, bars, drop_scale, histogram, whisker, whiskers
from edgekit.report.parts import Markup, Section, family, folded, strips, table, text
from edgekit.report.words import (
    NONE,
    Facts,
    allowed,
    best_of,
    change,
    count,
    interval,
    listed,
    mapped,
    milliseconds,
    number,
    share,
    value_words,
    worse_words,
)

SHOWN = 12
MOST = 60


def layers(facts: Facts) -> Section:
    """What each layer adds to the error against float, the worst first."""
    rows = [mapped(row) for row in listed(mapped(facts.get("details")).get("layers"))]
    errors = [value for value in (_added(row) for row in rows) if value is not None and value > 0]
    log = bool(errors) and max(errors) > 50 * min(errors)
    scale = Scale(min(errors) / 2, max(errors) * 1.1, log=True) if log else Scale(0.0, max(errors, default=1.0) * 1.05)
    top = ["layer", Markup(axis(scale, lambda v: f"{v:.3g}")), "added; in all, cosine"]
    css = family(best_of(facts))
    lines = [_layer(row, scale, css) for row in rows[:SHOWN]]
    rest = table(
        ["place", "operator", "name", "added", "error", "cosine"], [_plainly(row) for row in rows[SHOWN:MOST]], "Layers"
    )
    body = strips(top, lines, "Error of each layer") + (folded(_how_many(len(rows)), rest) if rows[SHOWN:] else "")
    note = (
        "Each layer's output beside float's on the same inputs, relative to its size: "
        "what the layer adds to the error of what it is computed from, and the error in all."
    )
    return Section(
        "layers", "Layer by layer", note + (" The scale is logarithmic." if log else ""), body if rows else ""
    )


def _how_many(layers: int) -> str:
    shown = min(layers, MOST) - SHOWN
    return f"{shown} more layers" + (f"; {layers - MOST} with smaller errors are left out" if layers > MOST else "")


def _plainly(row: Facts) -> list[Any]:
    return [row.get("place"), row.get("op"), row.get("name"), *_error_words(row)]


def _added(row: Facts) -> float | None:
    """What the layer itself adds; all of its error where only that is known."""
    return number(row.get("added", row.get("error")))


def _error_words(row: Facts) -> tuple[str, str, str]:
    """What the layer adds, its error in all, its cosine."""
    added, error, cosine = _added(row), number(row.get("error")), number(row.get("cosine"))
    first, second = (NONE if value is None else f"{value:.3g}" for value in (added, error))
    return first, second, NONE if cosine is None else f"{cosine:.4f}"


def _layer(row: Facts, scale: Scale, css: str) -> list[Any]:
    place = f'<span class="fine">{text(row.get("place"))}</span> ' if row.get("place") is not None else ""
    name = f'{place}<b>{text(row.get("op"))}</b> <small class="path">{text(row.get("name"))}</small>'
    added, error, cosine = _error_words(row)
    told = f"{added}; {error}, {cosine}"
    return [Markup(name), Markup(bars([(_added(row), f"now f-{css}")], scale, 10)), told]


def latency(facts: Facts) -> Section:
    """How the times of float and of the chosen artifact are spread, on one scale."""
    best, found = best_of(facts), mapped(mapped(facts.get("details")).get("latency"))
    before, after = (sorted(v for v in map(number, listed(found.get(w))) if v is not None) for w in ("float", "made"))
    both = [*before, *after]
    words = f'<p class="fine">{text(best["timed"])}</p>' if best.get("timed") else ""
    if not both:
        return Section("latency", "Latency", "Not measured.", words)
    longest = max(_at(part, 0.98) for part in (before, after) if part)
    scale = Scale(max(0.0, min(both) - 0.05 * longest), longest * 1.05)
    drawn = "".join(
        f'<div class="run"><p>{_spread(name, part)}</p>{histogram(part, scale, css, f"Times of {name}")}</div>'
        for name, part, css in (("float", before, "was"), (str(best.get("title")), after, f"now f-{family(best)}"))
        if part
    )
    beyond = sum(scale.beyond(value) for value in both)
    out = f'<p class="fine">{beyond} of {len(both)} times lie beyond the scale.</p>' if beyond else ""
    note = "Milliseconds of one inference, both timed in turn in one process. The line is the median."
    marks = axis(scale, lambda v: f"{v:g}")
    return Section("latency", "Latency", note, f'<figure class="runs">{drawn}{marks}</figure>{out}{words}')


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _spread(name: str, ordered: Sequence[float]) -> str:
    median, late = milliseconds(_at(ordered, 0.5)), milliseconds(_at(ordered, 0.9))
    return f'<b>{text(name)}</b> median {median}, nine in ten below {late} <span class="fine">n {len(ordered)}</span>'


def scored(facts: Facts) -> Section:
    """The same file on other processors: emulated cores, or the device itself."""
    best = best_of(facts)
    places = [mapped(one) for one in listed(best.get("scored_on"))]
    metric = mapped(best.get("quality")).get("metric")
    note = "An int8 file may answer differently on another instruction set, so it is scored where it will run."
    if not places:
        said = "<p>Builder's instruction set only: how it answers on the device's processor was not measured.</p>"
        return Section("scored", "Where it was scored", note, said if best.get("quality") else "")
    budget, quality = allowed(facts, best), mapped(best.get("quality"))
    here = {**quality, "where": "here, on the builder"}
    told_only = [str(one.get("words")) for one in places if not one.get("n")]
    rows = [row for row in ([here, *places] if quality else places) if row.get("n")]
    ends = [row.get(end) for row in rows for end in ("low", "drop", "high")]
    scale = drop_scale(ends, budget, [quality.get("low"), quality.get("high")])
    top = ["where", Markup(axis(scale, lambda v: change(metric, v, bare=True), budget)), worse_words(metric)]
    lines = [_place(row, metric, scale, budget, family(best)) for row in rows]
    said = "".join(f"<p>{text(words)}</p>" for words in told_only)
    return Section(
        "scored", "Where it was scored", note, (strips(top, lines, "Scores by processor") if lines else "") + said
    )


def _place(row: Facts, metric: Any, scale: Scale, budget: float | None, css: str) -> list[Any]:
    strip = whiskers([whisker("all", row, css)], scale, budget)
    value = number(row.get("value"))
    facts = [
        f"{metric} {value_words(metric, value)}" if value is not None else "",
        f"same best class as here {share(row.get('same'))}" if number(row.get("same")) is not None else "",
        f"largest difference {row['worst']:.2g} of the range" if number(row.get("worst")) is not None else "",
        str(row.get("words") or ""),
    ]
    drop = (
        f"<b>{change(metric, row.get('drop'))}</b> {interval(metric, row)}"
        if number(row.get("drop")) is not None
        else ""
    )
    told = f"{drop} <small>{text('; '.join(filter(None, facts)))}</small>"
    name = Markup(f'{text(row.get("where"))} <span class="fine">n {count(row.get("n"))}</span>')
    return [name, Markup(strip), Markup(told)]

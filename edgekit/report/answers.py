"""What became of the answers: class by class, which classes are confused, and samples where the answers differ.

Refuses a picture that is not a bitmap inside the page: nothing is ever fetched."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from edgekit.report.charts import Scale, axis, bars, drop_scale, sparklines, whisker, whiskers
from edgekit.report.parts import Markup, Section, bullets, family, folded, strips, text
from edgekit.report.words import (
    MINUS,
    Facts,
    best_of,
    change,
    class_allowed,
    count,
    interval,
    listed,
    mapped,
    number,
    share,
    who,
)

SHOWN = 10
MOST_CLASSES = 24
FEW_CLASSES = 12
BITMAP = re.compile(r"data:image/(png|jpeg|webp|gif);base64,([A-Za-z0-9+/]+={0,2})")


def classes(facts: Facts) -> Section:
    """Recall of each class, float beside the chosen artifact, the worst drop first."""
    best = best_of(facts)
    rows = [mapped(row) for row in listed(best.get("classes"))]
    budget = class_allowed(facts)
    ends = [row.get(end) for row in rows for end in ("low", "drop", "high")]
    scale = drop_scale(ends, budget, [row.get("drop") for row in rows])
    top = [
        "class",
        Markup(f'<div class="two"><span>recall, 0 to 100 %</span>{axis(scale, _points, budget)}</div>'),
        "float → here, drop",
    ]
    lines = [_class(row, scale, budget, family(best)) for row in rows]
    rest = folded(
        f"{len(lines) - SHOWN} more classes, which lost less",
        strips(top, lines[SHOWN:], "Recall of the other classes") if lines[SHOWN:] else "",
    )
    legend = (
        '<ul class="legend"><li><i class="was"></i>float</li>'
        f'<li class="f-{family(best)}"><i class="now"></i>{text(who(best))}</li></ul>'
    )
    note = "Recall is the share of a class's samples that were answered right. The classes that lost most come first."
    body = f"{legend}{strips(top, lines[:SHOWN], 'Recall of each class')}{rest}" if lines else ""
    return Section("classes", "Class by class", note, body)


def _points(value: float) -> str:
    return change("top1", value, bare=True)


def _class(row: Facts, scale: Scale, budget: float | None, css: str) -> list[Any]:
    both = bars([(row.get("reference"), "was"), (row.get("value"), f"now f-{css}")], Scale(0.0, 1.0))
    strip = whiskers([whisker("all", row, css)], scale, budget)
    told = (
        f"{share(row.get('reference'))} → {share(row.get('value'))}, <b>{change('top1', row.get('drop'))}</b> "
        f'<span class="fine">{interval("top1", row)}</span>'
    )
    name = Markup(f'{text(row.get("class"))} <span class="fine">n {count(row.get("n"))}</span>')
    return [name, Markup(f'<div class="two">{both}{strip}</div>'), Markup(told)]


def confusion(facts: Facts) -> Section:
    """Where float and the chosen artifact confuse classes differently."""
    found = mapped(mapped(facts.get("details")).get("confusion"))
    names = [str(name) for name in listed(found.get("classes"))]
    before, after = (_matrix(found.get(which), len(names)) for which in ("float", "made"))
    note = "Change in how often a class (row) was given an answer (column): artifact minus float."
    if not names or before is None or after is None:
        return Section("confusion", "Which classes are confused", note, "")
    size = range(len(names))
    moved = sorted(
        ((after[i][j] - before[i][j], i, j) for i in size for j in size if i != j and after[i][j] != before[i][j]),
        key=lambda found: (-abs(found[0]), found[1:]),
    )
    lines = [
        Markup(
            f"<b>{_signed(by)}</b> {text(names[i])} answered as {text(names[j])}: {before[i][j]:,} → {after[i][j]:,}"
        )
        for by, i, j in moved[:6]
    ]
    touched = {i: sum(abs(by) for by, *at in moved if i in at) for i in size}
    shown = sorted(sorted(size, key=lambda i: (-touched[i], i))[:MOST_CLASSES])
    heat = _heat(names, before, after, shown)
    if len(names) > FEW_CLASSES:
        some = f", the {len(shown)} that changed most of {len(names)}" if len(shown) < len(names) else ""
        heat = folded(f"The whole table of {len(shown)} classes{some}", heat)
    same = "" if moved else "<p>Both confuse the same classes equally often.</p>"
    return Section("confusion", "Which classes are confused", note, f"{bullets(lines)}{same}{heat}")


def _matrix(found: Any, size: int) -> list[list[int]] | None:
    rows = [[int(number(cell) or 0) for cell in listed(row)] for row in listed(found)]
    return rows if len(rows) == size and all(len(row) == size for row in rows) else None


def _heat(names: Sequence[str], before: list[list[int]], after: list[list[int]], shown: Sequence[int]) -> str:
    most = max((abs(after[i][j] - before[i][j]) for i in shown for j in shown), default=0) or 1
    rows = []
    for i in shown:
        cells = [_cell(before[i][j], after[i][j], most, i == j) for j in shown]
        rows.append(f'<tr><th scope="row">{text(names[i])}</th>{"".join(cells)}</tr>')
    top = "".join(f'<th scope="col"><span>{text(names[j])}</span></th>' for j in shown)
    return (
        '<div class="wide" role="region" aria-label="Change in confusion" tabindex="0"><table class="heat">'
        f'<thead><tr><th scope="col">truth ↓ answer →</th>{top}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<ul class="legend"><li><i class="w3"></i>+ more wrong answers, or {MINUS} fewer right ones</li>'
        '<li><i class="g3"></i>the other way</li></ul>'
    )


def _cell(before: int, after: int, most: int, right: bool) -> str:
    by = after - before
    if not by:
        return "<td>" + ("·" if right else "") + "</td>"
    level = 1 + min(2, int(3 * abs(by) / (most + 1)))
    worse = (by < 0) if right else (by > 0)
    return f'<td class="{"w" if worse else "g"}{level}" title="{before} → {after}">{_signed(by)}</td>'


def _signed(value: int) -> str:
    return f"{value:+,}".replace("-", MINUS)


def differing(facts: Facts) -> Section:
    """Samples that float and the chosen artifact answer differently, as they are."""
    details = mapped(facts.get("details"))
    found = [mapped(one) for one in listed(details.get("differing"))]
    total, of = number(details.get("differing_count")), number(details.get("differing_of"))
    how_many = f"{count(total)} of {count(of)} samples ({share(total / of)})" if total is not None and of else "Some"
    numbers = bool(found) and all(mapped(one.get("float")).get("score") is None for one in found)
    note = "The samples whose score moved the most." if numbers else f"{how_many} are answered differently."
    if len(found) < (total or 0):
        note += f" Here are {len(found)} of them."
    cards = "".join(map(_card, found))
    if not found and total == 0:
        cards = "<p>None: both answer every sample alike.</p>"
    return Section("differing", "Where the answers differ", note, f'<div class="cards">{cards}</div>' if cards else "")


def _card(one: Facts) -> str:
    label = one.get("label")
    title = f"sample {one.get('index', '')}"
    truth = f'<p class="truth">{text(label)}</p>' if label is not None else ""
    answers = "".join(
        f"<dt>{words}</dt><dd>{_answer(mapped(one.get(which)), label)}</dd>"
        for which, words in (("float", "float"), ("made", "here"))
    )
    return f"<article>{_shown(one, title)}<h3>{text(title)}</h3>{truth}<dl>{answers}</dl></article>"


def _answer(answer: Facts, label: Any) -> str:
    score = number(answer.get("score"))
    given = answer.get("answer")
    sign = "" if label is None or score is None else (" ✓" if str(given) == str(label) else " ✕")
    said = "" if not sign else f'<span class="unseen">{"right" if sign == " ✓" else "wrong"}</span>'
    scored = f' <span class="fine">{score:.3g}</span>' if score is not None else ""
    return f"{text(given)}{scored}<b aria-hidden='true'>{sign}</b>{said}"


def _shown(one: Facts, title: str) -> str:
    """The sample itself: a picture, a series as lines, or values as text."""
    picture = one.get("picture")
    match = BITMAP.fullmatch(picture) if isinstance(picture, str) else None
    if match:
        small = ' class="pixels"' if _width(match[2]) <= 96 else ""
        return f'<img{small} src="{match[0]}" alt="{text(title)}" loading="lazy">'
    series = listed(one.get("series"))
    if series:
        return sparklines(series, f"{title}: {len(series)} channels over time")
    lines = [Markup(f"<b>{text(name)}</b> {text(value)}") for name, value in mapped(one.get("values")).items()]
    return f'<div class="values">{bullets(lines)}</div>' if lines else ""


def _width(encoded: str) -> int:
    """A PNG's width, from its header; a large one for anything else."""
    try:
        start = base64.b64decode(encoded[:32], validate=True)
    except (binascii.Error, ValueError):
        return 1024
    return int.from_bytes(start[16:20], "big") if start[:4] == b"\x89PNG" and len(start) >= 20 else 1024

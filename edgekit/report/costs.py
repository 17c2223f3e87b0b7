"""The head of the page, and what every candidate costs: the plot, the table, the drop with its interval.

Refuses to judge: verdicts are the build's; this shows the numbers that they stand on."""

from collections.abc import Sequence
from typing import Any

from edgekit.report.charts import Scale, Whisker, axis, drop_scale, whisker, whiskers
from edgekit.report.pareto import pareto
from edgekit.report.parts import Markup, Section, bullets, family, folded, strips, table, tag, text
from edgekit.report.words import (
    NONE,
    TIMES,
    VERDICTS,
    Facts,
    agreement_words,
    allowed,
    best_of,
    bytes_words,
    candidates,
    change,
    count,
    goal_words,
    interval,
    latency_words,
    listed,
    mapped,
    memory_words,
    milliseconds,
    number,
    sentence,
    share,
    shipped,
    titled,
    value_words,
    who,
    worse_words,
)

SHOWN = 12
COMMON = ("quality of the source", "samples", "threads")


def head(facts: Facts) -> str:
    """The verdict in one sentence, why, and the figures of the pick."""
    verdict = str(facts.get("verdict"))
    css = verdict if verdict in VERDICTS else "refused"
    why = str(facts.get("why") or "")
    hint = f"What to do: {facts['hint']}." if facts.get("hint") else ""
    lines = [text(line) for line in (why if facts.get("sentence") else "", hint) if line]
    asked = "; ".join(goal_words(facts)) or "no budget was set"
    return (
        f'<header class="{css}"><p class="over">{text(titled(facts))} {tag(verdict)}</p>'
        f"<h1>{text(sentence(facts))}</h1>"
        + "".join(f"<p>{line}</p>" for line in lines)
        + f'<p class="fine">Asked for: {text(asked)}.</p>{_figures(facts)}</header>'
    )


def _figures(facts: Facts) -> str:
    best = best_of(facts)
    if not best:
        return ""
    tiles = [
        tile for tile in (_drop_tile(facts, best), _speed_tile(best), _size_tile(best), _memory_tile(best)) if tile
    ]
    name = f"{'The pick' if shipped(best) else 'The nearest'}: {who(best)}"
    body = "".join(
        f"<div><dt>{text(name)}</dt><dd><b>{text(value)}</b><span>{text(below)}</span></dd></div>"
        for name, value, below in tiles
    )
    return f'<h2 class="named">{text(name)}</h2><dl class="tiles">{body}</dl>' if tiles else ""


def _drop_tile(facts: Facts, best: Facts) -> tuple[str, str, str] | None:
    quality = mapped(best.get("quality"))
    metric = quality.get("metric")
    if not quality:
        return None
    budget = allowed(facts, best)
    cap = f"; allowed {change(metric, budget).lstrip('+')}" if budget is not None else ""
    return (
        worse_words(metric),
        change(metric, quality.get("drop")),
        f"95 %: {interval(metric, quality)}{cap}; n\u00a0=\u00a0{count(quality.get('n'))}",
    )


def _speed_tile(best: Facts) -> tuple[str, str, str] | None:
    latency, before = mapped(best.get("latency")), mapped(best.get("float_latency"))
    ratio = number(latency.get("ratio"))
    if not latency:
        return None
    if best.get("precision") == "float32" or not ratio:
        return "latency", milliseconds(latency.get("median_ms")), "median, one inference"
    beside = f"; float32 {milliseconds(before.get('median_ms'))}" if before else ""
    return "speed beside float32", f"{1 / ratio:.2f}{TIMES}", f"{milliseconds(latency.get('median_ms'))} median{beside}"


def _size_tile(best: Facts) -> tuple[str, str, str] | None:
    size, before = number(best.get("bytes")), number(best.get("float_bytes"))
    if not size:
        return None
    return "size", bytes_words(size), f"{share(size / before)} of float's {bytes_words(before)}" if before else ""


def _memory_tile(best: Facts) -> tuple[str, str, str] | None:
    peak = number(best.get("peak_mb"))
    return ("peak memory", memory_words(peak), "of a process that runs it") if peak else None


def tried(facts: Facts) -> Section:
    """The plot and the table of candidates."""
    why = f"<p>{text(facts['pick'])}</p>" if facts.get("pick") else ""
    body = f"{pareto(facts)}{why}{_table(facts)}"
    note = "What each candidate loses, beside what it costs. The numbers in the marks are those of the table."
    return Section("candidates", "Quality against cost", note, body if candidates(facts) else "")


def _table(facts: Facts) -> str:
    """All candidates; what is the same for all of them stands below the table, once."""
    names = ["candidate", "verdict", "drop, 95 %", "quality", "agreement", "latency (speed)", "size", "memory", *COMMON]
    rows = [_cells(key, one) for key, one in enumerate(candidates(facts), 1)]
    known = [{row[i] for row in rows} - {NONE} for i in range(len(names))]
    kept = [i for i, name in enumerate(names) if i == 0 or len(known[i]) > (name in COMMON)]
    same = [f"{name} {next(iter(known[i]))}" for i, name in enumerate(names) if name in COMMON and len(known[i]) == 1]
    below = f'<p class="fine">For all of them: {text(", ".join(same))}.</p>' if same else ""
    return (
        table([names[i] for i in kept], [[row[i] for i in kept] for row in rows], "All candidates", "numbers") + below
    )


def _cells(key: int, one: Facts) -> list[Any]:
    quality, latency = mapped(one.get("quality")), mapped(one.get("latency"))
    metric = quality.get("metric")
    low, high = number(latency.get("low")), number(latency.get("high"))
    star = "★ " if shipped(one) else ""
    front = ' <span class="fine">front</span>' if one.get("front") else ""
    ratio = f"<small>{low:.2f} to {high:.2f} of float32</small>" if low is not None and high is not None else ""
    return [
        Markup(f'<a href="#c{key}">{key}. {star}{text(one.get("title"))}</a>{front}{_recipe(one)}'),
        tag(one.get("verdict")),
        Markup(f"{change(metric, quality.get('drop'))}<small>{interval(metric, quality)}</small>") if quality else NONE,
        value_words(metric, quality.get("value")) if quality else NONE,
        agreement_words(one),
        Markup(f"{latency_words(one).replace('x)', f'{TIMES})')}{ratio}") if latency else NONE,
        bytes_words(one.get("bytes")),
        memory_words(one.get("peak_mb")),
        value_words(metric, quality.get("reference")) if quality else NONE,
        count(quality.get("n")),
        count(one.get("threads")),
    ]


def _recipe(one: Facts) -> str:
    return f"<small>{text(one['recipe'])}</small>" if one.get("recipe") else ""


def drops(facts: Facts) -> Section:
    """Dot and whisker for each candidate: as screened, as confirmed, on all samples."""
    shown = [(key, one, _whiskers(one)) for key, one in enumerate(candidates(facts), 1)]
    shown = [row for row in shown if row[2]]
    best = best_of(facts)
    budget, metric = allowed(facts, best), mapped(best.get("quality")).get("metric")
    if metric is None:
        metric = next((mapped(one.get("quality")).get("metric") for _, one, _ in shown), None)
    ends = [end for _, _, rows in shown for row in rows for end in (row.low, row.drop, row.high)]
    near = [end for row in _whiskers(best) if row.kind != "screened" for end in (row.low, row.high)]
    scale = drop_scale(ends, budget, near)
    first = [_strip(key, one, rows, scale, budget) for key, one, rows in shown[:SHOWN]]
    rest = [_strip(key, one, rows, scale, budget) for key, one, rows in shown[SHOWN:]]
    top = _top(metric, scale, budget)
    more = folded(f"{len(rest)} more", strips(top, rest, "Drop of the other candidates")) if rest else ""
    note = (
        "How much worse than the source, sample by sample on the same samples. A candidate passes only "
        "where the upper end of its interval is within the budget. " + _samples(facts)
    )
    body = f"{strips(top, first, 'Drop of every candidate')}{more}{_kinds(shown)}" if first else ""
    return Section("drop", "What was lost, and how surely", note, body)


def _top(metric: Any, scale: Scale, budget: float | None) -> list[Any]:
    return ["candidate", Markup(axis(scale, lambda v: change(metric, v, bare=True), budget)), worse_words(metric)]


def _strip(key: int, one: Facts, rows: Sequence[Whisker], scale: Scale, budget: float | None) -> list[Any]:
    metric = mapped(one.get("quality")).get("metric") or "top1"
    told = "".join(f"<li>{_told(metric, one, row.kind)}</li>" for row in rows)
    name = Markup(f"{key}. {'★ ' if shipped(one) else ''}{text(one.get('title'))}{_recipe(one)}")
    return [name, Markup(whiskers(rows, scale, budget)), Markup(f'<ul class="told">{told}</ul>')]


def _whiskers(one: Facts) -> list[Whisker]:
    found = {"screened": one.get("screened"), "confirmed": one.get("confirmed"), "all": one.get("quality")}
    known = {kind: mapped(value) for kind, value in found.items() if mapped(value)}
    return [whisker(kind, value, family(one)) for kind, value in known.items()]


def _told(metric: Any, one: Facts, kind: str) -> str:
    found = mapped(one.get("quality" if kind == "all" else kind))
    n, of = number(found.get("n")), number(found.get("of"))
    stopped = f" of {count(of)}, stopped early" if of and n and n < of else ""
    level = number(found.get("level"))
    surely = f", one-sided {level * 100:g} %" if level else ""
    kinds = {"screened": "search", "confirmed": "confirmed", "all": "all"}
    return (
        f"<b>{change(metric, found.get('drop'))}</b> {interval(metric, found)} "
        f'<span class="fine">{kinds[kind]}, n {count(n)}{stopped}{surely}</span>'
    )


def _kinds(shown: Sequence[tuple[int, Facts, list[Whisker]]]) -> str:
    kinds = {row.kind for _, _, rows in shown for row in rows}
    words = {
        "screened": "○ search: the samples that the search saw",
        "confirmed": "◆ confirmed: samples that the search never saw",
        "all": "● all samples",
    }
    return f'<ul class="legend">{"".join(f"<li>{words[kind]}</li>" for kind in words if kind in kinds)}</ul>'


def _samples(facts: Facts) -> str:
    data = mapped(mapped(facts.get("data")).get("evaluation"))
    search, confirm = number(data.get("search")), number(data.get("confirm"))
    if not search or not confirm:
        return ""
    return f"The search saw {count(search)} samples; {count(confirm)} others, which it never saw, confirm the pick."


def details(facts: Facts) -> Section:
    """Everything that is known of each candidate, folded."""
    body = "".join(_detail(key, one) for key, one in enumerate(candidates(facts), 1))
    return Section("each", "Each candidate in full", "Why it was tried, what was found, parity output by output.", body)


def _detail(key: int, one: Facts) -> str:
    timed = [f"latency: {one['timed']}"] if one.get("timed") else []
    lines = [one.get("chosen_because"), one.get("why"), *listed(one.get("notes")), *timed]
    tables = "".join(
        f"<h3>{words}</h3>{_parity(listed(one.get(which)), words)}"
        for which, words in (
            ("parity_to_source", "Float artifact against the source"),
            ("parity_to_float", "Against the float artifact"),
        )
        if listed(one.get(which))
    )
    summary = f"<summary>{key}. {text(who(one))} {tag(one.get('verdict'))}</summary>"
    return f'<details>{summary}<div id="c{key}">{bullets(lines)}{tables}</div></details>'


def _parity(rows: Sequence[Any], label: str) -> Markup:
    names = ("worst", "mean", "cosine", "agreement")
    body = [
        [
            row.get("output"),
            *(_figure(row.get(name), 6 if name == "cosine" else 3) for name in names),
            row.get("samples"),
        ]
        for row in map(mapped, rows)
    ]
    return table(["output", "worst difference", "mean", "cosine", "agreement", "runs"], body, label, "numbers")


def _figure(value: Any, digits: int) -> str:
    known = number(value)
    return NONE if known is None else f"{known:.{digits}g}"

"""The model card: the same facts in Markdown, for a repository or a catalogue.

Refuses to let a name become markup: what is special in Markdown is escaped."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from edgekit.report.words import (
    NONE,
    Facts,
    best_of,
    bytes_words,
    candidates,
    carried,
    change,
    count,
    goal_words,
    interval,
    latency_words,
    listed,
    mapped,
    memory_words,
    milliseconds,
    not_measured,
    number,
    quality_words,
    sentence,
    share,
    shipped,
    titled,
    value_words,
    who,
    worse_words,
)

SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&])")


def card(facts: Facts) -> str:
    """A model card in Markdown, with the front matter that model hubs read."""
    parts = (
        _front(facts), f"# {_plain(titled(facts))}\n\n{_plain(sentence(facts))}", _what(facts), _device(facts),
        _made(facts), _evidence(facts), _limits(facts), _data(facts), _use(facts), _rebuild(facts),
    )  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(facts: Facts) -> str:
    best, target = best_of(facts), mapped(facts.get("target"))
    tags = ["edgekit", best.get("format"), best.get("precision"), target.get("name"), target.get("arch")]
    lines = ["---", "library_name: edgekit", "tags:"]
    lines += [f"- {json.dumps(str(tag))}" for tag in tags if tag]
    return "\n".join([*lines, "---"])


def _what(facts: Facts) -> str:
    best, source = best_of(facts), mapped(facts.get("source"))
    rows = {
        "Name and version": f"{facts.get('name', NONE)} {facts.get('version', '')}",
        "Artifact": who(best) if best else None,
        "Size": bytes_words(best.get("bytes")),
        "Source": f"{source.get('model', NONE)} ({source.get('kind', 'unknown')})",
        "Parameters": count(source.get("parameters")),
        "Inputs": "; ".join(map(str, listed(source.get("inputs")))),
        "Outputs": "; ".join(map(str, listed(source.get("outputs")))),
    }
    made = "" if shipped(best) else "No bundle was made; this card describes the nearest candidate."
    return _section("What it is", made, _bullets(rows))


def _device(facts: Facts) -> str:
    best, target = best_of(facts), mapped(facts.get("target"))
    rows = {
        "Device": f"{target.get('title', NONE)} ({target.get('name', NONE)}, {target.get('arch', NONE)})",
        "Threads": count(best.get("threads")),
        "Latency": _latency(best),
        "Peak memory": memory_words(best.get("peak_mb")),
    }
    return _section("Intended device", _bullets(rows), "\n".join(f"- {_plain(line)}" for line in carried(facts)))


def _latency(best: Facts) -> str | None:
    found = mapped(best.get("latency"))
    if not found:
        return str(best.get("timed") or "not timed")
    low, high = number(found.get("low")), number(found.get("high"))
    ratio = f", 95 % of the ratio to float32 {low:.2f} to {high:.2f}" if low is not None and high is not None else ""
    late = f", nine in ten below {milliseconds(found.get('p90_ms'))}"
    return f"{latency_words(best)}{late}{ratio}; {best.get('timed') or 'timed here'}"


def _made(facts: Facts) -> str:
    best = best_of(facts)
    rows = {
        "Format and precision": f"{best.get('format', NONE)}, {best.get('precision', NONE)}",
        "Recipe": best.get("recipe"),
        "Tried because": best.get("chosen_because"),
        "Picked because": facts.get("pick"),
    }
    notes = "\n".join(f"- {_plain(note)}" for note in listed(best.get("notes")))
    return _section("How it was made", _bullets(rows), notes)


def _evidence(facts: Facts) -> str:
    best = best_of(facts)
    quality = mapped(best.get("quality"))
    asked = "; ".join(goal_words(facts)) or "no budget"
    verdict = f"Asked for: {asked}. Verdict: {facts.get('verdict', 'not judged')}. {facts.get('why') or ''}"
    return _section("Evidence", _plain(verdict), _drops(best, quality), _others(facts), _classes(best), _places(best))


def _drops(best: Facts, quality: Facts) -> str:
    if not quality:
        return "No quality was measured."
    metric = quality.get("metric")
    rows = []
    named = (("all samples", quality), ("search", best.get("screened")), ("confirmation", best.get("confirmed")))
    for name, found in ((name, mapped(found)) for name, found in named):
        if found:
            level = number(found.get("level"))
            sure = f"one-sided {level * 100:g} %" if level else "95 %"
            rows.append([name, count(found.get("n")), change(metric, found.get("drop")), interval(metric, found), sure])
    head = f"{quality_words({'metric': metric, 'value': quality.get('value')})}; the source has "
    told = f"{head}{value_words(metric, quality.get('reference'))} on the same samples."
    return f"{_plain(told)}\n\n{_table(['measured on', 'n', worse_words(metric), 'interval', 'level'], rows)}"


def _others(facts: Facts) -> str:
    rows = []
    for one in candidates(facts):
        quality = mapped(one.get("quality"))
        metric = quality.get("metric")
        drop = f"{change(metric, quality.get('drop'))} ({interval(metric, quality)})" if quality else NONE
        rows.append([who(one), one.get("verdict"), drop, latency_words(one), bytes_words(one.get("bytes"))])
    table = _table(["candidate", "verdict", "drop (95 %)", "latency (speed)", "size"], rows)
    return f"### Everything that was tried\n\n{table}" if len(rows) > 1 else ""


def _classes(best: Facts) -> str:
    rows = [
        [row.get("class"), count(row.get("n")), share(row.get("reference")), share(row.get("value")),
         f"{change('top1', row.get('drop'))} ({interval('top1', row)})"]
        for row in map(mapped, listed(best.get("classes"))[:10])
    ]  # fmt: skip
    table = _table(["class", "n", "recall, float", "recall, here", "drop (95 %)"], rows)
    return f"### The classes that lost most\n\n{table}" if rows else ""


def _places(best: Facts) -> str:
    metric = mapped(best.get("quality")).get("metric")
    rows = [
        [row.get("where"), count(row.get("n")), share(row.get("same")),
         f"{change(metric, row.get('drop'))} ({interval(metric, row)})", row.get("words") or ""]
        for row in map(mapped, listed(best.get("scored_on")))
    ]  # fmt: skip
    table = _table(["where", "n", "same best class as on the builder", "drop (95 %)", "how"], rows)
    return f"### Scored on other processors\n\n{table}" if rows else ""


def _limits(facts: Facts) -> str:
    missing = listed(mapped(mapped(facts.get("data")).get("calibration")).get("missing"))
    lines = list(not_measured(facts))
    lines += [f"Calibration held no sample of: {', '.join(map(str, missing))}."] if missing else []
    lines += [f"Not tried: {words}" for words in listed(facts.get("left_out"))]
    lines.append("The figures hold for data like the evaluation data, and for nothing else.")
    return _section("Limits, and what was not measured", "\n".join(f"- {_plain(line)}" for line in lines))


def _data(facts: Facts) -> str:
    rows = []
    for side in ("evaluation", "calibration"):
        data = mapped(mapped(facts.get("data")).get(side))
        if data:
            rows.append([side, data.get("where"), count(data.get("n")), data.get("sha256") or NONE])
    source = mapped(facts.get("source"))
    rows.append(["model", source.get("model"), "", source.get("sha256") or NONE])
    return _section("Fingerprints", _table(["what", "where", "samples", "sha256"], rows))


def _use(facts: Facts) -> str:
    if not shipped(best_of(facts)):
        return ""
    target = mapped(facts.get("target")).get("name") or "device"
    bundle = shlex.quote(" ".join(f"{facts.get('name', 'model')}-{target}.edgekit".split()))
    return _section("How to run it", _code(f"edgekit-runtime selftest {bundle}\nedgekit-runtime serve {bundle}"))


def _rebuild(facts: Facts) -> str:
    command = facts.get("command")
    tools = {"edgekit": facts.get("edgekit"), **mapped(facts.get("tools"))}
    versions = ", ".join(f"{name} {version}" for name, version in tools.items() if version)
    return _section("How to build it again", _code(str(command)) if command else "", _plain(f"With {versions}."))


def _section(title: str, *parts: str) -> str:
    body = "\n\n".join(part for part in parts if part)
    return f"## {title}\n\n{body}" if body else ""


def _bullets(rows: Mapping[str, Any]) -> str:
    return "\n".join(f"- **{name}:** {_plain(value)}" for name, value in rows.items() if value not in (None, "", NONE))


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(words: str) -> str:
    """A block that its own content cannot close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", words)), default=0))
    return f"{fence}sh\n{words}\n{fence}"


def _plain(value: Any) -> str:
    """One line of text in which nothing is markup."""
    return SPECIAL.sub(r"\\\1", " ".join(str(NONE if value is None else value).split()))

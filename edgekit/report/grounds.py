"""What the evidence stands on: calibration and evaluation data, machine, tools, the command, and what is missing.

Refuses to leave a gap unsaid: what was not measured is listed."""

from typing import Any

from edgekit.report.charts import Scale, axis, bars, drop_scale, whisker, whiskers
from edgekit.report.parts import Markup, Section, bullets, code, folded, pairs, strips, text
from edgekit.report.words import (
    Facts,
    allowed,
    best_of,
    carried,
    change,
    count,
    interval,
    listed,
    mapped,
    memory_words,
    not_measured,
    number,
    worse_words,
)

SHOWN = 12


def calibration(facts: Facts) -> Section:
    """Which samples set the ranges: their fingerprint, their classes, and how few would have done."""
    data = mapped(mapped(facts.get("data")).get("calibration"))
    note = "The samples that int8 ranges were taken from. None of them is among those that it was judged on."
    if not data:
        return Section("calibration", "Calibration", note, "<p>No calibration data was given.</p>")
    body = f"{pairs(_fingerprint(data))}{_coverage(data)}{_sufficient(facts, data)}"
    return Section("calibration", "Calibration", note, body)


def _fingerprint(data: Facts) -> dict[str, Any]:
    return {
        "where": data.get("where"),
        "samples": data.get("n"),
        "sha256 of the bytes": code(data["sha256"]) if data.get("sha256") else None,
        "labelled": data.get("labelled"),
        "seen by the search": data.get("search"),
        "kept back to confirm": data.get("confirm"),
    }


def _coverage(data: Facts) -> str:
    tallies = {str(name): number(n) or 0.0 for name, n in mapped(data.get("classes")).items()}
    missing = [str(name) for name in listed(data.get("missing"))]
    if not tallies and not missing:
        why = "the labels are not classes" if data.get("labelled") else "the samples have no labels"
        return f'<p class="fine">Coverage of the classes: not measured, since {why}.</p>'
    known = f"{len([n for n in tallies.values() if n])} of {len({*tallies, *missing})} classes are in it."
    told = (
        f'<p class="alert"><b>Missing from calibration:</b> {text(", ".join(missing))}.</p>'
        if missing
        else f"<p>{known} None is missing.</p>"
    )
    scale = Scale(0.0, max([*tallies.values(), 1.0]))
    ordered = sorted(tallies.items(), key=lambda pair: pair[1])
    rows = [[name, Markup(bars([(n, "now f-other")], scale, 9)), count(n)] for name, n in ordered]
    top = ["class", "samples", "n"]
    chart = strips(top, rows, "Calibration samples of each class") if rows else Markup("")
    return f"{told}{chart if len(rows) <= SHOWN else folded(f'Samples of each of the {len(rows)} classes', chart)}"


def _sufficient(facts: Facts, data: Facts) -> str:
    found = [mapped(row) for row in listed(data.get("sufficient"))]
    if not found:
        return ""
    best = best_of(facts)
    budget, metric = allowed(facts, best), mapped(best.get("quality")).get("metric")
    ends = [row.get(end) for row in found for end in ("low", "drop", "high")]
    scale = drop_scale(ends, budget, [found[-1].get("low"), found[-1].get("high")])
    rows = [
        [
            f"{count(row.get('n'))} samples",
            Markup(whiskers([whisker("all", row, "other")], scale, budget)),
            Markup(f"<b>{change(metric, row.get('drop'))}</b> {interval(metric, row)}"),
        ]
        for row in found
    ]
    top = ["with", Markup(axis(scale, lambda v: change(metric, v, bare=True), budget)), worse_words(metric)]
    return f"<h3>How few samples would have done</h3>{strips(top, rows, 'Drop by number of calibration samples')}"


def watched(facts: Facts) -> Section:
    """What the bundle brings for the device to watch itself by."""
    note = "What the bundle carries beside the artifact, for edgekit-runtime to tell when the world has changed."
    return Section("watched", "On the device", note, bullets(carried(facts)) if carried(facts) else "")


def open_ends(facts: Facts) -> Section:
    """Candidates that were left out and why, and what was not measured."""
    left = listed(facts.get("left_out"))
    gaps = not_measured(facts)
    body = f"<h3>Not tried</h3>{bullets(left)}" if left else ""
    body += f"<h3>Not measured</h3>{bullets(gaps)}" if gaps else ""
    return Section("open", "Left out", "What this page cannot tell you, and what was not tried, with the reason.", body)


def again(facts: Facts) -> Section:
    """The command, and the versions and fingerprints that make it come out the same."""
    command = facts.get("command")
    source = dict(mapped(facts.get("source")))
    if source.get("sha256"):
        source["sha256"] = code(source["sha256"])
    evaluation = mapped(mapped(facts.get("data")).get("evaluation"))
    spent = {
        "build time": f"{seconds:.0f} s" if (seconds := number(facts.get("seconds"))) is not None else None,
        "peak memory of the build": memory_words(facts.get("peak_mb")) if number(facts.get("peak_mb")) else None,
    }
    parts = [
        f'<pre tabindex="0" aria-label="The command to do it again"><code>{text(command)}</code></pre>'
        if command
        else "",
        f"<h3>Model</h3>{pairs(source)}" if source else "",
        f"<h3>Evaluation data</h3>{pairs(_fingerprint(evaluation)) if evaluation else '<p>None was given.</p>'}",
        f"<h3>Machine</h3>{pairs({**mapped(facts.get('machine')), **spent})}",
        f"<h3>Tools</h3>{pairs({'edgekit': facts.get('edgekit'), **mapped(facts.get('tools'))})}",
    ]
    note = "The same bytes, the same versions, the same command: the same numbers."
    note += " A click selects the whole command." if command else ""
    return Section("again", "To do it again", note, "".join(parts))

"""What a build found, as plain facts for machines, and the same facts as one HTML page for people.

Refuses nothing; says "not measured" where something was not."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from string import Template
from typing import Any

import edgekit_runtime

from edgekit.cache import versions
from edgekit.evidence import SHARES
from edgekit.job import Job
from edgekit.plan import Plan
from edgekit.scoring import Tried, machine

Facts = Mapping[str, Any]


def as_json(job: Job, plan: Plan, tried: Sequence[Tried], best: Tried) -> dict[str, Any]:
    """All facts of one target's build, as JSON values. Sizes in bytes, times in ms, shares from 0 to 1."""
    model, order = job.model, job.order
    return {
        "name": order.name,
        "version": order.version,
        "target": {"name": plan.target.name, "title": plan.target.title, "arch": plan.target.arch},
        "verdict": best.verdict.outcome,
        "why": best.verdict.why,
        "budget": None if order.max_drop is None else str(order.max_drop),
        "source": {
            "model": order.origin.model,
            "kind": model.kind,
            "sha256": job.fingerprint,
            "parameters": model.facts.parameters,
            "bytes": model.facts.bytes,
            "inputs": [str(spec) for spec in model.inputs],
            "outputs": [str(spec) for spec in model.outputs],
        },
        "data": {
            side: None
            if data is None
            else {"where": data.where, "n": len(data), "sha256": data.fingerprint, "labelled": data.labels is not None}
            for side, data in (("calibration", job.calibration), ("evaluation", job.evaluation))
        },
        "candidates": [_candidate(one, one is best) for one in tried],
        "left_out": list(plan.left_out),
        "machine": machine(),
        "tools": versions(),
        "edgekit": edgekit_runtime.__version__,
    }


def _candidate(tried: Tried, chosen: bool) -> dict[str, Any]:
    candidate = tried.candidate
    found: dict[str, Any] = {
        "chosen": chosen,
        "title": candidate.title,
        "format": candidate.format,
        "precision": candidate.precision,
        "chosen_because": candidate.why,
        "verdict": tried.verdict.outcome,
        "why": tried.verdict.why,
        "bytes": tried.bytes,
        "float_bytes": tried.float_bytes,
        "peak_mb": tried.peak_mb,
        "quality": None if tried.quality is None else asdict(tried.quality),
        "agreement": None if tried.agreement is None else asdict(tried.agreement),
        "latency": None if tried.latency is None else asdict(tried.latency),
        "float_latency": None if tried.float_latency is None else asdict(tried.float_latency),
        "timed": tried.timed,
        "parity_to_source": [asdict(one) for one in tried.parity_to_source],
        "parity_to_float": [asdict(one) for one in tried.parity_to_float],
        "notes": list(tried.artifact.notes) if tried.artifact else [],
    }
    return _finite(found)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON has not, as None."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def megabytes(size: int) -> str:
    """Bytes in words: 5.1 MB, 84 kB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def quality_words(quality: Mapping[str, Any] | None) -> str:
    """Such as `top1 90.95 %`."""
    return "-" if quality is None else f"{quality['metric']} {_value(quality['metric'], quality['value'])}"


def source_words(quality: Mapping[str, Any] | None) -> str:
    """The source's own value of the metric."""
    return "-" if quality is None else _value(quality["metric"], quality["reference"])


def _value(metric: str, value: float | None) -> str:
    if value is None:
        return "not a number"
    return f"{value * 100:.2f} %" if metric in SHARES else f"{value:.4g}"


def samples_words(quality: Mapping[str, Any] | None) -> str:
    """How many samples the quality was measured on."""
    return "-" if quality is None else f"{quality['n']:,}"


def agreement_words(candidate: Mapping[str, Any]) -> str:
    """Such as `82.0 %`: how often the best class is the source's."""
    found = candidate["agreement"]
    return "-" if found is None else f"{found['value'] * 100:.1f} %"


def latency_words(candidate: Mapping[str, Any]) -> str:
    """Such as `4.90 ms (1.92x)`: the median, and how many times as fast as float32."""
    latency = candidate["latency"]
    if latency is None:
        return "-"
    faster = "" if candidate["precision"] == "float32" else f" ({1 / latency['ratio']:.2f}x)"
    return f"{latency['median_ms']:.2f} ms{faster}"


def page(facts: Facts) -> str:
    """One HTML page without external assets."""
    template = Template(files("edgekit.report").joinpath("page.html").read_text(encoding="utf-8"))
    verdict = facts["verdict"]
    return template.substitute(
        title=html.escape(f"{facts['name']} on {facts['target']['title']}"),
        verdict=html.escape(verdict),
        css=html.escape(verdict),
        why=html.escape(facts["why"]),
        budget=html.escape(facts["budget"] or "none set"),
        candidates="".join(map(_row, facts["candidates"])),
        left_out="".join(f"<li>{html.escape(words)}</li>" for words in facts["left_out"]),
        details="".join(map(_details, facts["candidates"])),
        source=_pairs(facts["source"]),
        data="".join(
            f"<h3>{side}</h3>{_pairs(facts['data'][side] or {'n': 'none given'})}"
            for side in ("evaluation", "calibration")
        ),
        machine=_pairs({**facts["machine"], **facts["tools"], "edgekit": facts["edgekit"]}),
    )


def _row(one: Mapping[str, Any]) -> str:
    cells = [
        f"{'★ ' if one['chosen'] and one['verdict'] in ('passed', 'unbudgeted') else ''}{one['title']}",
        f"{megabytes(one['bytes'])} (float {megabytes(one['float_bytes'])})" if one["bytes"] else "-",
        quality_words(one["quality"]),
        source_words(one["quality"]),
        samples_words(one["quality"]),
        agreement_words(one),
        latency_words(one),
        f"{one['peak_mb']:.0f} MB" if one["peak_mb"] else "-",
        one["verdict"],
    ]
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _details(one: Mapping[str, Any]) -> str:
    lines = [one["chosen_because"], one["why"], *one["notes"], *([f"latency: {one['timed']}"] if one["timed"] else [])]
    tables = "".join(
        f"<h4>{words}</h4>{_parity(one[which])}"
        for which, words in (
            ("parity_to_source", "Float artifact against the source"),
            ("parity_to_float", "Against the float artifact"),
        )
        if one[which]
    )
    points = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h3>{html.escape(one['title'])}</h3><ul>{points}</ul>{tables}"


def _parity(rows: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "<tr><th>output</th><th>worst difference</th><th>mean</th><th>cosine</th><th>agreement</th><th>runs</th></tr>"
    )
    body = "".join(
        f"<tr><td>{html.escape(row['output'])}</td><td>{_number(row['worst'])}</td><td>{_number(row['mean'])}</td>"
        f"<td>{_number(row['cosine'], 6)}</td><td>{_number(row['agreement'])}</td><td>{row['samples']}</td></tr>"
        for row in rows
    )
    return f"<table>{head}{body}</table>"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _pairs(facts: Mapping[str, Any]) -> str:
    def words(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}"
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(words(value))}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>"

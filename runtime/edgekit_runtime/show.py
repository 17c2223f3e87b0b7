"""Answers and bundles as text for a person. Pure: values in, lines out.

Refuses to pass control characters of a file on to a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.exam import Exam
from edgekit_runtime.marks import amount
from edgekit_runtime.ports import Port
from edgekit_runtime.selftest import SelfTest
from edgekit_runtime.tensors import Array, Feeds

ENCODED = {"audio": "sounds", "text": "texts"}
SHOWN = 3
"""Rows of a table in a bundle's page."""


def best(rows: Sequence[tuple[str, float]]) -> str:
    """Labels and scores in two columns."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {score:.4f}" for label, score in rows)


def outputs(answer: Feeds) -> str:
    """What each output is, its range, and its first values."""
    return "\n".join(map(_output, answer, answer.values()))


def answer_json(bundle: Bundle, answer: Feeds, rows: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """The whole answer for a program; flat, row-major data."""
    made = [
        {
            "name": name,
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "data": [item if isinstance(item, int | float) else str(item) for item in value.ravel().tolist()],
        }
        for name, value in answer.items()
    ]
    named = [{"label": label, "score": score} for label, score in rows]
    return {"model": bundle.manifest.name, "version": bundle.manifest.version, "outputs": made, "top": named}


ENCRYPTED = "encrypted"


def page(bundle: Bundle, signed: str = "not looked at") -> str:
    """A bundle at a glance; `signed` tells by whom."""
    manifest = bundle.manifest
    options = manifest.options
    total = sum(entry.size for entry in manifest.files.values())
    closed = manifest.encrypted.files if manifest.encrypted is not None else {}
    golden, found = manifest.golden, None if manifest.baseline in closed else bundle.baseline()
    drift = f"{found.n:,} samples, {len(found.features)} features" if found else "none: drift is not told"
    words = "" if manifest.labels is None or manifest.labels in closed else f"{len(bundle.labels())} words"
    rows = [
        ("model", f"{manifest.name} {manifest.version}"),
        ("signed", signed),
        ("target", manifest.target),
        ("format", f"{manifest.format}, {manifest.precision}"),
        (
            "engine",
            f"{manifest.engine}: {options.threads} thread(s) on {options.device}, {options.precision} arithmetic",
        ),
        ("size", f"{size_words(total)} in {len(manifest.files)} file(s)"),
        *(("input", _port(port)) for port in manifest.inputs),
        *(("output", _port(port)) for port in manifest.outputs),
        (ENCODED.get((manifest.preprocess or {}).get("kind", ""), "photos"), _preprocess(manifest.preprocess)),
        ("labels", words or (ENCRYPTED if manifest.labels else "none")),
        ("baseline", ENCRYPTED if manifest.baseline in closed else drift),
        ("float", manifest.shadow.entry if manifest.shadow else "not carried"),
        ("exam", _exam(manifest.exam)),
        ("recorded", f"{golden.count} answer(s), tolerance {golden.tolerance:g}" if golden else "none"),
    ]
    lines = [f"{key:<12}{value}" for key, value in rows]
    for title, table in (("evidence", manifest.evidence), ("provenance", manifest.provenance)):
        lines += [title, *_tree(table, "  ")] if table else [f"{title:<12}none"]
    return "\n".join(lines)


def _exam(exam: Exam | None) -> str:
    """What the device is to be scored on."""
    if exam is None:
        return "none: quality was proved where it was built"
    beside = "the source model" if exam.beside == "source" else "its build"
    return f"{exam.n:,} samples by {exam.metric}, beside {beside}: {amount(exam.metric, exam.max_drop)} is allowed"


def verdict(result: SelfTest) -> str:
    """A self-test in a line."""
    words = "passed" if result.passed else "FAILED"
    worst = f"worst difference {result.worst:.3g} of the range of {result.output}"
    return f"{words}: {result.pairs} recorded answer(s), {worst}, tolerance {result.tolerance:g}"


def size_words(count: int) -> str:
    """Bytes in the unit a person would use."""
    return f"{count} bytes" if count < 1000 else f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"


def _output(name: str, value: Array) -> str:
    first = ", ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value.ravel()[:5].tolist())
    more = ", ..." if value.size > 5 else ""
    line = f"{name}  {value.dtype.name}{list(value.shape)}  {first}{more}"
    if value.size > 1 and value.dtype.kind in "fiu":
        line += f"  (from {float(np.min(value)):.6g} to {float(np.max(value)):.6g})"
    return line


def _port(port: Port) -> str:
    inside = port.inside
    if port.order is None and (inside.dtype, inside.shape) == (port.spec.dtype, port.spec.shape):
        return str(port.spec)
    scale = "" if inside.scale is None else f", scale {inside.scale:g}, zero point {inside.zero_point}"
    return f"{port.spec} (inside {inside}{scale})"


def _preprocess(raw: Mapping[str, Any] | None) -> str:
    return "not taken" if raw is None else ", ".join(f"{key} {value}" for key, value in raw.items())


def _row(value: Any) -> str:
    """A table's row on one line: the words where it has some."""
    if not isinstance(value, Mapping):
        return str(value)[:200]
    if value.get("words"):
        return str(value["words"])[:200]
    told = (f"{key} {item:.4g}" if isinstance(item, float) else f"{key} {item}" for key, item in value.items())
    return ", ".join(told)[:200]


def _tree(value: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, item in value.items():
        if item is None or item == [] or item == {}:
            continue
        if isinstance(item, list) and any(isinstance(one, Mapping) for one in item):
            lines += [f"{indent}{key}", *(f"{indent}  {_row(one)}" for one in item[:SHOWN])]
            lines += [f"{indent}  and {len(item) - SHOWN} more"] if len(item) > SHOWN else []
        elif isinstance(item, Mapping) and len(indent) < 12:
            lines += [f"{indent}{key}", *_tree(item, indent + "  ")]
        else:
            text = f"{item:.6g}" if isinstance(item, float) else str(item)
            lines.append(f"{indent}{key}: {text if len(text) <= 200 else text[:197] + '...'}")
    return lines

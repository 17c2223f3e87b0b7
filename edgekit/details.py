"""A closer look at the chosen artifact, for the report: confusion, layers, latency, samples that it answers otherwise.

Refuses nothing: what cannot be looked at is left out."""

import base64
from dataclasses import replace
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array

from edgekit import layers
from edgekit.answers import Answering, made_of, output, scores, source_of
from edgekit.evidence import measure
from edgekit.job import Job, evenly
from edgekit.making import quantized_artifact
from edgekit.scoring import Tried
from edgekit.showing import picture_of, series_of, values_of

MOST_CLASSES = 50
MOST_DIFFERING = 24
LOOKED_AT = 8
"""Samples on which the layers are compared."""
SHOWN_LAYERS = 40


def look_inside(job: Job, tried: Tried) -> dict[str, Any]:
    """Facts for the report as JSON values; empty where nothing was made."""
    if tried.artifact is None or tried.source is None:
        return {}
    job.tell(f"looking inside {tried.candidate.title}")
    found: dict[str, Any] = {"of": tried.candidate.title, "layers": _layers(job, tried), "latency": _latency(tried)}
    if job.evaluation is None or tried.quality is None:
        return found
    one, n = tried.answering, tried.quality.n
    return found | {"confusion": _confusion(job, one, n)} | _differing(job, one, n)


FEWER = (16, 64)
"""How many calibration samples are tried, to see whether they would have been enough."""


def fewer_samples(job: Job, tried: Tried) -> list[dict[str, Any]]:
    """What the same recipe loses when fewer samples calibrate, on what screening or else everything was scored on;
    the last is what all of them lose. Empty for what is not calibrated, and where nothing is judged."""
    candidate, source, data = tried.candidate, tried.source, job.calibration
    if source is None or data is None or job.evaluation is None or tried.artifact is None:
        return []
    if candidate.precision != "int8" or source.precision == "int8" or not job.order.goals.judged:
        return []
    n, found = job.seen or len(job.evaluation), []
    for count in (*(count for count in FEWER if 2 * count <= len(data)), len(data)):
        if job.late():
            return []
        smaller = replace(job, calibration=evenly(data, count)) if count < len(data) else job
        try:
            made = tried.artifact if count == len(data) else quantized_artifact(smaller, candidate, source)[0]
        except EdgeKitError:
            continue
        quality = measure(scores(job, made_of(made, f"{count} calibration samples", candidate.options), 0, n))
        found.append(
            {"n": count, "drop": _plain(quality.drop), "low": _plain(quality.low), "high": _plain(quality.high)}
        )
    return found if len(found) > 1 else []


def _layers(job: Job, tried: Tried) -> list[dict[str, Any]]:
    """The layers that add the most error first; none where the artifact is the float file itself, or where channels
    were scaled on purpose, so that layers cannot be compared."""
    made, source, data = tried.artifact, tried.source, job.evaluation
    assert made is not None
    assert source is not None
    recipe = tried.candidate.recipe
    if data is None or made.path == source.path or ((recipe.equalize or recipe.smooth) and made.format != "onnx"):
        return []
    try:
        found = layers.errors(made, source, [data.feeds(i) for i in range(min(LOOKED_AT, len(data)))])
    except EdgeKitError:
        return []
    worst = sorted(found, key=lambda layer: -np.nan_to_num(layer.added, nan=np.inf))[:SHOWN_LAYERS]
    return [
        {**{name: _plain(value) for name, value in vars(layer).items()}, "added": _plain(layer.added)}
        for layer in worst
    ]


def _latency(tried: Tried) -> dict[str, list[float]] | None:
    made, source = tried.times.made, tried.times.source
    return None if made is None or source is None else {"float": list(source.shape), "made": list(made.shape)}


def _confusion(job: Job, one: Answering, n: int) -> dict[str, Any] | None:
    """Rows the truth, columns the answer; None without labelled classes, or with too many to look at."""
    assert job.evaluation is not None
    found, labels = scores(job, one, 0, n), job.evaluation.labels
    if found.best is None or labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1:
        return None
    count = int(max(labels[:n].max(), found.best[0].max(), found.best[1].max())) + 1
    if count > MOST_CLASSES:
        return None

    def counted(answers: Array) -> list[list[int]]:
        table = np.zeros((count, count), int)
        np.add.at(table, (labels[:n], answers), 1)
        return [[int(cell) for cell in row] for row in table]

    names = [job.word(index) for index in range(count)]
    return {"classes": names, "float": counted(found.best[0]), "made": counted(found.best[1])}


def _differing(job: Job, one: Answering, n: int) -> dict[str, Any]:
    """The samples whose best class differs; without classes, those whose answers are furthest apart."""
    data = job.evaluation
    assert data is not None
    found = scores(job, one, 0, n)
    if found.best is not None:
        apart = np.flatnonzero(found.best[0] != found.best[1])
        lost = found.reference[apart] - found.candidate[apart]
        rows, count = apart[np.argsort(-lost, kind="stable")], len(apart)
    else:
        moved = np.abs(found.reference - found.candidate)
        rows, count = np.argsort(-moved, kind="stable"), int((moved > 0).sum())
    shown = [int(row) for row in rows[: min(MOST_DIFFERING, count)]]
    return {
        "differing": [_sample(job, one, row, n) for row in shown],
        "differing_count": count,
        "differing_of": n,
    }


def _sample(job: Job, one: Answering, row: int, n: int) -> dict[str, Any]:
    """What a person can look at of one sample, and what both say to it."""
    data = job.evaluation
    assert data is not None
    assert job.wanted is not None
    label = None if data.labels is None else data.labels[row]
    picture = picture_of(data, row, job.wanted)
    return {
        "index": job.places[row],
        "label": _label(job, label),
        "float": _answer(job, output(job, source_of(job), row, n)),
        "made": _answer(job, output(job, one, row, n)),
        "picture": None if picture is None else "data:image/png;base64," + base64.b64encode(picture).decode(),
        "series": series_of(data, row) if picture is None else None,
        "values": values_of(data, row) if picture is None else None,
    }


def _label(job: Job, label: Any) -> str | None:
    """What is right in words: a class, or a number; None where it is neither."""
    if label is None or np.ndim(label) != 0:
        return None
    return job.word(int(label)) if isinstance(label, np.integer) else f"{float(label):.4g}"


def _answer(job: Job, answer: Array) -> dict[str, Any]:
    """The best class with its score, or the first number."""
    flat = np.ravel(answer)
    if answer.ndim == 1 and flat.size > 1:
        best = int(flat.argmax())
        return {"answer": job.word(best), "score": _plain(flat[best])}
    return {
        "answer": ", ".join(f"{value:.4g}" for value in flat[:4]) + (" ..." if flat.size > 4 else ""),
        "score": None,
    }


def _plain(value: Any) -> Any:
    """A JSON value; None for what is not a number."""
    if isinstance(value, np.floating | float):
        return float(value) if np.isfinite(value) else None
    return value

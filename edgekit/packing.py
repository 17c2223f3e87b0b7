"""Pack what passed: the artifact, labels, recorded golden answers, evidence and report, under one manifest.

Refuses nothing: what comes here has passed."""

import json
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

from edgekit_runtime.bundle import write_golden
from edgekit_runtime.manifest import Golden, Manifest
from edgekit_runtime.tensors import Array, Feeds, TensorSpec, quantized

from edgekit.bundle import copy_files, seal
from edgekit.job import Job
from edgekit.making import probes
from edgekit.model import Artifact
from edgekit.plan import Plan
from edgekit.report import card, page
from edgekit.scoring import Tried

GOLDEN_SAMPLES = 3
VOCAB = "vocab.txt"
"""The name of a vocabulary in the bundle, whatever it was before."""
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
QUANTIZED_TOLERANCE = 0.1
"""How far an answer on the device may be from the recorded one, in parts of the output's range. Integer
arithmetic rounds otherwise on other instruction sets: on AVX2 it moved logits of a range of 25 by up to 3."""


def pack(job: Job, plan: Plan, tried: Tried, facts: Mapping[str, Any], folder: Path) -> Manifest:
    """Fill `folder` with the bundle of a candidate that passed."""
    artifact, order = tried.artifact, job.order
    assert artifact is not None
    assert order.name is not None
    copy_files(artifact.path.parent, folder)
    if order.labels:
        (folder / "labels.txt").write_text("\n".join(order.labels) + "\n", encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(facts), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card(facts), encoding="utf-8")
    return seal(
        folder,
        Manifest(
            name=order.name,
            version=order.version,
            target=plan.target.name,
            format=artifact.format,
            precision=tried.candidate.precision,
            engine=artifact.format,
            entry=artifact.path.name,
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            files={},
            options=tried.candidate.options,
            preprocess=_preprocess(job, folder),
            labels="labels.txt" if order.labels else None,
            golden=_golden(job, artifact, folder),
            evidence=dict(next(one for one in facts["candidates"] if one["chosen"])),
            provenance={key: facts[key] for key in ("source", "data", "machine", "tools", "edgekit")},
        ),
    )


def _as_sent(value: Array, spec: TensorSpec) -> Array:
    """Real numbers as the user of the bundle sends them: integers where its I/O stays integer."""
    return value if spec.scale is None else quantized(value, spec)


def _preprocess(job: Job, folder: Path) -> dict[str, Any] | None:
    """What was declared; the vocabulary that it names is carried along."""
    if job.order.preprocess is None:
        return None
    declared = {"input": job.model.inputs[0].name, **job.order.preprocess}
    if declared.get("vocab") is not None:
        copyfile(declared["vocab"], folder / VOCAB)
        declared["vocab"] = VOCAB
    return declared


def _golden(job: Job, artifact: Artifact, folder: Path) -> Golden:
    """Record what this very artifact answers here, to be replayed on the device."""
    run = artifact.open_model()
    pairs: list[tuple[Feeds, Feeds]] = []
    for feeds in probes(job.model, job)[:GOLDEN_SAMPLES]:
        sent = {port.spec.name: _as_sent(feeds[port.spec.name], port.spec) for port in artifact.inputs}
        pairs.append((sent, run(sent)))
    write_golden(folder / "golden.npz", pairs)
    tolerance = TOLERANCE.get(artifact.precision, QUANTIZED_TOLERANCE)
    return Golden("golden.npz", len(pairs), tolerance)

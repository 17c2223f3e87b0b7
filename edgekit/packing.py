"""Pack what passed: the artifact, labels, recorded golden answers, baseline, evidence and report, under one manifest.

Refuses nothing: what comes here has passed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from shutil import copyfile
from typing import Any

from edgekit_runtime.bundle import describe, write_golden
from edgekit_runtime.manifest import Golden, Manifest, Shadow
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import Feeds

from edgekit.attesting import PROVENANCE as ATTESTED
from edgekit.attesting import attested
from edgekit.baselines import FILE, Recorded, as_sent
from edgekit.bundle import built_at, copy_files, described, seal
from edgekit.elsewhere import ScoredOn
from edgekit.examining import examine
from edgekit.job import Job
from edgekit.making import probes
from edgekit.model import Artifact
from edgekit.plan import Plan
from edgekit.report import card, page
from edgekit.sbom import SBOM, sbom
from edgekit.scoring import Tried

GOLDEN_SAMPLES = 3
FLOAT = "float"
"""The folder of the float artifact in a bundle that carries it."""
PROVENANCE = ("source", "data", "machine", "tools", "edgekit")
VOCAB = "vocab.txt"
"""The name of a vocabulary in the bundle, whatever it was before."""
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
QUANTIZED_TOLERANCE = 0.05
"""How far an answer on the device may be from the recorded one, in parts of the output's range, where the build has
scored nothing on the target's own core. Integer arithmetic rounds otherwise elsewhere: right arithmetic moved
EfficientNet-Lite0 by .003 of the range at most on seven emulated cores, and by .015 on the old engine of a 32-bit one
(a net of two dense layers by .02); sums that saturate move answers by .1 or more."""
LEAST, MOST = 0.02, 0.2
"""Limits of the tolerance where the build has scored the artifact there: twice the largest difference that it saw,
since the recorded inputs are others and a device is not the core that stood for it. What is beyond MOST is another
model."""


def pack(job: Job, plan: Plan, tried: Tried, facts: Mapping[str, Any], recorded: Recorded, folder: Path) -> Manifest:
    """Fill `folder` with the bundle of a candidate that passed; `facts` say if the float artifact is carried."""
    artifact, order = tried.artifact, job.order
    assert artifact is not None
    assert order.name is not None
    copy_files(artifact.path.parent, folder)
    if recorded.content is not None:
        (folder / FILE).write_bytes(recorded.content)
    if order.labels:
        (folder / "labels.txt").write_text("\n".join(order.labels) + "\n", encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(facts), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card(facts), encoding="utf-8")
    built = built_at()
    released = int(datetime.fromisoformat(built).timestamp()) if order.release is None else order.release
    manifest = Manifest(
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
        golden=_golden(job, tried, artifact, folder),
        exam=examine(job, tried).put(folder),
        baseline=FILE if recorded.content is not None else None,
        shadow=_shadow(tried, folder) if facts["shadow"]["bytes"] else None,
        evidence=dict(next(one for one in facts["candidates"] if one["chosen"])),
        provenance={"built": built, **{key: facts[key] for key in PROVENANCE}},
        release=released,
        expires=order.expires,
    )
    _vouched(job, manifest, facts, built, folder)
    return seal(folder, manifest, job.secret)


def _vouched(job: Job, manifest: Manifest, facts: Mapping[str, Any], built: str, folder: Path) -> None:
    """Add what tells others what is in the bundle and how it came to be; the latter where there is a key to sign it."""
    files = described(folder)
    bill = json.dumps(sbom(manifest, facts, files, built), indent=1)
    (folder / SBOM).write_text(bill + "\n", encoding="utf-8")
    if job.secret is not None:
        files[SBOM] = describe(folder / SBOM)
        (folder / ATTESTED).write_bytes(attested(manifest, facts, files, built, job.secret))


def shadow_facts(job: Job, plan: Plan, tried: Tried) -> dict[str, Any]:
    """{"asked", "bytes", "why"}: of the float artifact that is carried beside the one that passed, or why none is."""
    source, target, asked = tried.source, plan.target, job.order.with_float
    if not asked:
        why = "it was not asked for (--with-float)"
    elif source is None or tried.artifact is None or source.path == tried.artifact.path:
        why = f"what runs is the {tried.candidate.precision} file itself: there is nothing to compare it with"
    elif (tried.bytes + source.size()) / 1e6 > target.storage_mb:
        both = (tried.bytes + source.size()) / 1e6
        why = f"with it there would be {both:,.0f} MB; {target.title} stores {target.storage_mb:,} MB"
    else:
        return {"asked": asked, "bytes": source.size(), "why": None}
    return {"asked": asked, "bytes": 0, "why": why}


def _shadow(tried: Tried, folder: Path) -> Shadow:
    """Carry the float artifact too, called with the very tensors that the user of the other sends and gets."""
    source, made = tried.source, tried.artifact
    assert source is not None
    assert made is not None
    copy_files(source.path.parent, folder / FLOAT)
    sides = _called_as(source.inputs, made.inputs), _called_as(source.outputs, made.outputs)
    return Shadow(source.format, f"{FLOAT}/{source.path.name}", *sides)


def _called_as(ports: Sequence[Port], others: Sequence[Port]) -> tuple[Port, ...]:
    """The ports with the user's side of `others`, which may be integers."""
    specs = {port.spec.name: port.spec for port in others}
    return tuple(replace(port, spec=specs[port.spec.name]) for port in ports)


def _preprocess(job: Job, folder: Path) -> dict[str, Any] | None:
    """What was declared; the vocabulary that it names is carried along."""
    if job.order.preprocess is None:
        return None
    declared = {"input": job.model.inputs[0].name, **job.order.preprocess}
    if declared.get("vocab") is not None:
        copyfile(declared["vocab"], folder / VOCAB)
        declared["vocab"] = VOCAB
    return declared


def allowed(precision: str, scored_on: Sequence[ScoredOn]) -> float:
    """How far the device's answers may be from the recorded ones, by what was seen of them on the target."""
    if precision in TOLERANCE:
        return TOLERANCE[precision]
    seen = [one.worst for one in scored_on if one.worst is not None]
    return round(min(max(LEAST, *(2 * worst for worst in seen)), MOST), 4) if seen else QUANTIZED_TOLERANCE


def _golden(job: Job, tried: Tried, artifact: Artifact, folder: Path) -> Golden:
    """Record what this very artifact answers here, to be replayed on the device."""
    run = artifact.open_model()
    pairs: list[tuple[Feeds, Feeds]] = []
    for feeds in probes(job.model, job)[:GOLDEN_SAMPLES]:
        sent = as_sent(feeds, artifact.inputs)
        pairs.append((sent, run(sent)))
    write_golden(folder / "golden.npz", pairs)
    return Golden("golden.npz", len(pairs), allowed(artifact.precision, tried.scored_on))

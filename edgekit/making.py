"""Make artifacts, believe none: each is run by the runtime's own engine against what it was made from.

Refuses a converted file whose numbers are wrong, whatever its converter said."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.manifest import port_from_json, port_to_json
from edgekit_runtime.tensors import Feeds, Runner

from edgekit import converters, quantizers
from edgekit.converters.matching import example_feeds
from edgekit.coverage import wants_whole
from edgekit.job import Job
from edgekit.model import Artifact, Model
from edgekit.parity import Parity, parity
from edgekit.plan import TITLES, Candidate
from edgekit.recipes import Group

TOLERANCE = {"float32": 2e-3, "float16": 3e-2}
"""How far, in parts of the output's magnitude, a float artifact may be from its source."""
COSINE = {"float32": 0.9999, "float16": 0.999}

Made = tuple[Artifact, tuple[Parity, ...]]
"""An artifact, and how far it is from what it was made from."""


def float_artifact(job: Job, steps: tuple[str, ...], format: str) -> Made:
    """The float artifact of `format`, made by `steps`, at parity with the source.

    Raises:
        Unsupported: a converter cannot do this model, or what it wrote answers differently.
    """
    model = job.model
    for step in steps:
        made = _cached(
            job, step.rpartition(".")[2], {"steps": steps[: steps.index(step) + 1]}, _converting(job, model, step)
        )
        model = replace(model, forms={made[0].format: made[0].path})
    return made


def quantized_artifact(job: Job, candidate: Candidate, source: Artifact) -> Made:
    """The artifact that `candidate` asks for, made from the float artifact `source`, with its parity to that.

    Raises:
        Unsupported: it cannot be had, or what was written does not load or gives no numbers.
    """
    wish = _wish(job, candidate, source)

    def make(folder: Path) -> Made:
        job.tell(f"quantizing: {candidate.title}")
        artifact = quantizers.quantize(source, wish, folder, job.tell)
        far = _parity(job, lambda: source.open_model(), artifact)
        _refuse_strangers(artifact, far, f"{candidate.title} file", float_source=False)
        return artifact, far

    inputs = {
        "steps": candidate.steps,
        "recipe": asdict(candidate.recipe),
        "integer_io": job.order.integer_io,
        "whole": wish.whole,
        "calibration": None if job.calibration is None else job.calibration.fingerprint,
    }
    return _cached(job, f"{candidate.format}_{candidate.precision}", inputs, make)


def sensitive_groups(job: Job, candidate: Candidate, source: Artifact) -> tuple[Group, ...]:
    """The operators of the float artifact in groups, with what quantizing each group alone does to the answers.

    Raises:
        Unsupported: this format or this model cannot be looked at so.
    """
    if job.calibration is None:
        raise Unsupported("what is sensitive cannot be measured without calibration data", hint="say --data DATA")
    wish = _wish(job, candidate, source)

    def fill(folder: Path) -> None:
        job.tell(f"measuring which operators are sensitive: {TITLES[source.format]}")
        with TemporaryDirectory(prefix="edgekit-") as scratch:
            groups = quantizers.sensitivity(source, wish, Path(scratch), job.tell)
        (folder / "groups.json").write_text(json.dumps([asdict(group) for group in groups]))

    basis = {
        "source": source.path.parent.parent.name,
        "recipe": asdict(candidate.recipe),
        "calibration": job.calibration.fingerprint,
    }
    home = job.cache.folder("sensitivity", basis, fill)
    raw = json.loads((home / "groups.json").read_text())
    return tuple(Group(tuple(one["operators"]), float(one["error"])) for one in raw)


def _wish(job: Job, candidate: Candidate, source: Artifact) -> quantizers.Wish:
    """What the quantizer is asked for; what its calibration finds is kept for the other recipes."""
    data = job.calibration
    statistics = None
    if data is not None:
        basis = {"source": source.path.parent.parent.name, "calibration": data.fingerprint}
        statistics = job.cache.folder("statistics", basis, lambda folder: None)
    return quantizers.Wish(
        candidate.recipe,
        None if data is None else lambda: data.batches(1),
        0 if data is None else len(data),
        job.order.integer_io,
        statistics,
        wants_whole(candidate.options),
    )


def probes(model: Model, job: Job) -> list[Feeds]:
    """Feeds for parity: real samples where there are any, at several batch and sequence sizes where they are free."""
    data = job.evaluation
    if data is None:
        return [example_feeds(model, free, seed) for seed, free in enumerate((1, 2, 5))]
    found = [data.feeds(i) for i in range(min(4, len(data)))]
    if data.batchable:
        found += [next(data.take(range(size)).batches(size)) for size in (2, 5) if size <= len(data)]
    return found + _cropped(model, found[0])


def _cropped(model: Model, feeds: Feeds) -> list[Feeds]:
    """The feeds cut shorter along every free axis but the first; axes of one name stay of one size."""
    names = {a for axes in model.axes.values() for a in axes[1:] if isinstance(a, str)}
    crops = []
    for part in (2, 3) if names else ():
        cut = {}
        for name, value in feeds.items():
            sizes = [
                slice(0, max(1, -(-size // part))) if isinstance(axis, str) and axis in names else slice(None)
                for axis, size in zip(model.axes[name], value.shape, strict=True)
            ]
            cut[name] = np.array(value[tuple(sizes)])
        crops.append(cut)
    return [cut for cut in crops if any(cut[name].shape != feeds[name].shape for name in feeds) and _runs(model, cut)]


def _runs(model: Model, feeds: Feeds) -> bool:
    """Whether the source itself takes feeds of this size: a crop may be shorter than it can."""
    try:
        model.run(feeds)
    except Exception:  # the framework's own errors, of any class: the crop is then no probe
        return False
    return True


def _converting(job: Job, model: Model, step: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        job.tell(f"converting {step.rpartition('.')[2].replace('_', ' ')}")
        artifact = converters.convert(step, model, folder, job.tell)
        far = _parity(job, lambda: job.model.run, artifact)
        _refuse_strangers(artifact, far, f"{TITLES[artifact.format]} file", float_source=True)
        return artifact, far

    return make


def _parity(job: Job, reference: Callable[[], Runner], artifact: Artifact) -> tuple[Parity, ...]:
    """How far the artifact is from the reference on the probes, run by the runtime's engine at float32."""
    job.tell(f"checking {TITLES[artifact.format]} {artifact.precision} against what it was made from")
    feeds, wanted, run = probes(job.model, job), reference(), artifact.in_floats().open_model(EngineOptions())
    return parity((wanted(feed) for feed in feeds), (run(feed) for feed in feeds))


def _refuse_strangers(artifact: Artifact, far: tuple[Parity, ...], what: str, float_source: bool) -> None:
    """Raise if a float artifact answers differently from its source, or any artifact gives no numbers."""
    for one in far:
        if not np.isfinite([one.worst, one.cosine]).all():
            raise Unsupported(
                f"the {what} gives NaN, infinity or another shape at {one.output}", hint=_others(artifact)
            )
        limit = artifact.precision if artifact.precision in TOLERANCE else None
        if limit is None and float_source:
            limit = "float16"
        if limit and not one.within(TOLERANCE[limit]) and one.cosine < COSINE[limit]:
            raise Unsupported(
                f"the {what} answers differently at {one.output}: "
                f"worst difference {one.worst:.3g}, cosine {one.cosine:.4f}",
                hint=_others(artifact),
            )


def _others(artifact: Artifact) -> str:
    return f"use --format {' or '.join(f for f in TITLES if f != artifact.format)}"


def _cached(job: Job, step: str, inputs: Mapping[str, object], make: Callable[[Path], Made]) -> Made:
    """What `make` makes, kept: the artifact's files in one folder, the rest in `made.json` beside it."""

    def fill(scratch: Path) -> None:
        folder = scratch / "artifact"
        folder.mkdir()
        artifact, far = make(folder)
        (scratch / "made.json").write_text(json.dumps(_to_json(artifact, far)))

    basis = {
        **inputs,
        "model": job.fingerprint,
        "probes": None if job.evaluation is None else job.evaluation.fingerprint,
    }
    home = job.cache.folder(step, basis, fill)
    return _from_json(home)


def _to_json(artifact: Artifact, far: tuple[Parity, ...]) -> dict[str, object]:
    return {
        "format": artifact.format,
        "precision": artifact.precision,
        "path": artifact.path.name,
        "inputs": [port_to_json(port) for port in artifact.inputs],
        "outputs": [port_to_json(port) for port in artifact.outputs],
        "notes": list(artifact.notes),
        "parity": [asdict(one) for one in far],
    }


def _from_json(home: Path) -> Made:
    raw = json.loads((home / "made.json").read_text())
    artifact = Artifact(
        raw["format"],
        raw["precision"],
        home / "artifact" / raw["path"],
        tuple(port_from_json(port) for port in raw["inputs"]),
        tuple(port_from_json(port) for port in raw["outputs"]),
        tuple(raw["notes"]),
    )
    return artifact, tuple(Parity(**one) for one in raw["parity"])

"""Try a candidate: make it, score it on the same samples as the source, measure its size, memory and latency.

Refuses nothing by itself: what a converter or quantizer cannot do becomes a `Tried` with the reason."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.detect import detect
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.footprint import measure as measure_footprint
from edgekit_runtime.tensors import Runner

from edgekit.evidence import Outputs, Parity, Quality, Verdict, choose_metric, judge, measure, outputs_of
from edgekit.job import Job
from edgekit.making import float_artifact, probes, quantized_artifact
from edgekit.model import Artifact
from edgekit.plan import Candidate, Plan
from edgekit.target import Target
from edgekit.timing import Latency, interleaved

LEAST_COSINE = 0.8
"""Where no budget was set, an artifact further than this from float is not the same model any more."""


@dataclass(frozen=True)
class Tried:
    """A candidate and all that is known of it. Sizes in bytes, memory in MB, latency in ms beside its float artifact.

    `agreement` is how often the best class is the source's, where there are classes. `artifact` is
    None, and `verdict` says why, where it could not be made.
    """

    candidate: Candidate
    verdict: Verdict
    artifact: Artifact | None = None
    parity_to_source: tuple[Parity, ...] = ()
    parity_to_float: tuple[Parity, ...] = ()
    quality: Quality | None = None
    agreement: Quality | None = None
    bytes: int = 0
    float_bytes: int = 0
    peak_mb: float | None = None
    latency: Latency | None = None
    float_latency: Latency | None = None
    timed: str = ""


def try_candidate(job: Job, plan: Plan, candidate: Candidate) -> Tried:
    """Make and measure one candidate; an `Unsupported` anywhere is its verdict."""
    try:
        source, to_source = float_artifact(job, candidate.steps, candidate.format)
        made, to_float = (source, ()) if _as_it_is(source, candidate) else quantized_artifact(job, candidate, source)
    except Unsupported as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Tried(candidate, Verdict("refused", f"{error.what}{hint}"))
    quality, agreement = _quality(job, candidate, made)
    tried = Tried(
        candidate, _verdict(job, quality, to_float), made, to_source, to_float, quality, agreement, made.size(),
        source.size(), _peak_mb(job, candidate, made),
    )  # fmt: skip
    return _fits(plan.target, _timed(job, plan.target, source, tried))


def _as_it_is(source: Artifact, candidate: Candidate) -> bool:
    """Whether the float artifact is what was asked for, or came quantized already."""
    return source.precision == candidate.precision


def _verdict(job: Job, quality: Quality | None, to_float: tuple[Parity, ...]) -> Verdict:
    worst = min((one.cosine for one in to_float), default=1.0)
    if job.order.max_drop is None and not worst >= LEAST_COSINE:
        return Verdict(
            "missed", f"cosine {worst:.2f} to the float artifact, below {LEAST_COSINE}, and no budget allows it"
        )
    if quality is None:
        if job.order.max_drop is not None:
            return Verdict("inconclusive", "no evaluation data to hold the budget against", None)
        return Verdict("unbudgeted", "no data: checked against the source on random inputs alone")
    return judge(quality, job.order.max_drop)


def _quality(job: Job, candidate: Candidate, artifact: Artifact) -> tuple[Quality | None, Quality | None]:
    """The metric of the order, and the agreement with the source where the output has classes."""
    data = job.evaluation
    if data is None:
        return None, None
    reference = _answers(job, "source", {}, lambda: job.model.run, f"scoring the source, {job.model.name}")
    metric = choose_metric(job.order.metric, data.labels, reference[0])
    inputs = {
        "artifact": str(artifact.path.parent.parent.name),
        "options": asdict(candidate.options),
        "isa": machine()["isa"],
    }
    opened = lambda: artifact.in_floats().open_model(_here(candidate.options))  # noqa: E731
    answers = _answers(job, candidate.title, inputs, opened, f"scoring {candidate.title}")
    classes = all(one.ndim == 1 and one.size > 1 for one in reference)
    agreement = measure("agreement", reference, answers, None) if classes else None
    return measure(metric, reference, answers, data.labels), agreement


def _here(options: EngineOptions) -> EngineOptions:
    """The target's options as far as this machine has them: the CPU, and float arithmetic it is sure to have."""
    return replace(options, device="cpu", precision="float32")


def _answers(job: Job, who: str, inputs: dict[str, Any], run: Callable[[], Runner], doing: str) -> Outputs:
    """The primary output for every evaluation sample, kept between builds."""
    data = job.evaluation
    assert data is not None

    def fill(folder: Path) -> None:
        job.tell(doing)
        outputs = outputs_of(run(), data, job.primary.name, job.tell, doing)
        same = len({output.shape for output in outputs}) == 1
        arrays: dict[str, Any] = {"all": np.stack(outputs)} if same else {str(i): one for i, one in enumerate(outputs)}
        np.savez(folder / "outputs.npz", **arrays)

    basis = {**inputs, "who": who, "model": job.fingerprint, "output": job.primary.name, "data": data.fingerprint}
    with np.load(job.cache.folder("answers", basis, fill) / "outputs.npz") as arrays:
        if arrays.files == ["all"]:
            return list(arrays["all"])
        return [arrays[str(i)] for i in range(len(data))]


def _peak_mb(job: Job, candidate: Candidate, artifact: Artifact) -> float:
    """The peak memory of a fresh process that loads the artifact and answers once, in MB."""

    def fill(folder: Path) -> None:
        job.tell(f"measuring the memory of {candidate.title}")
        feeds = probes(job.model, job)[0]
        inside = {port.inside.name: port.inward(feeds[port.spec.name]) for port in artifact.in_floats().inputs}
        found = measure_footprint(artifact.format, artifact.path, inside, _here(candidate.options))
        (folder / "footprint.json").write_text(json.dumps(found))

    basis = {
        "artifact": artifact.path.parent.parent.name,
        "machine": machine()["model"],
        "threads": candidate.options.threads,
    }
    home = job.cache.folder("footprint", basis, fill)
    return float(json.loads((home / "footprint.json").read_text())["peak_mb"])


def _timed(job: Job, target: Target, source: Artifact, tried: Tried) -> Tried:
    """With latency beside the float artifact's, where this machine is of the target's architecture."""
    here = machine()
    if here["arch"] != target.arch:
        return replace(tried, timed=f"not measured: this machine is {here['arch']}, {target.name} is {target.arch}")
    if tried.candidate.options.device != "cpu":
        return replace(tried, timed=f"not measured: no {tried.candidate.options.device} is used here")
    made = tried.artifact
    assert made is not None

    def fill(folder: Path) -> None:
        job.tell(f"timing {tried.candidate.title} beside float32")
        options = EngineOptions(threads=1)
        runners = {"float": source.in_floats().open_model(options), "made": made.in_floats().open_model(options)}
        found = interleaved(runners, probes(job.model, job)[0])
        (folder / "latency.json").write_text(json.dumps({name: asdict(one) for name, one in found.items()}))

    basis = {"float": source.path.parent.parent.name, "made": made.path.parent.parent.name, "machine": here["model"]}
    raw = json.loads((job.cache.folder("latency", basis, fill) / "latency.json").read_text())
    where = f"measured on this machine ({here['model']}), 1 thread"
    return replace(tried, latency=Latency(**raw["made"]), float_latency=Latency(**raw["float"]), timed=where)


def _fits(target: Target, tried: Tried) -> Tried:
    """Refused after all where what was measured does not fit the target."""
    if tried.bytes / 1e6 > target.storage_mb:
        return replace(
            tried,
            verdict=Verdict(
                "refused", f"{tried.bytes / 1e6:,.0f} MB do not fit into {target.storage_mb:,} MB of storage"
            ),
        )
    if tried.peak_mb is not None and tried.peak_mb > target.memory_mb:
        return replace(
            tried,
            verdict=Verdict(
                "refused", f"it peaks at {tried.peak_mb:,.0f} MB; {target.title} has {target.memory_mb:,} MB"
            ),
        )
    return tried


@once
def machine() -> dict[str, Any]:
    """What the numbers of a build depend on, of the machine that it runs on."""
    found = detect()
    return {"arch": found["arch"], "isa": found["isa"], "model": found["model"]}

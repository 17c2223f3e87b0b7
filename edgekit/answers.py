"""What a model answers to evaluation samples, run by run, kept between builds: nothing is answered twice.

Refuses nothing; what cannot run raises as its engine does."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache as once
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.detect import detect
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.tensors import Array, Runner

from edgekit.dataset import Dataset
from edgekit.evidence import Outputs, Scores, choose_metric, joined, score
from edgekit.job import Job
from edgekit.model import Artifact, Tell
from edgekit.trial import LOOKS

BATCH = 32


@dataclass(frozen=True)
class Answering:
    """One that answers: `who` in words, what its answers depend on beside the data, and how it is opened."""

    who: str
    basis: dict[str, Any]
    open: Callable[[], Runner]
    batch: int = BATCH


def source_of(job: Job) -> Answering:
    """The source model, by the framework that it came from."""
    return Answering("source", {}, lambda: job.model.run)


def made_of(artifact: Artifact, title: str, options: EngineOptions) -> Answering:
    """An artifact, by the runtime's engine on this machine."""
    basis = {"artifact": digest(artifact), "options": asdict(options), "isa": machine()["isa"]}
    return Answering(title, basis, lambda: artifact.in_floats().open_model(here(options)))


def scores(job: Job, one: Answering, start: int, stop: int, beside: Answering | None = None) -> Scores:
    """The scores of `one` on evaluation samples `start` to `stop`, beside the source's (or another's).

    Answered in runs that begin and end where they did before, so that each run is found again.
    """
    assert job.evaluation is not None
    parts = []
    for first, last in _runs(job, start, stop):
        rows = range(first, last)
        reference = _outputs(job, beside or source_of(job), rows)
        labels = None if job.evaluation.labels is None else job.evaluation.labels[first:last]
        metric = choose_metric(job.order.metric, job.evaluation.labels, reference[0])
        parts.append(score(metric, reference, _outputs(job, one, rows), labels))
    return joined(parts)


def nature(job: Job) -> Scores:
    """The source beside itself on the first run of samples: which metric it is, and of what kind."""
    assert job.evaluation is not None
    first, last = _runs(job, 0, len(job.evaluation))[0]
    one = source_of(job)
    return scores(job, one, first, last, beside=one)


def outputs(job: Job, one: Answering, rows: range) -> Outputs:
    """The primary output for the evaluation samples in `rows`."""
    return [
        answer for first, last in _runs(job, rows.start, rows.stop) for answer in _outputs(job, one, range(first, last))
    ]


def by_run(job: Job, one: Answering, n: int) -> Iterator[tuple[range, Outputs]]:
    """The primary output for the `n` evaluation samples that were scored, as many together as were kept together."""
    for first, last in _runs(job, 0, n):
        yield range(first, last), _outputs(job, one, range(first, last))


def output(job: Job, one: Answering, row: int, n: int) -> Array:
    """The primary output for one evaluation sample, of the `n` that were scored."""
    first, last = next(run for run in _runs(job, 0, n) if run[0] <= row < run[1])
    return _outputs(job, one, range(first, last))[row - first]


HELD = 64 * 2**20
"""Bytes of answers that are held together."""


def _runs(job: Job, start: int, stop: int) -> list[tuple[int, int]]:
    """`start` to `stop` cut where trials look and where answers would take up more than HELD: the same cuts in
    every call, so that no sample is answered twice."""
    assert job.evaluation is not None
    size = 4 * math.prod(n or 1 for n in job.primary.shape[1:])
    step = max(BATCH, min(4096, HELD // size))
    edges = {start, stop}
    for first, last in ((0, job.seen), (job.seen, len(job.evaluation))):
        edges |= {*range(first, last, step), *(first + round((last - first) * part) for part in LOOKS)}
    return list(pairwise(sorted(edge for edge in edges if start <= edge <= stop)))


def _outputs(job: Job, one: Answering, rows: range) -> Outputs:
    data = job.evaluation
    assert data is not None
    part = data.take(rows)
    doing = f"scoring {one.who}" if one.who != "source" else f"scoring the source, {job.model.name}"

    def fill(folder: Path) -> None:
        found = outputs_of(one.open(), part, job.primary.name, job.tell, (doing, rows.start, len(data)), one.batch)
        same = len({output.shape for output in found}) == 1
        arrays: dict[str, Any] = {"all": np.stack(found)} if same else {str(i): one for i, one in enumerate(found)}
        np.savez(folder / "outputs.npz", **arrays)

    basis = {
        **one.basis, "who": one.who if not one.basis else "", "model": job.fingerprint, "output": job.primary.name,
        "data": data.fingerprint, "rows": [rows.start, rows.stop],
    }  # fmt: skip
    with np.load(job.cache.folder("answers", basis, fill) / "outputs.npz") as arrays:
        return list(arrays["all"]) if arrays.files == ["all"] else [arrays[str(i)] for i in range(len(part))]


def outputs_of(
    run: Runner, data: Dataset, output: str, tell: Tell, doing: tuple[str, int, int], batch: int = BATCH
) -> Outputs:
    """What `run` answers for every sample, in order; `doing` is what to tell: words, samples before, samples in all."""
    answers: Outputs = []
    words, before, total = doing
    for feeds in data.batches(batch):
        answer = run(feeds)[output]
        answers += list(answer) if data.batchable else [answer[0] if answer.ndim and len(answer) == 1 else answer]
        tell(f"{words}: {before + len(answers):,} of {total:,} samples")
    return answers


def digest(artifact: Artifact) -> str:
    """What names the bytes of an artifact: the cache's own folder for it."""
    return artifact.path.parent.parent.name


def here(options: EngineOptions) -> EngineOptions:
    """The target's options as far as this machine has them: the CPU, and float arithmetic it is sure to have."""
    return EngineOptions(options.threads, spin=options.spin)


@once
def machine() -> dict[str, Any]:
    """What the numbers of a build depend on, of the machine that it runs on."""
    found = detect()
    return {name: found[name] for name in ("arch", "isa", "model", "cores")}

"""Pack an exam: evaluation samples on which the device scores the model where it runs, since this machine cannot.

Refuses nothing; where there is nothing to examine by, it says why there is no exam."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.exam import Exam, Sample, write_exam
from edgekit_runtime.marks import METRICS, SHARES, best_classes, marks
from edgekit_runtime.tensors import Array

from edgekit.answers import Answering, by_run, here, nature, source_of
from edgekit.baselines import as_sent
from edgekit.evidence import Outputs
from edgekit.job import Job, Order
from edgekit.scoring import Tried

FILE = "exam.npz"
MOST, MOST_BYTES = 1_024, 16 * 10**6
"""Samples that are worth it (half a point can be told from nothing by some 800), and the bytes of their file."""
RAW_BYTES = 256 * 2**20
"""What the samples may take before they are packed."""
LEAST = 8
MARGIN = 0.01
"""What a device may cost, where no budget says it: one point of a share, or a hundredth of the metric."""


@dataclass(frozen=True)
class Examination:
    """`file` is the exam and `exam` what the manifest says of it; None, and the facts say why, where there is none.
    `facts` are JSON values."""

    file: Path | None
    exam: Exam | None
    facts: dict[str, Any]

    def put(self, folder: Path) -> Exam | None:
        """Copy the file into a bundle's folder; what its manifest is to say."""
        if self.file is not None:
            copyfile(self.file, folder / FILE)
        return self.exam


def is_wanted(order: Order, options: EngineOptions) -> bool:
    """Whether a bundle brings one: as was said, else where its engine runs on what this machine has not."""
    return order.exam if order.exam is not None else here(options).device != options.device and not order.measure_on


def examine(job: Job, tried: Tried) -> Examination:
    """The exam of what was chosen: first samples that the search never saw."""
    artifact, options = tried.artifact, tried.candidate.options
    assert artifact is not None
    if not is_wanted(job.order, options):
        why = "it was not wanted (--no-exam)" if job.order.exam is False else "this machine proved it (--exam)"
        return _none(why, asked=False)
    if job.evaluation is None or tried.quality is None:
        return _none("there was no evaluation data (--data)")
    n = tried.quality.n
    rows = [*range(job.seen, n), *range(min(job.seen, n))][:MOST]
    if len(rows) < LEAST:
        return _none(f"{len(rows)} samples are too few")

    def fill(folder: Path) -> None:
        job.tell("packing an exam for the device")
        metric, samples, built = _samples(job, tried, rows)
        count = _write(folder / FILE, samples, job, tried)
        exam = _described(job, metric, samples[:count], built[:count])
        (folder / "exam.json").write_text(json.dumps(asdict(exam)))

    basis = {
        **tried.answering.basis, "ports": repr((artifact.inputs, artifact.outputs)), "rows": repr(rows),
        "data": job.evaluation.fingerprint, "metric": job.order.metric, "output": job.primary.name,
        "budget": str(job.order.goals.max_drop), "model": job.fingerprint,
    }  # fmt: skip
    home = job.cache.folder("exam", basis, fill)
    exam, size = Exam(**json.loads((home / "exam.json").read_text())), (home / FILE).stat().st_size
    if exam.n < LEAST:
        return _none(f"{exam.n} samples, which fit into {MOST_BYTES / 1e6:g} MB, are too few")
    return Examination(home / FILE, exam, {**asdict(exam), "asked": True, "bytes": size, "why": None})


def _samples(job: Job, tried: Tried, rows: Sequence[int]) -> tuple[str, list[Sample], Array]:
    """By which metric, the samples, and how the artifact scored on each here."""
    assert job.evaluation is not None
    assert tried.quality is not None
    assert tried.artifact is not None
    n = tried.quality.n
    source, made = (_chosen(job, one, rows, n) for one in (source_of(job), tried.answering))
    metric, beside = _metric(job, source), _beside(job)
    rights: Sequence[Any]
    if metric == "agreement":
        rights = list(best_classes(source))
    elif metric == "cosine":
        rights = source
    else:
        assert job.evaluation.labels is not None
        rights = list(job.evaluation.labels[list(rows)])
    built = marks(metric, made, rights)
    reference = built if beside == "build" else marks(metric, source, rights)
    samples: list[Sample] = []
    held = 0
    for index, (row, right) in enumerate(zip(rows, rights, strict=True)):
        feeds = as_sent(job.evaluation.feeds(row), tried.artifact.inputs)
        held += sum(value.nbytes for value in feeds.values()) + np.asarray(right).nbytes
        if samples and held > RAW_BYTES:
            break
        samples.append(Sample(feeds, np.asarray(right), float(reference[index])))
    return metric, samples, built


def _metric(job: Job, source: Outputs) -> str:
    """The build's own; in place of a function, which no device has, how far the answers are the source's."""
    metric = nature(job).metric
    if metric in METRICS:
        return metric
    return "agreement" if all(one.ndim == 1 and one.size > 1 for one in source) else "cosine"


def _beside(job: Job) -> str:
    """Whose score it is held against: the source's, as the budget is; without one that of this artifact here."""
    return "source" if job.order.goals.max_drop is not None and nature(job).metric in METRICS else "build"


def _described(job: Job, metric: str, samples: Sequence[Sample], built: Array) -> Exam:
    reference, budget, beside = (
        float(np.mean([one.reference for one in samples])),
        job.order.goals.max_drop,
        _beside(job),
    )
    if beside == "source" and budget is not None:
        allowed = budget.allows(metric, reference)
    else:
        allowed = MARGIN if metric in SHARES else MARGIN * abs(reference)
    return Exam(FILE, len(samples), metric, job.primary.name, beside, allowed, reference, float(built.mean()))


def _chosen(job: Job, one: Answering, rows: Sequence[int], n: int) -> Outputs:
    """What it answered to these samples when it was scored."""
    wanted = set(rows)
    found: dict[int, Array] = {}
    for run, answers in by_run(job, one, n):
        found |= {row: answers[row - run.start] for row in run if row in wanted}
        if len(found) == len(wanted):
            break
    return [found[row] for row in rows]


def _write(path: Path, samples: Sequence[Sample], job: Job, tried: Tried) -> int:
    """Write as many of the samples as fit; how many these are."""
    assert tried.artifact is not None
    specs, count = [port.spec for port in tried.artifact.inputs], len(samples)
    while True:
        write_exam(path, samples[:count], specs)
        size = path.stat().st_size
        if size <= MOST_BYTES or count == 1:
            return count
        job.tell(f"packing an exam for the device: {count} samples take {size / 1e6:,.0f} MB")
        count = max(1, int(0.95 * count * MOST_BYTES / size))


def _none(why: str, asked: bool = True) -> Examination:
    return Examination(None, None, {"asked": asked, "n": 0, "bytes": 0, "why": why})

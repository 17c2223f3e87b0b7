"""The baseline of a bundle: what inputs and answers looked like on the evaluation data, for the device to notice drift.

Refuses nothing; where there is no data, or nothing in it that can be watched, it says why there is no baseline.

Of samples that a device kept, those that it kept at random are a picture of what comes, and only those: the others
were kept for being odd, and ordinary traffic would seem to have drifted from them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import Array, Feeds, TensorSpec, quantized

from edgekit.answers import BATCH, by_run, here
from edgekit.data import raw_fingerprint
from edgekit.dataset import Dataset
from edgekit.evidence import Outputs
from edgekit.job import Job, vocabulary
from edgekit.model import Artifact
from edgekit.scoring import Tried

FILE = "baseline.json"
PULLED = "samples.json"
"""What `edgekit pull-samples` writes beside the samples."""
MOST = 10_000
"""Samples beyond these would move no bin of a histogram by a share that a device could see."""


@dataclass(frozen=True)
class Recorded:
    """`content` is the bundle's FILE; None, and the facts say why, where there is none. `facts` are JSON values."""

    content: bytes | None
    facts: dict[str, Any]


def record(job: Job, tried: Tried) -> Recorded:
    """The baseline of what was chosen, from the evaluation samples that it was scored on, at most MOST of them; of
    those that a device kept, from the ones that it kept at random.

    The readings are taken by the device's own code from the user's tensors as they are sent, and from what this
    artifact answers to them: its answers are those that it was scored by, where these are all that it gives.
    """
    from edgekit_runtime.drift import parse_baseline

    artifact, order = tried.artifact, job.order
    assert artifact is not None
    if job.evaluation is None or tried.quality is None:
        return _none("there was no evaluation data (--data)")
    kept, chosen = _pulled(order.data), list(range(tried.quality.n))
    if kept is not None:
        chosen = [row for row in chosen if "random" in kept.why(job.evaluation, row)]
    if not chosen:
        return _none("a device kept these samples for being odd: ordinary traffic would seem to have drifted from them")
    chosen = chosen[:MOST]
    n, of = len(chosen), {} if kept is None else {"rows": repr(chosen)}
    basis = {
        **of,
        **tried.answering.basis, "ports": repr((artifact.inputs, artifact.outputs)), "n": n, "of": tried.quality.n,
        "data": job.evaluation.fingerprint, "labels": len(order.labels), "preprocess": repr(order.preprocess),
        "vocab": raw_fingerprint(vocab) if (vocab := vocabulary(order)) else None,
    }  # fmt: skip
    home = job.cache.folder("baseline", basis, lambda folder: _fill(job, tried, chosen, folder / FILE))
    content = (home / FILE).read_bytes()
    baseline = parse_baseline(json.loads(content))
    if not baseline.n or not baseline.features:
        return _none("nothing in these inputs and outputs can be watched")
    names = [feature.name for feature in baseline.features]
    told = {"n": baseline.n, "bytes": len(content), "features": names, "why": None}
    if kept is not None:
        told["of"] = f"the {baseline.n:,} of these {tried.quality.n:,} samples that a device kept at random"
    return Recorded(content, told)


@dataclass(frozen=True)
class Pulled:
    """What `edgekit pull-samples` brought: why each sample was kept, by its file's name, or its archive's and its row
    there."""

    whys: Mapping[tuple[str, int | None], Sequence[str]]

    def why(self, data: Dataset, index: int) -> Sequence[str]:
        """The reasons for which a device kept sample `index` of `data`; none where it did not."""
        if data.files:
            return self.whys.get((data.files[index].name, None), ())
        return self.whys.get((Path(data.where).name, data.place_of(index)), ())


def _pulled(data: str | None) -> Pulled | None:
    """What was pulled, where these data are that or a part of it. One that does not read tells of no sample."""
    if data is None or (":" in Path(data).name and not Path(data).exists()):
        return None
    path = Path(data).absolute()
    folder = next((one for one in (path, *path.parents[:2]) if (one / PULLED).is_file()), None)
    if folder is None:
        return None
    try:
        rows = json.loads((folder / PULLED).read_bytes())["samples"]
        within = path.relative_to(folder).as_posix()
        mine = [one for one in rows if within == "." or f"{one['file']}/".startswith(f"{within}/")]
        return Pulled({(one["file"].rpartition("/")[2], one["row"]): tuple(one.get("why") or ()) for one in mine})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Pulled({})


def as_sent(feeds: Feeds, ports: Sequence[Port]) -> Feeds:
    """Real numbers as the user of the bundle sends them: integers where its I/O stays integer."""
    return {port.spec.name: _as_sent(feeds[port.spec.name], port.spec) for port in ports}


def _as_sent(value: Array, spec: TensorSpec) -> Array:
    return value if spec.scale is None else quantized(value, spec)


def _none(why: str) -> Recorded:
    return Recorded(None, {"n": 0, "bytes": 0, "features": [], "why": why})


def _fill(job: Job, tried: Tried, chosen: Sequence[int], path: Path) -> None:
    """Read every pair, and write what was recorded."""
    from edgekit_runtime.drift import Recorder, reader, to_json

    artifact, wanted = tried.artifact, job.wanted
    assert artifact is not None
    assert wanted is not None
    inputs, outputs = (tuple(port.spec for port in side) for side in (artifact.inputs, artifact.outputs))
    read, recorder, seen = reader(inputs, outputs, wanted.preprocess, len(job.order.labels)), Recorder(), 0
    pairs = _known if _is_known(artifact) else _anew
    for sent, answered in pairs(job, tried, artifact, chosen):
        for reading in read(sent, answered):
            recorder.add(reading)
            seen += 1
        job.tell(f"recording the baseline: {seen:,} of {len(chosen):,} samples")
    path.write_text(json.dumps(to_json(recorder.baseline()), allow_nan=False) + "\n", encoding="utf-8")


def _is_known(artifact: Artifact) -> bool:
    """Whether the answers that were scored are all that the artifact gives, in the numbers that a user gets."""
    return len(artifact.outputs) == 1 and all(port.spec.scale is None for port in (*artifact.inputs, *artifact.outputs))


def _known(job: Job, tried: Tried, artifact: Artifact, chosen: Sequence[int]) -> Iterator[tuple[Feeds, Feeds]]:
    """The chosen samples with the answers that were scored, a batch at a time."""
    assert job.evaluation is not None
    assert tried.quality is not None
    (port,), wanted = artifact.outputs, frozenset(chosen)
    step = BATCH if job.evaluation.batchable else 1
    for rows, found in by_run(job, tried.answering, tried.quality.n):
        if rows.start > chosen[-1]:
            return
        mine = [row for row in rows if row in wanted]
        part = job.evaluation.take(mine)
        for index, feeds in enumerate(part.batches(step)):
            answers = [found[row - rows.start] for row in mine[index * step : (index + 1) * step]]
            yield feeds, {port.spec.name: _batch(answers, port.spec, job.evaluation.batchable)}


def _batch(answers: Outputs, spec: TensorSpec, batchable: bool) -> Array:
    """Answers of samples as the artifact gave them; of one alone the batch axis was left out, where it had one."""
    if batchable:
        return np.stack(answers)
    (one,) = answers
    return one if len(one.shape) == len(spec.shape) else one[np.newaxis]


def _anew(job: Job, tried: Tried, artifact: Artifact, chosen: Sequence[int]) -> Iterator[tuple[Feeds, Feeds]]:
    """The chosen samples as they are sent, and what the artifact answers to them now."""
    assert job.evaluation is not None
    run = artifact.open_model(here(tried.candidate.options))
    for feeds in job.evaluation.take(chosen).batches(BATCH):
        sent = as_sent(feeds, artifact.inputs)
        yield sent, run(sent)

"""A bundle scored at another place beside here, on the same samples of the user's data, with the paired interval.

Refuses data that does not fit the bundle's inputs, and samples that calibrated it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.tensors import Runner

from edgekit.answers import Answering, here, machine, scores
from edgekit.cache import Cache
from edgekit.elsewhere import BATCHES, MARGIN
from edgekit.evidence import LEVEL, SHARES, Quality, Scores, measure, words
from edgekit.goals import Budget
from edgekit.intervals import enough
from edgekit.job import Job, Order, anchored, open_job
from edgekit.model import Artifact, Facts, Model, Origin, Tell
from edgekit.places.there import There


@dataclass(frozen=True)
class Wish:
    """What is to be scored, if anything: `data` as for a build, at most `samples` of them, by which metric of which
    output; `max_drop` is the most that may be lost there beside here. `cache` keeps the answers."""

    cache: Cache
    data: str | None = None
    calibration: str | None = None
    samples: int = 256
    metric: str | None = None
    output: str | None = None
    max_drop: Budget | None = None


@dataclass(frozen=True)
class Scored:
    """The metric there (`quality.value`) beside here (`quality.reference`), and what that says."""

    outcome: Literal["proved", "missed", "inconclusive"]
    why: str
    quality: Quality


def score_beside(identity: str, artifact: Artifact, bundle: Bundle, there: There, wish: Wish, tell: Tell) -> Scored:
    """Answer the same samples here and there, and compare. `identity` names what answers.

    Raises:
        EdgeKitError: the data does not open, or does not fit; the engine is not installed here.
    """
    options = bundle.manifest.options
    run = artifact.in_floats().open_model(here(options))
    job = _opened(identity, artifact, bundle, run, wish, tell)
    assert job.evaluation is not None
    n = min(wish.samples, len(job.evaluation))
    title = f"{artifact.format} {artifact.precision}"
    near = Answering(f"{title} here", _basis(identity, here(options), machine()), lambda: run)
    place = {"kind": there.place.kind, "name": there.place.name}
    far = Answering(
        f"{title} on {there.place.words}", _basis(identity, options, place), lambda: there.runner(artifact),
        BATCHES["emulated"],
    )  # fmt: skip
    return judge(scores(job, far, 0, n, beside=near), wish.max_drop)


def judge(found: Scores, budget: Budget | None) -> Scored:
    """Whether it is as good there: within the budget, else without a loss that shows and matters."""
    quality = measure(found)
    shares = quality.metric in SHARES
    margin = MARGIN if shares else MARGIN * abs(quality.reference)
    allowed = budget.allows(quality.metric, quality.reference) if budget is not None else margin
    said = f"{words(quality)}, there beside here"
    if not np.isfinite(quality.drop):
        return Scored("missed", f"{said}: not a number", quality)
    if quality.high <= allowed:
        return Scored("proved", f"{said}, within {budget}" if budget is not None else said, quality)
    if quality.low > allowed or (budget is None and quality.low > 0):
        return Scored("missed", f"{said}: it loses there" + (f", over {budget}" if budget else ""), quality)
    if budget is None:
        return Scored("proved", f"{said}: no loss shown", quality)
    more = "more"
    if found.whole is None and quality.drop < allowed:
        more = f"about {enough(found.worse, LEVEL, allowed, shares):,}"
    return Scored("inconclusive", f"{said}: too few samples to tell against {budget}; {more} would do", quality)


def _opened(identity: str, artifact: Artifact, bundle: Bundle, run: Runner, wish: Wish, tell: Tell) -> Job:
    """The bundle as a build's job: its own answers are the reference, the samples those that a build would judge by."""
    manifest, real = bundle.manifest, artifact.in_floats()
    inputs, outputs = (tuple(port.spec for port in side) for side in (real.inputs, real.outputs))
    model = Model(manifest.name, "bundle", {}, inputs, outputs, {}, run, Facts({}, 0, 0))
    preprocess = manifest.preprocess
    order = Order(
        origin=Origin(str(bundle.folder)),
        targets=(manifest.target,),
        data=wish.data,
        calibration=wish.calibration,
        preprocess=None if preprocess is None else anchored(preprocess, bundle.folder),
        labels=bundle.labels(),
        metric=wish.metric,
        output=wish.output,
    )
    return open_job(order, model, identity, wish.cache, tell)


def _basis(identity: str, options: EngineOptions, where: Mapping[str, object]) -> dict[str, object]:
    return {"artifact": identity, "options": asdict(options), "where": where}

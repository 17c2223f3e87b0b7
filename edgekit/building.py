"""The story of a build: read, plan, open the data, try the candidates, judge them by the budget, pack what passed.

Refuses by leaving nothing but a report: no bundle is made of a candidate that did not pass."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.keypair import public_of
from edgekit_runtime.manifest import PLAIN

from edgekit import sources
from edgekit.baselines import record
from edgekit.bundle import refuse_to_replace, whole_folder
from edgekit.cache import Cache
from edgekit.converters import ROUTES, route
from edgekit.declared import completed
from edgekit.details import fewer_samples, look_inside
from edgekit.elsewhere import can_score
from edgekit.evidence import Verdict
from edgekit.examining import examine
from edgekit.job import Job, Order, open_job, vocabulary
from edgekit.keys import listed, signing_key
from edgekit.measuring import peak_of_build_mb
from edgekit.model import Model, Tell
from edgekit.outcome import (
    BUILT,
    WORST_LAST,
    Outcome,
    basis_of,
    keep_report,
    place_of,
    remember,
    remembered,
)  # fmt: skip
from edgekit.packing import pack, shadow_facts
from edgekit.plan import FORMATS, Candidate, Plan, Wishes, make_plan
from edgekit.report import as_json
from edgekit.scoring import Tried, attempt, confirm, recorded
from edgekit.searching import Steps, search
from edgekit.target import find_target

FAR_OVER = 0.25
"""How far over a limit on size, memory or latency a candidate is that no other recipe of its kind would bring down."""


@dataclass(frozen=True)
class Prepared:
    """What was decided before anything is made: the model, the ways from it, a plan and a place for each target."""

    order: Order
    model: Model
    fingerprint: str
    routes: Mapping[str, tuple[str, ...]]
    plans: tuple[Plan, ...]
    places: tuple[Path, ...]


def prepare(order: Order, tell: Tell) -> Prepared:
    """Read the model and decide; makes nothing.

    Raises:
        EdgeKitError: the order cannot be carried out as it stands.
    """
    targets = [find_target(name) for name in order.targets]
    order = completed(order)
    tell(f"reading {order.origin.model}")
    fingerprint, model = sources.fingerprint(order.origin), sources.read(order.origin)
    name = order.name or _plain_word(model.name)
    if not PLAIN.fullmatch(name) or not PLAIN.fullmatch(order.version):
        raise EdgeKitError(
            f"name {name!r} or version {order.version!r} is no plain word", hint="use letters, digits, . _ -"
        )
    routes = {
        format: route(model, format) for format in FORMATS if any((form, format) in ROUTES for form in model.forms)
    }
    static = not any(isinstance(axis, str) for axes in model.axes.values() for axis in axes)
    wishes = Wishes(
        order.format, order.precision, bool(order.data or order.calibration), static, order.goals.judged, order.best,
        least=order.least,
    )  # fmt: skip
    plans = tuple(
        make_plan(model.facts, routes, target, replace(wishes, emulated=can_score(order, target))) for target in targets
    )
    places = tuple(place_of(order, name, plan.target.name) for plan in plans)
    return Prepared(replace(order, name=name), model, fingerprint, routes, plans, places)


def build(order: Order, cache: Cache, tell: Tell) -> tuple[Outcome, ...]:
    """Carry out an order: one outcome for each target, in their order.

    Raises:
        EdgeKitError: the order is at fault: nothing was made.
    """
    first = not order.unsigned and not listed(order.keys)
    prepared = prepare(order, tell) if first else None  # no key is made for a model that is not there
    secret = None if order.unsigned else signing_key(order.keys, order.key, tell)
    basis = basis_of(order, cache, None if secret is None else public_of(secret).fingerprint)
    if known := remembered(order, basis, cache):
        return known
    prepared = prepared or prepare(order, tell)
    for place in prepared.places:
        refuse_to_replace(place)
    job = replace(open_job(prepared.order, prepared.model, prepared.fingerprint, cache, tell), secret=secret)
    outcomes = tuple(_build_one(job, plan, place) for plan, place in zip(prepared.plans, prepared.places, strict=True))
    if vocabulary(prepared.order) == vocabulary(order):  # of one that the model names the basis knows nothing
        remember(basis, cache, outcomes)
    cache.trim()
    return outcomes


def _build_one(job: Job, plan: Plan, place: Path) -> Outcome:
    """Search the candidates for one that passes; pack it, or keep the report of them all."""
    begun = time.monotonic()
    found = search(plan.candidates, _steps(job, plan), job.order.best, job.late)
    tried, best = list(found.tried), found.pick
    if best is None:
        place_of_best = tried.index(nearest(tried))
        best = tried[place_of_best] = recorded(job, tried[place_of_best])
    details = look_inside(job, best)
    facts = as_json(job, plan, tried, best) | {
        "untried": found.untried,
        "details": details,
        "seconds": round(time.monotonic() - begun, 1),
        "peak_mb": peak_of_build_mb(),
    }
    if facts["data"]["calibration"] is not None:
        facts["data"]["calibration"]["sufficient"] = fewer_samples(job, best)
    if best.verdict.outcome in BUILT:
        baseline = record(job, best)
        facts |= {"baseline": baseline.facts, "shadow": shadow_facts(job, plan, best)}
        facts["exam"] = examine(job, best).facts
        job.tell(f"packing {place.name}")
        with whole_folder(place) as scratch:
            pack(job, plan, best, facts, baseline, scratch)
        told = {**facts, "bundle": str(place)}
        return Outcome(plan.target.name, best.verdict.outcome, best.verdict.why, "", place, place / "report.html", told)
    why, hint = _explained(best, job, found.untried)
    facts |= {"why": why, "hint": hint}
    report = keep_report(place, facts)
    told = {**facts, "bundle": None, "report": str(report)}
    return Outcome(plan.target.name, best.verdict.outcome, why, hint, None, report, told)


def _steps(job: Job, plan: Plan) -> Steps[Candidate, Tried]:
    """What the search does with a candidate here; a file that another recipe gave before is not tried again."""
    made: dict[str, str] = {}

    def attempted(candidate: Candidate) -> Tried:
        job.tell(f"trying {candidate.title}")
        tried = attempt(job, plan, candidate)
        if tried.artifact is None:
            return tried
        content = tried.artifact.sha256()
        twin = made.setdefault(content, tried.candidate.title)
        if twin == tried.candidate.title:
            return tried
        return replace(tried, standing="out", verdict=Verdict("refused", f"the very same file as {twin}"))

    return Steps(
        attempted,
        lambda tried: tried.standing,
        lambda tried: tried.cost,
        lambda tried: tried.quality.drop if tried.quality is not None else 0.0,
        lambda tried, alpha: confirm(job, plan, tried, alpha),
        lambda tried: tried.verdict.outcome in BUILT,
        lambda tried: tried.verdict.outcome == "inconclusive" and (tried.quality is None or tried.quality.drop <= 0),
        lambda candidate: (candidate.format, candidate.precision),
        lambda tried: tried.too_slow or tried.over > FAR_OVER,
    )


def nearest(tried: Sequence[Tried]) -> Tried:
    """The one that came furthest: of those that only take too much the one that is least over, of those that lose too
    much the one that lost least, else the first that could not be made."""

    def order(one: Tried) -> tuple[int, int, float]:
        loss = one.quality.drop if one.quality else float("inf")
        rank = WORST_LAST.index(one.verdict.outcome)
        return (rank, 0, one.over) if one.over > 0 else (rank, 1 if one.too_slow else 2, loss)

    return min(tried, key=order)


def _explained(best: Tried, job: Job, untried: int) -> tuple[str, str]:
    """Why there is no bundle, and what to do, in words."""
    verdict, title = best.verdict, best.candidate.title
    if untried and job.late():
        why = f"the time was over with {untried} candidates untried; the nearest is {title}: {verdict.why}"
        return why, "give it longer (--budget-time), or say the same again: finished steps are kept"
    if verdict.outcome == "missed" and best.too_slow:
        why = f"no candidate is within the goals; the nearest is {title}: {verdict.why}"
        smaller = "" if job.order.goals.for_size else "--smaller if being smaller is enough, or "
        return why, f"say {smaller}--precision float32"
    if verdict.outcome == "missed" and "(--max-" in verdict.why:
        why = f"no candidate is within the goals; the nearest is {title}: {verdict.why}"
        return why, "raise that limit, or look in the report for what other candidates take"
    if verdict.outcome == "missed":
        why = f"no candidate keeps the budget; the nearest is {title}: {verdict.why}"
        guessed = best.quality is not None and best.quality.metric == "agreement" and job.order.metric is None
        classes = "say --metric cosine if the output is no classes, " if guessed else ""
        return why, f"{classes}look at the calibration data and the report, or give a wider budget"
    if verdict.outcome == "inconclusive":
        own = "" if job.order.calibration else "; a quarter of --data calibrates, unless --calibration is given"
        return f"{title}: {verdict.why}", f"give more evaluation samples (--data{own}), or a wider budget"
    hint = f"look at the report, or choose another --format ({', '.join(FORMATS)}) or --precision"
    return f"{title}: {verdict.why}", hint


def _plain_word(name: str) -> str:
    """A model's name as a word that can be a folder and a part of a URL."""
    word = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip("._-")
    return word[:60] or "model"

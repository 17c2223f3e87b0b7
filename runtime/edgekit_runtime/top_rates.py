"""What a server does now, from two looks at its counters that only grow. Pure.

Refuses nothing: a server may be older, newer or not what it says, so what does not read is left out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.histograms import Histogram

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
MOST_BUCKETS = 256
MOST_MODELS = 200


@dataclass(frozen=True)
class Look:
    """The answer of /status, and when it came by a clock that nobody sets."""

    status: Mapping[str, Any]
    at: float


@dataclass(frozen=True)
class Now:
    """What one model did in so many `seconds`; `whole`: since it was loaded. `beyond` is the largest time that its
    histogram tells apart. Times are in seconds, by the name of the quantile."""

    seconds: float
    whole: bool
    per_second: float
    failed: int
    request: Mapping[str, float]
    queue: Mapping[str, float]
    compute: Mapping[str, float]
    beyond: float
    rows: float | None


def table(value: object) -> Mapping[str, Any]:
    """The value, where it is an object."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """The value, where it is a list."""
    return value if isinstance(value, list) else []


def number(value: object) -> float | None:
    """The value, where it is a number that ends."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        made = float(value)
    except OverflowError:
        return None
    return made if math.isfinite(made) else None


def models(look: Look) -> list[Mapping[str, Any]]:
    """The models that it tells of."""
    return [one for one in listed(look.status.get("models"))[:MOST_MODELS] if isinstance(one, dict)]


def key(model: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells one loading of a model from another: its counters begin at zero with it."""
    return tuple(str(model.get(part))[:200] for part in ("name", "version", "loaded_ms"))


def now(before: Look | None, after: Look) -> dict[tuple[str, ...], Now]:
    """What each model did between two looks, or since it was loaded where there is no look before that."""
    old = {} if before is None else {key(one): one for one in models(before)}
    passed = 0.0 if before is None else after.at - before.at
    made = {}
    for model in models(after):
        was = old.get(key(model))
        found = None if was is None or passed <= 0 else _between(was, model, passed)
        made[key(model)] = found or _whole(after, model)
    return made


def to_json(found: Now) -> dict[str, Any]:
    """For a program: times in seconds."""
    told = {name: dict(getattr(found, name)) for name in ("request", "queue", "compute")}
    return {"seconds": found.seconds, "since_loaded": found.whole, "per_second": found.per_second,
            "failed": found.failed, "rows": found.rows, **told}  # fmt: skip


def _whole(look: Look, model: Mapping[str, Any]) -> Now:
    ended, began = number(look.status.get("now_ms")), number(model.get("loaded_ms"))
    seconds = 0.0 if ended is None or began is None else max(0.0, (ended - began) / 1000)
    nothing: Mapping[str, Any] = {}
    found = _between(nothing, model, seconds, whole=True)
    return found or Now(seconds, True, 0.0, 0, {}, {}, {}, 0.0, None)


def _between(was: Mapping[str, Any], model: Mapping[str, Any], seconds: float, whole: bool = False) -> Now | None:
    """None where a counter was set back."""
    answered = _grown(was, model, "requests", "answered")
    failed = _grown(was, model, "requests", "failed")
    rows, runs = _grown(was, model, "samples"), _grown(was, model, "executions")
    times = {
        name: _difference(_histogram(was, name), _histogram(model, name)) for name in ("request", "queue", "compute")
    }
    if min(answered, failed, rows, runs) < 0 or None in times.values():
        return None
    told = {name: _quantiles(one) for name, one in times.items() if one is not None}
    request = times["request"]
    beyond = request.bounds[-1] if request is not None and request.bounds else 0.0
    rate = answered / seconds if seconds > 0 else 0.0
    return Now(seconds, whole, rate, int(failed), told["request"], told["queue"], told["compute"], beyond,
               rows / runs if runs else None)  # fmt: skip


def _grown(was: Mapping[str, Any], model: Mapping[str, Any], *path: str) -> float:
    before, after = was, model
    for part in path[:-1]:
        before, after = table(before.get(part)), table(after.get(part))
    return (number(after.get(path[-1])) or 0.0) - (number(before.get(path[-1])) or 0.0)


def _histogram(model: Mapping[str, Any], name: str) -> Histogram:
    """Empty where it does not read."""
    raw = table(table(model.get("seconds")).get(name))
    bounds = [number(one) for one in listed(raw.get("bounds"))[:MOST_BUCKETS]]
    counts = [number(one) for one in listed(raw.get("counts"))[: MOST_BUCKETS + 1]]
    known = [one for one in bounds if one is not None]
    whole = [int(one) for one in counts if one is not None and one >= 0]
    if not known or len(whole) != len(known) + 1 or (len(known), len(whole)) != (len(bounds), len(counts)):
        return Histogram((), (), 0.0)
    return Histogram(known, whole, 0.0)


def _difference(before: Histogram, after: Histogram) -> Histogram | None:
    if before.bounds != after.bounds:
        return after if not before.bounds else None
    counts = [new - old for new, old in zip(after.counts, before.counts, strict=True)]
    return None if any(count < 0 for count in counts) else Histogram(after.bounds, counts, 0.0)


def _quantiles(found: Histogram) -> dict[str, float]:
    told = {name: found.quantile(share) for name, share in QUANTILES.items()} if found.bounds else {}
    return {name: value for name, value in told.items() if value is not None}

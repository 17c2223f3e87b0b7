"""What the server is, does and has seen, as one JSON object: what the page and `edgekit-runtime top` show. Pure.

Refuses nothing; it tells no request's content and no path."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgekit_runtime.histograms import Histogram
from edgekit_runtime.lane import Lane
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.metrics.models import MOST
from edgekit_runtime.tensors import TensorSpec
from edgekit_runtime.version import __version__

if TYPE_CHECKING:
    from edgekit_runtime.drift import FeatureState, State
    from edgekit_runtime.feedback import Quality

Json = dict[str, Any]
REQUESTS, REFUSED = "edgekit_http_requests_total", "edgekit_refused_total"


def server(host: str, started_ms: int, now_ms: int) -> Json:
    """Who tells it, and since when."""
    return {
        "name": "edgekit-runtime",
        "version": __version__,
        "host": host,
        "started_ms": started_ms,
        "now_ms": now_ms,
    }


def model(lane: Lane) -> Json:
    """A model as it is served: what it is, what the build proved, what it did."""
    served, stats, manifest = lane.served, lane.stats, lane.served.manifest
    said = {key: "" if manifest is None else getattr(manifest, key) for key in ("target", "precision", "format")}
    return {
        "name": served.name,
        "version": served.version,
        "engine": served.engine,
        **said,
        "paused": lane.paused,
        "loaded_ms": lane.loaded_ms,
        "takes": "tensors" if served.preprocess is None else served.preprocess.kind,
        "inputs": [_spec(spec) for spec in served.inputs],
        "outputs": [_spec(spec) for spec in served.outputs],
        "labels": len(served.labels),
        "evidence": evidence(manifest),
        "requests": _requests(lane),
        "samples": stats.inferences,
        "executions": stats.executions,
        "seconds": _seconds(lane),
        "batch": _histogram(stats.batch()),
        "drift": None,
        "unwatched": None,
        "quality": None,
        "shadow": None,
        "selftest": None,
        "exam": None,
    }


def brief(lanes: Iterable[Lane], counters: Json, started_ms: int) -> Json:
    """Of a status what changes with every request: of some of them the page draws the last minutes."""
    models = [
        {
            "name": lane.served.name,
            "version": lane.served.version,
            "loaded_ms": lane.loaded_ms,
            "requests": _requests(lane),
            "seconds": _seconds(lane),
        }
        for lane in lanes
    ]
    now_ms = time.time_ns() // 1_000_000
    return {"started_ms": started_ms, "now_ms": now_ms, "counters": counters, "models": models}


def evidence(manifest: Manifest | None) -> Json | None:
    """What the build measured on its data: the metric and its value, the drop and its 95 % interval, n samples."""
    quality = None if manifest is None else manifest.evidence.get("quality")
    if not isinstance(quality, Mapping):
        return None
    numbers = {key: _number(quality.get(key)) for key in ("value", "reference", "drop", "low", "high", "n")}
    return {"metric": str(quality.get("metric", ""))[:100], **numbers}


def drift(state: "State", since_ms: int | None, words: Sequence[str]) -> Json:
    """How far a model's inputs and answers are from those of the build; `words` are its labels."""
    return {
        "alarm": state.alarm,
        "since_ms": since_ms,
        "n": state.n,
        "features": [_feature(one, words) for one in state.features],
    }


def unwatched(manifest: Manifest | None, wished: bool) -> str | None:
    """Why nobody watches a model's drift; None where somebody does."""
    if manifest is None or manifest.baseline is None:
        return "no baseline"
    return None if wished else "switched off"


def quality(found: "Quality", built: Json | None) -> Json:
    """Accuracy in the field by the true labels that came back, beside the build's."""
    beside = None if built is None or built["metric"] != "top1" else {key: built[key] for key in ("value", "n")}
    return {**asdict(found), "built": beside}


def agreement(found: "Quality") -> Json:
    """How often the float model answered the same."""
    return {"n": found.n, "agreement": found.accuracy, "low": found.low, "high": found.high}


def counted(counts: Mapping[tuple[str, str], int], connections: int) -> Json:
    """The server's own counters, short."""
    every = {name: {label: n for (known, label), n in counts.items() if known == name} for name in (REQUESTS, REFUSED)}
    return {"requests": sum(every[REQUESTS].values()), "refused": every[REFUSED], "connections": connections}


def _requests(lane: Lane) -> Json:
    """What became of them."""
    stats = lane.stats
    return {
        "answered": stats.success.count,
        "failed": stats.fail.count,
        "rejected": stats.rejected,
        "late": stats.late,
        "cancelled": stats.cancelled,
        "waiting": lane.waiting,
    }


def _seconds(lane: Lane) -> Json:
    """How long they took."""
    times = {"request": lane.stats.success, "queue": lane.stats.queue, "compute": lane.stats.infer}
    return {name: _histogram(one.histogram()) for name, one in times.items()}


def _feature(one: "FeatureState", words: Sequence[str]) -> Json:
    told = asdict(one)
    told["labels"] = [_word(label, words) for label in one.labels]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}


def _word(label: str, words: Sequence[str]) -> str:
    """The model's own word for a class's number."""
    return words[int(label)] if label.isdecimal() and int(label) < len(words) else label


def _number(found: Any) -> float | None:
    """A bundle may say anything: NaN would be no JSON, and an integer of a thousand digits no number to a browser."""
    return found if isinstance(found, int | float) and -MOST < found < MOST else None


def _spec(spec: TensorSpec) -> Json:
    return {"name": spec.name, "datatype": spec.dtype, "shape": list(spec.shape)}


def _histogram(found: Histogram) -> Json:
    return {"bounds": list(found.bounds), "counts": list(found.counts), "sum": found.sum}

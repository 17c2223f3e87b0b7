"""What a long run found, as evidence: plain facts that go into the bundle's manifest, and back to whoever reads it.

Refuses nothing; what was not measured is null."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from edgekit_runtime.bundle import Bundle

from edgekit import joules
from edgekit.benching import Stretch
from edgekit.steadiness import Verdict, judge, others_cores
from edgekit.stretch import Begun, Interval

SHOWN = 60
"""Points of a series that evidence keeps; a run of more intervals is told by medians of neighbours."""


def facts(bundle: Bundle, found: Stretch) -> dict[str, Any]:
    """One entry of `evidence["measured"]`: where, with what, when, what it took, what the machine felt, the verdict."""
    rows, begun, manifest = found.rows, found.begun, bundle.manifest
    spent = joules.energy(begun, rows, found.options.device)
    n, ran = found.times.n, rows[-1].at
    quantiles = {f"p{share}_ms": _round(found.times.quantile(share / 100)) for share in (50, 90, 99)}
    engines, judged = found.machine.get("engines", {}), _judged(judge(begun, rows))
    threads = f"{found.options.threads} thread{'s' if found.options.threads != 1 else ''}"
    return {
        "words": f"{found.when[:10]}, {found.machine.get('model')}, {threads}: p50 {quantiles['p50_ms']:.4g}, "
        f"p99 {quantiles['p99_ms']:.4g} ms, n = {n:,}; {judged['verdict']}",
        "on": found.place, "machine": found.machine.get("model"), "arch": found.machine.get("arch"),
        "kernel": begun.kernel, "engine": manifest.engine, "engine_version": engines.get(manifest.engine),
        "device": found.options.device, "threads": found.options.threads, "batch": found.batch,
        "rate": found.course.rate, "when": found.when, "asked_s": found.course.seconds, "seconds": _round(ran),
        "ended": found.ended, "n": n, "intervals": len(rows), "missed": sum(row.missed for row in rows),
        "per_second": _round(n / ran), **quantiles, "max_ms": _round(max(row.max_ms for row in rows)),
        **{key: found.memory.get(key) for key in ("peak_mb", "engine_mb", "load_s", "first_s")},
        "temperature": _temperature(rows), "clock": _clock(begun, rows), "throttled": _throttled(begun, rows),
        "quiet": _quiet(begun, rows), "energy": None if spent is None else {
            "of": spent.of, "watts": _round(spent.watts), "idle_watts": _round(spent.idle_watts),
            "joules": _round(spent.joules), "words": spent.words,
        },
        "no_energy": joules.why_none(begun) if spent is None else None,
        **judged, "series": series(rows), "artifact": manifest.files[manifest.entry].sha256,
    }  # fmt: skip


def every_row(found: Stretch) -> list[dict[str, Any]]:
    """All intervals, for machines."""
    return [_row(found.begun, row) for row in found.rows]


def series(rows: Sequence[Interval]) -> dict[str, list[float | None]]:
    """At most `SHOWN` points of each: when, latency, the hottest sensor, the fastest clock."""
    groups = [list(group) for group in np.array_split(np.array(rows, object), min(len(rows), SHOWN))]
    of: dict[str, Callable[[Interval], float | None]] = {
        "at": lambda row: row.at, "p50_ms": lambda row: row.p50_ms, "p99_ms": lambda row: row.p99_ms,
        "hottest_c": lambda row: row.hottest, "clock_mhz": lambda row: row.mhz[1] if row.mhz else None,
    }  # fmt: skip
    return {name: [_middle(group, value) for group in groups] for name, value in of.items()}


def _middle(group: Sequence[Interval], of: Callable[[Interval], float | None]) -> float | None:
    found = [value for row in group if (value := of(row)) is not None]
    return _round(float(np.median(found))) if found else None


def _judged(verdict: Verdict) -> dict[str, Any]:
    told = {"before_ms": _round(verdict.before_ms), "after_ms": _round(verdict.after_ms)}
    return {
        "kind": verdict.kind, "verdict": verdict.words, "notes": list(verdict.notes), **told,
        "changed_s": None if verdict.after_s is None else _round(verdict.after_s),
    }  # fmt: skip


def _temperature(rows: Sequence[Interval]) -> dict[str, Any] | None:
    """Of the sensor that got the hottest: at first, at last and at most; and the most of each."""
    names = {name for row in rows for name in row.temperatures}
    most = {name: max(row.temperatures[name] for row in rows if name in row.temperatures) for name in sorted(names)}
    if not most:
        return None
    sensor = max(most, key=lambda name: most[name])
    seen = [row.temperatures[sensor] for row in rows if sensor in row.temperatures]
    return {"sensor": sensor, "first_c": seen[0], "last_c": seen[-1], "most_c": most[sensor], "each_c": most}


def _clock(begun: Begun, rows: Sequence[Interval]) -> dict[str, Any] | None:
    """The slowest and fastest that any core's clock was seen at, in MHz, and what governs them."""
    seen = [row.mhz for row in rows if row.mhz is not None]
    if not seen:
        return None
    could = max(begun.fastest.values(), default=None)
    return {
        "least_mhz": min(low for low, _ in seen), "most_mhz": max(high for _, high in seen),
        "could_mhz": None if could is None else could / 1e6, "governors": sorted(set(begun.governors.values())),
    }  # fmt: skip


def _throttled(begun: Begun, rows: Sequence[Interval]) -> dict[str, int] | None:
    """In how many intervals the machine told of each reason; None where it is not able to tell of any."""
    told = {reason for row in rows for reason in row.throttled}
    reasons = sorted(told | set(begun.reasons))
    return {reason: sum(reason in row.throttled for row in rows) for reason in reasons} if reasons else None


def _quiet(begun: Begun, rows: Sequence[Interval]) -> dict[str, float | None]:
    """How quiet the machine was: cores that this run and others took, what was stolen, the load."""
    ran = sum(row.seconds for row in rows)
    return {
        "cores": _round(sum(row.cpu_s for row in rows) / ran) if ran else None,
        "others_cores": _middle(rows, lambda row: others_cores(begun, row)),
        "stolen": _middle(rows, lambda row: row.stolen), "load": _middle(rows, lambda row: row.load),
        "cpus": begun.cpus,
    }  # fmt: skip


def _row(begun: Begun, row: Interval) -> dict[str, Any]:
    low, high = row.mhz or (None, None)
    others = others_cores(begun, row)
    return {
        "at": _round(row.at), "seconds": _round(row.seconds), "n": row.n, "missed": row.missed,
        "per_second": _round(row.n / row.seconds) if row.seconds else None,
        **{key: _round(getattr(row, key)) for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "cpu_s")},
        "hottest_c": row.hottest, "least_mhz": low, "most_mhz": high, "stolen": row.stolen, "load": row.load,
        "others_cores": None if others is None else _round(others),
        "resident_mb": None if row.resident is None else _round(row.resident / 1e6),
        "throttled": list(row.throttled), "temperatures": dict(row.temperatures), "power": dict(row.power),
        "gpus": [dict(gpu) for gpu in row.gpus],
    }  # fmt: skip


def _round(value: float) -> float:
    """Five digits: more than any clock is good for."""
    return float(f"{value:.5g}")


def earlier(evidence: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries that a bundle's evidence has already; what is none is left out."""
    found = evidence.get("measured")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []

"""What the server is to reach, each as a row: what was wanted, what was measured, reached or missed or not measured.

Refuses to call reached what was not measured."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.serving_peers import BARE, BENTOML, EDGEKIT, ENGINE, LITSERVE, MLSERVER, MLSERVER_INSIDE
from benchmarks.serving_peers.aside import MB, Growth, Health, Memory
from benchmarks.serving_peers.rounds import CONNECTIONS, Measured, Ratio

REACHED, MISSED, UNKNOWN, TOLD = "reached", "missed", "not measured", ""
ENOUGH = 100_000
HEALTH_MS = 5.0
"""A tenth of the slow model's run: a health check that waited for it would take ten times that."""


@dataclass(frozen=True)
class Goal:
    """A row: `verdict` is empty where nothing is asked and the number is only told."""

    what: str
    wanted: str
    found: str
    verdict: str


def speed(mlp: Measured) -> Iterator[Goal]:
    """Ratios of requests a second on the small model."""
    rows = (
        ("binary", BARE, "binary", 0.75, True),
        ("json", MLSERVER, "json", 5.0, True),
        ("json", MLSERVER_INSIDE, "json", 5.0, False),
        ("json", LITSERVE, "json", 10.0, True),
        ("json", BENTOML, "json", 10.0, True),
        ("grpc", MLSERVER, "grpc", 2.0, True),
        ("grpc", MLSERVER_INSIDE, "grpc", 2.0, False),
    )
    for form, other, theirs, least, asked in rows:
        for count in CONNECTIONS:
            pair = (EDGEKIT, form, count), (other, theirs, count)
            row = _at_least(f"MLP, {_form(form)}, {count} conn: EdgeKit / {other}", mlp.rates(*pair), least, asked)
            work = mlp.work(*pair)
            yield row if work is None else replace(row, found=f"{row.found}; by CPU time {work.median:.2f}")


def large(lite: Measured) -> Iterator[Goal]:
    """The large model: the engine's own throughput, and JSON beside binary."""
    for count in CONNECTIONS:
        ratio = lite.rates((EDGEKIT, "binary", count), (ENGINE, "in process", count))
        yield _at_least(f"Lite0, binary, {count} conn: EdgeKit / bare engine", ratio, 0.95, count > 1)
    ratio = lite.times((EDGEKIT, "json", 1), (EDGEKIT, "binary", 1))
    verdict = UNKNOWN if ratio is None else REACHED if ratio.median <= 3 else MISSED
    yield Goal("1x3x224x224, 1 conn: time of JSON / of binary", "<= 3", _words(ratio), verdict)


def start(title: str, pairs: list[tuple[float, float]]) -> Goal:
    """The first answer."""
    more = [ours - engine for ours, engine in pairs]
    middle, ours, engine = (statistics.median(x) for x in (more, [a for a, _ in pairs], [b for _, b in pairs]))
    found = f"{middle:+.0f} ms [{min(more):+.0f}, {max(more):+.0f}] ({ours:.0f} - {engine:.0f}; {len(pairs)} rounds)"
    return Goal(f"{title}: first answer - bare engine's", "<= 300 ms", found, REACHED if middle <= 300 else MISSED)


def resident(memory: Memory) -> Iterator[Goal]:
    """Memory before the engine, and, only told, with it."""
    if memory.before is None:
        found, verdict = "this serve has no --repository to start without a bundle", UNKNOWN
    else:
        more = (memory.before - memory.numpy) / MB
        found = f"{more:+.1f} MB ({memory.before / MB:.1f} - {memory.numpy / MB:.1f})"
        verdict = REACHED if more <= 25 else MISSED
    yield Goal("RSS of the server before the engine - of `import numpy`", "<= 25 MB", found, verdict)
    more = (memory.serving - memory.engine) / MB
    found = f"{more:+.1f} MB ({memory.serving / MB:.1f} - {memory.engine / MB:.1f})"
    yield Goal("RSS of the server with the MLP - of the bare engine with it", "", found, TOLD)


def growth(one: Growth) -> Goal:
    """Memory over many requests: less than 1 MB over all but the first fifth of them."""
    found = f"{one.grown / MB:+.2f} MB, {one.slope:+.2f} bytes a request (n = {one.requests:,})"
    if one.requests < ENOUGH:
        return Goal("RSS over many requests", "< 1 MB", f"{found}: too few to tell", UNKNOWN)
    return Goal("RSS over many requests", "< 1 MB", found, REACHED if one.grown < MB else MISSED)


def health(one: Health) -> Iterator[Goal]:
    """Health, and another model, beside a busy one."""
    busy = f"under 8 connections of a {one.slow_ms:.0f} ms model"
    verdict = REACHED if one.loaded.p99 <= HEALTH_MS else MISSED
    found = f"{one.loaded.p99:.2f} ms (idle {one.idle.p99:.2f}; n = {one.loaded.requests:,})"
    yield Goal(f"p99 of /v2/health/ready {busy}", f"<= {HEALTH_MS:g} ms", found, verdict)
    found = f"{one.other_loaded.p99:.2f} ms (idle {one.other_idle.p99:.2f}; n = {one.other_loaded.requests:,})"
    yield Goal(f"p99 of the MLP {busy}", "", found, TOLD)


def _at_least(what: str, ratio: Ratio | None, least: float, asked: bool) -> Goal:
    wanted = f">= {least:g}" if asked else ""
    if not asked:
        return Goal(what, wanted, _words(ratio), TOLD)
    return Goal(what, wanted, _words(ratio), UNKNOWN if ratio is None else REACHED if ratio.median >= least else MISSED)


def _words(ratio: Ratio | None) -> str:
    if ratio is None:
        return "one of the two is absent"
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] ({ratio.rounds} rounds)"


def _form(form: str) -> str:
    return {"json": "JSON", "grpc": "gRPC"}.get(form, form)

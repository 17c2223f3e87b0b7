"""A server's state as lines for a terminal: each model, the machine, what went wrong. Pure.

Refuses nothing: what the server does not tell, or tells in another shape, is not shown."""

from collections.abc import Iterable, Mapping
from typing import Any

from edgekit_runtime.top_rates import Look, Now, key, listed, models, number, table
from edgekit_runtime.top_words import Line, Piece, bar, bins, cells, clipped, clock, percent, row, size, span, words
from edgekit_runtime.top_words import Look as Shown
from edgekit_runtime.top_words import seconds as took

SHARES = ("accuracy", "top1", "top5", "agreement")
WARM, HOT = 70, 80
FULL = 0.9
FEATURES, ERRORS, PAST = 3, 5, 3
LONGEST_NAME = 20
OUTCOMES = ("answered", "failed", "rejected", "late", "cancelled", "waiting")
TROUBLE = ("failed", "rejected", "late")
SLOWED = {
    "undervoltage": "supply voltage too low",
    "overcurrent": "too much current",
    "frequency_capped": "clock capped",
    "throttled": "clock slowed",
    "temperature": "too hot",
    "power": "power limit",
}


def picture(look: Look, now: Mapping[tuple[str, ...], Now], place: str, shown: Shown) -> list[Line]:
    """All lines, none wider than `shown.columns`."""
    status = look.status
    lines = [*_head(status, place, shown), *_machine(table(status.get("machine")), shown), *_server(status, shown)]
    for model in models(look):
        lines += [[], *_model(model, now[key(model)], number(status.get("now_ms")), shown)]
    if not models(look):
        lines += [[], *row("", [("no models are loaded", "yellow")], shown, 0)]
    errors = [one for one in listed(status.get("errors")) if isinstance(one, dict)][-ERRORS:]
    lines += [[], [("last errors", "bold")]] if errors else []
    for one in errors:
        times = number(one.get("times")) or 1
        what = words(one.get("what")) + (f" ({times:.0f} times)" if times > 1 else "")
        lines += row(clock(number(one.get("when_ms"))), _split(what, shown), shown)
    past = [one for one in listed(status.get("history")) if isinstance(one, dict)][-PAST:]
    lines += [[], [("history", "bold")]] if past else []
    for one in past:
        what = " ".join(filter(None, (words(one.get(part)) for part in ("what", "model", "version", "why"))))
        lines += row(clock(number(one.get("when_ms"))), [(what, "")], shown)
    return lines


def _head(status: Mapping[str, Any], place: str, shown: Shown) -> list[Line]:
    began, ended = number(status.get("started_ms")), number(status.get("now_ms"))
    up = "" if began is None or ended is None else f"up {span((ended - began) / 1000)}"
    title = f"{words(status.get('name'))} {words(status.get('version'))} on {words(status.get('host')) or '?'}"
    line = [(clipped(title, shown.columns, shown), "bold")]
    return [line, *row("", [(clock(ended), ""), (up, ""), (words(place), "dim")], shown, 2)]


def _machine(machine: Mapping[str, Any], shown: Shown) -> list[Line]:
    told = {name: number(value) for name, value in machine.items()}
    parts: list[Piece] = []
    busy, cpus = told.get("cpu"), told.get("cpus")
    if busy is not None:
        of = "" if cpus is None else f" of {cpus:.0f}"
        parts.append((f"cpu {bar(busy, shown)} {busy * 100:.0f} %{of}", "yellow" if busy > FULL else ""))
    hottest = max(_numbers(machine.get("temperatures")), key=lambda one: one[1], default=None)
    if hottest is not None:
        style = "red" if hottest[1] >= HOT else "yellow" if hottest[1] >= WARM else ""
        parts.append((f"{hottest[1]:.1f} C {words(hottest[0])}", style))
    slowed = [words(one) for one in listed(machine.get("throttled"))[:8]]
    if slowed:
        parts.append((f"THROTTLED: {', '.join(SLOWED.get(one, one) for one in slowed)}", "red"))
    elif listed(machine.get("reasons")):
        parts.append(("not throttled", ""))
    clocks = [value for _, value in _numbers(machine.get("frequencies"))]
    parts += [(f"{max(clocks) / 1e9:.2f} GHz", "")] if clocks else []
    for name, total, free in (("memory", "memory_total", "memory_available"), ("disk", "disk_total", "disk_free")):
        whole, rest = told.get(total), told.get(free)
        if whole and rest is not None:
            parts.append((f"{name} {size(whole - rest)} of {size(whole)}", "red" if rest < whole * (1 - FULL) else ""))
    if (held := told.get("resident")) is not None:
        parts.append((f"server {size(held)}", ""))
    parts += [(f"{watts:.1f} W {words(name)}", "") for name, watts in _numbers(machine.get("power"))[:4]]
    lines = row("machine", parts, shown)
    for index, gpu in enumerate(listed(machine.get("gpus"))[:8]):
        lines += row(f"gpu {index}", _gpu(table(gpu)), shown)
    return lines


def _gpu(gpu: Mapping[str, Any]) -> Iterable[Piece]:
    told = {name: number(value) for name, value in gpu.items()}
    yield words(gpu.get("name")), ""
    if (busy := told.get("utilization")) is not None:
        yield f"{busy * 100:.0f} %", ""
    used, total = told.get("memory_used"), told.get("memory_total")
    if used is not None and total is not None:
        yield f"{size(used)} of {size(total)}", ""
    if (hot := told.get("temperature")) is not None:
        yield f"{hot:.0f} C", "red" if hot >= HOT else ""
    if (watts := told.get("power")) is not None:
        yield f"{watts:.1f} W", ""


def _server(status: Mapping[str, Any], shown: Shown) -> list[Line]:
    counters = table(status.get("counters"))
    parts = [(f"{count:,.0f} {name}", "") for name, count in _numbers(counters) if name in ("requests", "connections")]
    refused = [(words(name), count) for name, count in _numbers(counters.get("refused")) if count]
    parts += [(f"{count:,.0f} {name}", "yellow") for name, count in sorted(refused, key=lambda one: -one[1])[:6]]
    return row("server", parts, shown)


def _model(model: Mapping[str, Any], now: Now, at: float | None, shown: Shown) -> list[Line]:
    about = " ".join(filter(None, (words(model.get(one)) for one in ("engine", "precision", "target"))))
    state = "PAUSED" if model.get("paused") is True else ""
    title = f"{words(model.get('name'))} {words(model.get('version'))}"
    lines = row("", [(title, "bold"), (about, ""), (state, "yellow")], shown, 0)
    lines += row("  now", _now(now), shown)
    counts = table(model.get("requests"))
    told = ((name, number(counts.get(name))) for name in OUTCOMES)
    parts = [(f"{count:,.0f} {name}", "yellow" if count and name in TROUBLE else "")
             for name, count in told if count is not None]  # fmt: skip
    lines += row("  so far", parts, shown)
    lines += row("  built", _evidence(table(model.get("evidence"))), shown)
    lines += row("  field", _field(model), shown)
    tested = table(model.get("selftest"))
    if tested:
        passed, when = tested.get("passed") is True, number(tested.get("when_ms"))
        ago = "" if when is None or at is None else f"{span((at - when) / 1000)} ago"
        lines += row("  tested", [("passed" if passed else "FAILED", "" if passed else "red"), (ago, "")], shown)
    return lines + _drift(table(model.get("drift")), at, shown)


def _now(now: Now) -> Iterable[Piece]:
    yield f"{now.per_second:,.3g} requests/s" if now.per_second < 999.5 else f"{now.per_second:,.0f} requests/s", "bold"
    for name, value in now.request.items():
        yield f"{name} {'>' if value >= now.beyond else ''}{took(value)}", ""
    for name, times in (("queue", now.queue), ("compute", now.compute)):
        if "p50" in times:
            yield f"{name} p50 {took(times['p50'])}", ""
    if now.rows is not None and now.rows > 1:
        yield f"{now.rows:.1f} samples a run", ""
    if now.failed:
        yield f"{now.failed} failed", "red"
    yield "since it was loaded" if now.whole else f"over {span(now.seconds + 0.5)}", "dim"


def _evidence(found: Mapping[str, Any]) -> Iterable[Piece]:
    metric, told = words(found.get("metric")), {name: number(value) for name, value in found.items()}
    share = metric in SHARES
    if (value := told.get("value")) is not None:
        yield f"{metric} {percent(value) if share else f'{value:.4g}'}", ""
    if (drop := told.get("drop")) is not None:
        low, high = told.get("low"), told.get("high")
        each = 100 if share else 1
        between = "" if low is None or high is None else f" ({low * each:+.3g} to {high * each:+.3g})"
        yield f"drop {drop * each:+.3g}{' pt' if share else ''}{between}", ""
    if (count := told.get("n")) is not None:
        yield f"on {count:,.0f} samples", "dim"


def _field(model: Mapping[str, Any]) -> Iterable[Piece]:
    for name, part, said in (("quality", "accuracy", "accuracy"), ("shadow", "agreement", "float model agrees")):
        found = {one: number(value) for one, value in table(model.get(name)).items()}
        value, low, high, count = (found.get(one) for one in (part, "low", "high", "n"))
        if value is None or not count:
            continue
        between = "" if low is None or high is None else f" ({percent(low)} to {percent(high)})"
        yield f"{said} {percent(value)}{between} of {count:,.0f}", ""


def _drift(drift: Mapping[str, Any], at: float | None, shown: Shown) -> list[Line]:
    if not drift:
        return []
    alarm, since = drift.get("alarm") is True, number(drift.get("since_ms"))
    ago = f" since {span((at - since) / 1000)}" if alarm and at is not None and since is not None else ""
    count = number(drift.get("n"))
    parts = [(f"ALARM{ago}" if alarm else "none", "red" if alarm else "green")]
    lines = row("  drift", [*parts, ("" if count is None else f"{count:,.0f} samples seen", "")], shown)
    features = [table(one) for one in listed(drift.get("features"))[:1000]]
    worst = sorted(features, key=_against, reverse=True)[:FEATURES]
    names = [clipped(words(one.get("name")), LONGEST_NAME, shown) for one in worst]
    width = max(map(cells, names), default=0)
    for feature, name in zip(worst, names, strict=True):
        distance, limit, psi = (number(feature.get(one)) for one in ("ks", "limit", "psi"))
        if distance is None or limit is None:
            continue
        was, is_now = (bins(_shares(feature.get(one)), shown) for one in ("baseline", "now"))
        loud = feature.get("alarm") is True
        parts = [
            (name + " " * (width - cells(name)), "red" if loud else ""),
            (f"|{was}| now |{is_now}|" if was and is_now else "", ""),
            (f"distance {distance:.2f}{' > ' if distance > limit else ' of '}{limit:.2f}", "red" if loud else ""),
            ("" if psi is None else f"PSI {psi:.2f}", "dim"),
        ]
        lines += row("", parts, shown, 4)
    return lines


def _against(feature: Mapping[str, Any]) -> float:
    """How much a feature speaks for a drift."""
    distance, limit = number(feature.get("ks")) or 0.0, number(feature.get("limit")) or 0.0
    return distance / limit if limit > 0 else distance


def _shares(value: object) -> list[float]:
    return [number(one) or 0.0 for one in listed(value)[:256]]


def _numbers(value: object) -> list[tuple[str, float]]:
    return [(str(name), made) for name, one in list(table(value).items())[:100] if (made := number(one)) is not None]


def _split(text: str, shown: Shown) -> list[Piece]:
    """A sentence as pieces that wrap between its words."""
    import textwrap

    lines = textwrap.wrap(text, max(10, shown.columns - 12), max_lines=4, placeholder=shown.ellipsis)
    return [(line, "") for line in lines]

"""What a person reads of a long run: a line an interval while it runs, then what it came to. Lines of text.

Refuses nothing; what the machine does not tell is a dash."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekit.stretch import Begun, Interval

BARS = "▁▂▃▄▅▆▇█"
HEAD = (
    ("time", 7), ("runs", 8), ("p50", 9), ("p90", 9), ("p99", 9), ("max", 9), ("a second", 9), ("hottest", 9),
    ("clock MHz", 11), ("power", 8),
)  # fmt: skip
Facts = Mapping[str, Any]


def header() -> str:
    """Over the lines of the intervals."""
    return "".join(f"{name:>{wide}}" for name, wide in HEAD)


def line(begun: Begun, row: Interval) -> str:
    """One interval; what the machine says of throttling at its end."""
    low, high = row.mhz or (None, None)
    clock = "-" if low is None or high is None else f"{low:.0f}-{high:.0f}" if high > low else f"{high:.0f}"
    watts = max(row.power.values(), default=None)
    cells = (
        f"{row.at:.{int(row.seconds < 0.95)}f} s", f"{row.n:,}",
        *(ms(value) for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.max_ms)),
        f"{row.n / row.seconds:,.1f}" if row.seconds > 0 else "-",
        "-" if row.hottest is None else f"{row.hottest:.0f} °C", clock, "-" if watts is None else f"{watts:.2f} W",
    )  # fmt: skip
    told = "".join(f"{cell:>{wide}}" for cell, (_, wide) in zip(cells, HEAD, strict=True))
    said = [*row.throttled, *([f"{row.missed:,} starts missed"] if row.missed else [])]
    return f"{told}  {', '.join(said)}".rstrip()


def ms(value: float) -> str:
    """Milliseconds as they are read best."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def spark(values: Sequence[float | None], wide: int = 40) -> str:
    """A series as a row of small bars from its least to its most; a gap where nothing is known."""
    if len(values) > wide:
        values = [values[int(place * len(values) / wide)] for place in range(wide)]
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    # what moves by less than a hundredth is drawn flat: bars that fill the row would show noise as if it were a change
    flat = span <= 0.01 * abs(max(known))
    top = len(BARS) - 1
    bars = (" " if one is None else BARS[0] if flat else BARS[round((one - low) / span * top)] for one in values)
    return "".join(bars)


def where(facts: Facts) -> str:
    """On what it ran."""
    engine = f"{facts['engine']} {facts['engine_version'] or ''}".strip()
    machine = f"{facts['machine'] or 'a machine'}, {facts['arch']}, Linux {facts['kernel']}"
    return f"on {facts['on']} ({machine}), {engine}"


def summary(facts: Facts) -> Iterator[str]:
    """What a run came to."""
    threads = f"{facts['threads']} thread{'s' if facts['threads'] != 1 else ''}"
    device = "" if facts["device"] == "cpu" else f" on {facts['device']}"
    batch = "" if facts["batch"] in (None, 1) else f", batch {facts['batch']}"
    pace = "back to back" if facts["rate"] is None else f"at {facts['rate']:g} a second"
    yield (
        f"{threads}{device}{batch}, {pace}: n = {facts['n']:,} in {facts['seconds']:.3g} s "
        f"({facts['per_second']:,.4g} a second)"
    )
    if facts["ended"]:
        yield f"  NOT WHOLE  {facts['ended']}, after {facts['seconds']:.3g} of {facts['asked_s']:g} s"
    times = "  ".join(f"{name} {ms(facts[f'{name}_ms'])}" for name in ("p50", "p90", "p99", "max"))
    yield f"  latency    {times} ms"
    yield from _series(facts)
    yield f"  energy     {facts['energy']['words'] if facts['energy'] else facts['no_energy']}"
    yield f"  memory     peak {facts['peak_mb']:.0f} MB in a fresh process, opened in {facts['load_s']:.3g} s"
    yield f"  machine    {quiet(facts['quiet'])}"
    yield f"  verdict    {facts['verdict']}"
    for note in facts["notes"]:
        yield f"  note       {note}"


def _series(facts: Facts) -> Iterator[str]:
    """Latency, temperature and clock over time, under each other: what falls when another rises is seen."""
    series, heat, clock = facts["series"], facts["temperature"], facts["clock"]
    p50 = [value for value in series["p50_ms"] if value is not None]
    yield f"  p50        {spark(series['p50_ms'])}  {ms(min(p50))} to {ms(max(p50))} ms"
    if heat:
        told = f"{heat['first_c']:.0f} to {heat['most_c']:.0f} °C ({heat['sensor']})"
        yield f"  hottest    {spark(series['hottest_c'])}  {told}"
    if clock:
        rule = f", governor {', '.join(clock['governors'])}" if clock["governors"] else ""
        could = "" if clock["could_mhz"] is None else f" of {clock['could_mhz']:.0f}"
        told = f"{clock['least_mhz']:.0f} to {clock['most_mhz']:.0f}{could} MHz{rule}"
        yield f"  clock      {spark(series['clock_mhz'])}  {told}"
    missing = [word for word, found in (("temperature", heat), ("clock", clock)) if not found]
    missing += [] if facts["throttled"] is not None else ["throttling"]
    if missing:
        yield f"  no sensor  of {', '.join(missing)} on this machine"


def quiet(facts: Facts) -> str:
    """How much else the machine had to do."""
    if facts["cores"] is None:
        return "not known"
    words = [f"{facts['cores']:.2f} cores of {facts['cpus'] or '?'} used"]
    words += [] if facts["others_cores"] is None else [f"{facts['others_cores']:.2f} by others"]
    words += [] if facts["load"] is None else [f"load {facts['load']:.2f}"]
    words += [f"{facts['stolen'] * 100:.1f} % stolen"] if facts["stolen"] else []
    return ", ".join(words)

"""What `edgekit build` chose beside what each tool's own default makes of the same model: latency and loss, in one run.

`python benchmarks/build.py [MODEL ...] [--samples N] [--seconds S] [--no-olive] [--json FILE]`. Refuses a model that it
does not know. One thread, batch 1; ratios are medians of rounds in which the files of a format take turns."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import numpy as np
from edgekit_runtime.tensors import Array
from scipy import stats

from benchmarks.defaults import DEFAULTS, OLIVE
from benchmarks.defaults.making import Absent, Entry, built, default, knows, untold
from benchmarks.defaults.models import MODELS, Case, case
from edgekit.plan import ENGINE_TITLES
from edgekit.timing import Latency, interleaved

TARGET = "x86-64-v4"
OURS, FLOAT = "edgekit build", "float"


@dataclass(frozen=True)
class Row:
    """A file measured: ms from floats to floats and the ratio to the float file of its format (`rounds` of them);
    `bare_ms`, the engine alone, where the file's input is integer; points lost with their paired 95 % interval on
    `n` samples, bytes, whether the upper bound is within the budget."""

    title: str
    format: str
    ms: float
    ratio: float
    bare_ms: float | None
    rounds: int
    drop: float
    low: float
    high: float
    n: int
    bytes: int
    meets: bool


@click.command()
@click.argument("models", nargs=-1, type=click.Choice(MODELS))
@click.option("--samples", type=int, metavar="N", help="Judge on at most N samples.")
@click.option("--seconds", type=float, default=4.0, show_default=True, help="How long each format is timed.")
@click.option("--target", default=TARGET, show_default=True, help="What `edgekit build` builds for.")
@click.option("--no-olive", is_flag=True, help="Leave out Olive, which needs 1.4 GB of its own.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write all numbers there.")
def main(
    models: Sequence[str], samples: int | None, seconds: float, target: str, no_olive: bool, file: Path | None
) -> None:
    """Compare for each of MODELS; all four without any."""
    told = []
    for name in models or MODELS:
        _tell(f"--- {name}")
        told.append(_compare(case(name, samples), seconds, target, no_olive))
        if file is not None:
            file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _compare(this: Case, seconds: float, target: str, no_olive: bool) -> dict[str, object]:
    """One model: make all files, measure them, print the table."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        files = [file for format in ENGINE_TITLES for file in _of_format(this, format, target, no_olive, Path(scratch))]
        pick = built(this, OURS, _wishes(this, target), Path(scratch) / "pick")
        absent = [file for file in files if isinstance(file, Absent)]
        entries = [file for file in files if isinstance(file, Entry)]
        rows = [
            row
            for format in ENGINE_TITLES
            for row in _measured(this, [e for e in entries if e.format == format], seconds)
        ]
        _show(this, rows, absent)
        last = _duel(this, pick, entries, rows, seconds)
    click.echo(f"{last['words']}\n")
    return {
        "model": this.name,
        "n": len(this.evaluation),
        "judged_by": "agreement with float" if this.labels is None else "top1",
        "budget_points": this.budget,
        "rows": [asdict(row) for row in rows],
        "absent": [asdict(one) for one in absent],
        "pick": last,
    }


def _wishes(this: Case, target: str) -> list[str]:
    best = ["--best"] if knows("--best") else []
    return ["--target", target, "--max-drop", f"{this.budget:g}pt", *best]


def _of_format(this: Case, format: str, target: str, no_olive: bool, scratch: Path) -> list[Entry | Absent]:
    """The float file first, EdgeKit's pick, the tools' defaults."""
    words = ["--format", format]
    plain = ["--target", target, "--precision", "float32", *words]
    source = built(this, FLOAT, plain, scratch / f"{format}-float")
    if isinstance(source, Absent):
        return [source]
    found: list[Entry | Absent] = [source, built(this, OURS, [*_wishes(this, target), *words], scratch / format)]
    if (options := untold(format)) != source.options:
        found.append(replace(source, title=f"float, default hint ({options.precision})", options=options))
    for one in DEFAULTS:
        if one.format == format and not (no_olive and one.title == OLIVE):
            found.append(default(one, source, this.calibration, _tell))
    return found


def _measured(this: Case, entries: Sequence[Entry], seconds: float) -> list[Row]:
    """All files of one format, the float one first."""
    if not entries:
        return []
    answers = []
    for entry in entries:
        _tell(f"scoring {ENGINE_TITLES[entry.format]}: {entry.title}")
        answers.append(entry.scores(this.evaluation))
    wanted = answers[0].argmax(1) if this.labels is None else this.labels
    right = [answer.argmax(1) == wanted for answer in answers]
    _tell(f"timing {ENGINE_TITLES[entries[0].format]}")
    found = _timed(this, entries, seconds)
    return [_row(this, *one, right[0]) for one in zip(entries, found, right, strict=True)]


def _timed(this: Case, entries: Sequence[Entry], seconds: float) -> list[tuple[Latency, float | None]]:
    """All in turn: each with its ratio to the first, and the ms of the engine alone where floats are rounded for it."""
    sample = this.evaluation[:1]
    runners = {f"{i}": entry.timed(sample) for i, entry in enumerate(entries)}
    bare = {f"{i} bare": entry.timed(sample, bare=True) for i, entry in enumerate(entries) if entry.integers}
    found = interleaved(runners | bare, {}, seconds)
    return [(found[f"{i}"], found[f"{i} bare"].median_ms if f"{i} bare" in bare else None) for i in range(len(entries))]


def _row(this: Case, entry: Entry, timed: tuple[Latency, float | None], right: Array, before: Array) -> Row:
    (taken, bare), (drop, low, high) = timed, _loss(before, right)
    return Row(
        entry.title, entry.format, taken.median_ms, taken.ratio, bare, taken.n, drop, low, high, len(right),
        entry.size(), high <= this.budget,
    )  # fmt: skip


def _loss(before: Array, after: Array) -> tuple[float, float, float]:
    """Points lost and their 95 % interval: Agresti and Min (2005), for paired shares. Not EdgeKit's own code."""
    n, lost, won = len(before), int((before & ~after).sum()), int((~before & after).sum())
    centre = (lost - won) / (n + 2)
    half = stats.norm.ppf(0.975) * np.sqrt(((lost + won + 1) / (n + 2) - centre**2) / (n + 2))
    return 100 * (lost - won) / n, 100 * float(centre - half), 100 * float(centre + half)


def _duel(
    this: Case, pick: Entry | Absent, entries: Sequence[Entry], rows: Sequence[Row], seconds: float
) -> dict[str, object]:
    """EdgeKit's pick for this machine and the fastest of all others within the budget, in turn."""
    if isinstance(pick, Absent):
        return {"words": f"EdgeKit's pick: none, {pick.why}", "ratio": None}
    others = [(row.ms, entry) for row, entry in zip(rows, entries, strict=True) if row.meets and OURS not in row.title]
    if not others:
        return {"words": "nothing else meets the budget", "ratio": None}
    _, best = min(others, key=lambda one: one[0])
    _tell("timing the pick against the best of the others")
    (other_taken, bare), (taken, _) = _timed(this, [best, pick], seconds)
    chosen, other = (f"{ENGINE_TITLES[one.format]}, {one.title}" for one in (pick, best))
    words = (
        f"EdgeKit's pick ({chosen}: {taken.median_ms:.3f} ms) takes {taken.ratio:.2f} of the time of the best of the "
        f"others within {this.budget:g}pt ({other}: {other_taken.median_ms:.3f} ms{_alone(bare)})"
    )
    return {"words": words, "ratio": taken.ratio, "pick": chosen, "best": other, "best_bare_ms": bare}


def _show(this: Case, rows: Sequence[Row], absent: Sequence[Absent]) -> None:
    judged = "agreement with float" if this.labels is None else "top-1"
    click.echo(f"{this.name}: {judged}, n = {len(this.evaluation):,}; batch 1, one thread")
    meets = f"meets {this.budget:g}pt"
    click.echo(f"{'':<13} {'':<34} {'ms':>8} {'/ float':>8} {'kB':>8} {'drop [95 %], points':>24}  {meets}")
    for format, title in ENGINE_TITLES.items():
        for row in (row for row in rows if row.format == format):
            drop = f"{row.drop:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
            click.echo(
                f"{title:<13} {row.title:<34} {row.ms:8.3f} {row.ratio:8.2f} {row.bytes / 1e3:8,.0f} {drop:>24}  "
                f"{'yes' if row.meets else 'no'}{_alone(row.bare_ms)}"
            )
        for one in (one for one in absent if one.format == format):
            click.echo(f"{title:<13} {one.title:<34} {one.why}")


def _alone(bare: float | None) -> str:
    return "" if bare is None else f"; {bare:.3f} ms without rounding floats for it"


def _tell(words: str) -> None:
    click.echo(words, err=True)


if __name__ == "__main__":
    main()

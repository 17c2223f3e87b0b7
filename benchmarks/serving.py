"""EdgeKit's server beside a bare protocol, uvicorn, MLServer, LitServe and BentoML, all in one run; and its targets.

`python benchmarks/serving.py [--quick] [--million] [--only PART ...] [--json FILE]`. Refuses to go on after a wrong
answer, whoever gave it. Everybody runs ONNX Runtime with one thread; a round is one short load of each in turn; ratios
are medians of the rounds' ratios, with the least and the most. Needs an otherwise idle machine to mean much."""

import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from rich.console import Console
from rich.table import Table

from benchmarks.load import Told, Wrong
from benchmarks.serving_peers import BARE, ENGINE, PEERS, UVICORN, aside, goals, models
from benchmarks.serving_peers.rounds import Measured, measure

PARTS = ("mlp", "lite0", "start", "memory", "growth", "health")
STYLES = {goals.REACHED: "green", goals.MISSED: "bold red", goals.UNKNOWN: "yellow"}
IDLE = 0.5
GRPC = "gRPC's client is grpc's own, a thread and a channel for each connection, the same for all"

out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float
    starts: int
    requests: int
    watch: float


@dataclass
class Facts:
    """What the run found: rows for the table of targets, and all numbers."""

    rows: list[goals.Goal] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


@click.command()
@click.option("--rounds", type=int, default=9, show_default=True, help="How often everybody has a turn.")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="How long a turn lasts.")
@click.option("--million", is_flag=True, help="Watch memory over a million requests, not 100,000.")
@click.option("--quick", is_flag=True, help="A short run: to see that it works, not how fast.")
@click.option("--only", "parts", multiple=True, type=click.Choice(PARTS), help="Measure this part alone; repeatable.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write all numbers there.")
def main(rounds: int, seconds: float, million: bool, quick: bool, parts: Sequence[str], file: Path | None) -> None:
    """Measure, print both tables."""
    requests = 1_000_000 if million else 100_000
    size = Size(2, 0.3, 2, 9_000, 2.0) if quick else Size(rounds, seconds, 7, requests, 10.0)
    facts, doubts = Facts(numbers={"machine": _machine(), "size": asdict(size)}), _doubts(quick)
    facts.numbers["doubts"] = doubts
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        try:
            for part in parts or PARTS:
                PART[part](facts, size, Path(scratch))
        except Wrong as error:
            raise click.ClickException(f"wrong answer: {error}") from error
    _show_goals(facts.rows, doubts)
    if file is not None:
        told = {**facts.numbers, "goals": [asdict(goal) for goal in facts.rows]}
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _mlp(facts: Facts, size: Size, scratch: Path) -> None:
    model = models.mlp()
    found = measure(model, PEERS, size.rounds, size.seconds, scratch, _tell)
    _show(model, found, facts)
    facts.rows += goals.speed(found)


def _lite0(facts: Facts, size: Size, scratch: Path) -> None:
    model = models.lite0(_tell)
    peers = [one for one in PEERS if one.title in (BARE, UVICORN)]
    found = measure(model, peers, size.rounds, size.seconds, scratch, _tell)
    _show(model, found, facts)
    facts.rows += goals.large(found)


def _start(facts: Facts, size: Size, scratch: Path) -> None:
    for model in (models.mlp(), models.lite0(_tell)):
        _tell(f"{model.title}: first answers")
        pairs = aside.first_answers(model, scratch, size.starts)
        facts.numbers[f"first answers of {model.name}, ms"] = pairs
        facts.rows.append(goals.start(model.title, pairs))


def _memory(facts: Facts, size: Size, scratch: Path) -> None:
    found = aside.memory(models.mlp(), scratch)
    facts.numbers["resident bytes"] = asdict(found)
    facts.rows += goals.resident(found)


def _growth(facts: Facts, size: Size, scratch: Path) -> None:
    _tell(f"memory over {size.requests:,} requests")
    found = aside.growth(models.mlp(), scratch, size.requests)
    facts.numbers["growth"] = asdict(found)
    facts.rows.append(goals.growth(found))


def _health(facts: Facts, size: Size, scratch: Path) -> None:
    _tell("health under load")
    found = aside.health(models.slow(), models.mlp(), scratch, size.watch)
    facts.numbers["health"] = asdict(found)
    facts.rows += goals.health(found)


PART: dict[str, Callable[[Facts, Size, Path], None]] = {
    "mlp": _mlp, "lite0": _lite0, "start": _start, "memory": _memory, "growth": _growth, "health": _health,
}  # fmt: skip


def table(title: str, found: Measured) -> Table:
    """Who, how, how fast: medians of the rounds."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    made.add_column("", no_wrap=True)
    for name in ("form", "conn", "requests/s", r"\[least, most]", "p50 ms", "p99 ms", "CPU us", "n"):
        made.add_column(name, justify="left" if name == "form" else "right", no_wrap=True)
    for (who, form, count), told in found.cells.items():
        rates, conn = [one.rate for one in told], "" if who == ENGINE else str(count)
        cpu = f"{statistics.median(found.cpu[who, form, count]):,.0f}" if (who, form, count) in found.cpu else ""
        made.add_row(
            who, form, conn, f"{statistics.median(rates):,.0f}", f"\\[{min(rates):,.0f}, {max(rates):,.0f}]",
            f"{_middle(told, 'p50'):.3f}", f"{_middle(told, 'p99'):.3f}", cpu, f"{sum(one.requests for one in told):,}",
        )  # fmt: skip
    for one in found.absent:
        made.add_row(one.title, f"[yellow]absent: {one.why}[/]")
    return made


def _show(model: models.ServedModel, found: Measured, facts: Facts) -> None:
    facts.numbers[model.name] = {
        "cells": [
            {
                "who": who,
                "form": form,
                "connections": count,
                "rounds": [asdict(one) for one in told],
                "cpu_us": list(found.cpu.get((who, form, count), ())),
            }
            for (who, form, count), told in found.cells.items()
        ],
        "absent": [asdict(one) for one in found.absent],
    }
    rounds = len(next(iter(found.cells.values())))
    out.print(table(f"{model.title}: medians of {rounds} rounds; no wrong answer", found))
    out.print(f"[dim]{GRPC}[/]\n")


def _doubts(quick: bool) -> list[str]:
    """Why the numbers of this run may mean little."""
    load = os.getloadavg()[0]
    busy = [f"others were busy here before it began (load {load:.1f}): look at CPU us"] if load > IDLE else []
    return [*busy, *(["--quick is too short to judge by"] if quick else [])]


def _show_goals(rows: Sequence[goals.Goal], doubts: Sequence[str]) -> None:
    made = Table(title="Targets", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("", "wanted", r"measured: median \[least, most]", ""):
        made.add_column(name)
    for row in rows:
        style = STYLES.get(row.verdict, "dim")
        made.add_row(row.what, row.wanted, row.found.replace("[", "\\["), f"[{style}]{row.verdict}[/]")
    out.print(made)
    for doubt in doubts:
        out.print(f"[yellow]beware: {doubt}[/]")


def _middle(told: Sequence[Told], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in told))


def _machine() -> dict[str, str]:
    tools = {name: metadata.version(name) for name in ("numpy", "onnxruntime", "httptools", "edgekit-runtime")}
    return {"machine": platform.machine(), "system": platform.platform(), "python": platform.python_version(), **tools}


def _tell(words: str) -> None:
    click.echo(words, err=True)


if __name__ == "__main__":
    main()

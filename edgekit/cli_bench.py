"""The command `edgekit bench`: a bundle measured over time, on a device or here, with a line an interval.

Refuses an emulated place: it has no latency. Signs nothing anew that --keep was not said for."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.cli_options import answer_options

if TYPE_CHECKING:
    from edgekit_runtime.bundle import Bundle
    from edgekit_runtime.endurance import Course

    from edgekit.benching import Stretch
    from edgekit.keeping import Seal
    from edgekit.places import Place
    from edgekit.stretch import Begun, Interval

HERE = "here"
UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}


@dataclass(frozen=True)
class Asked:
    """What was typed, read."""

    bundle: Bundle
    place: Place
    threads: tuple[int, ...]
    course: Course
    batch: int | None
    seal: Seal | None


def _seconds(context: click.Context, parameter: click.Parameter, word: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", word.strip())
    if not match or match[2] not in UNITS or not float(match[1]):
        raise click.BadParameter("write seconds above 0, as 60, 90s, 500ms or 5m")
    return float(match[1]) * UNITS[match[2]]


def _threads(context: click.Context, parameter: click.Parameter, words: str | None) -> tuple[int, ...] | None:
    if words is None:
        return None
    parts = words.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise click.BadParameter("write numbers from 1 on, as 4 or 1,2,4")
    return tuple(dict.fromkeys(int(part) for part in parts))


@click.command("bench")
@click.argument("bundle", type=Path)
@click.option("--on", "on", default=HERE, show_default=True, metavar="ssh://user@host[:port]|NAME|here")
@click.option("--seconds", default="5", show_default=True, callback=_seconds, metavar="60|5m", help="How long to run.")
@click.option("--interval", default="1s", show_default=True, callback=_seconds, metavar="1s", help="A line for each.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="R", help="R starts a second, not in a row.")
@click.option("--threads", callback=_threads, metavar="1,2,4", help="Once with each (as the bundle says).")
@click.option("--batch", type=click.IntRange(1, 4096), metavar="N", help="Samples at once (as recorded).")
@click.option("--keep", is_flag=True, help="Put what is measured into the bundle's evidence, and sign it anew.")
@click.option("--key", metavar="NAME", help="The key to sign it with (the one that signed it, or your first).")
@click.option("--keys", "home", type=Path, metavar="FOLDER", help="Where the keys lie.")
@click.option("--csv", "table", type=Path, metavar="FILE", help="Every interval as a row.")
@click.option("--ssh-config", "config", type=Path, metavar="FILE", help="Another ssh configuration than yours.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; connect to nothing.")
@answer_options
def bench(bundle: Path, on: str, dry_run: bool, table: Path | None, as_json: bool, quiet: bool, **words: Any) -> int:
    """Run BUNDLE for a while on a device, or here: latency beside temperature and clock, memory, energy.

    Over ssh by your own configuration. The worker is carried over and nothing stays there; numpy and the engine are
    those of the runtime that is installed there, else of its python3. Ctrl-C keeps what was measured so far.
    """
    asked = _asked(bundle, on, words, quiet)
    if dry_run:
        _show_plan(asked, as_json)
        return 0
    found = _runs(asked, quiet)
    _answer(asked, found, table, as_json)
    if failed := next((one.error for one in found if one.error), None):
        raise failed
    return 0


def _asked(folder: Path, on: str, words: Mapping[str, Any], quiet: bool) -> Asked:
    from edgekit_runtime.bundle import open_bundle
    from edgekit_runtime.endurance import Course

    from edgekit import benching, keys
    from edgekit.keeping import seal_for

    bundle = open_bundle(folder)
    bundle.place(bundle.manifest.entry)
    course = benching.check(Course(words["seconds"], words["interval"], words["rate"]))
    benching.feeds_of(bundle, words["batch"])
    if (words["key"] or words["home"]) and not words["keep"]:
        raise EdgeKitError("a key is for --keep alone", hint="say --keep too, or leave it out")
    place = _place(on, words["config"], bundle.manifest.engine)
    seal = None
    if words["keep"]:
        seal = seal_for(folder, words["home"] or keys.default_home(), words["key"], lambda said: _say(said, quiet))
        if seal.warning:
            _say(f"warning: {seal.warning}", False)
    threads = words["threads"] or (bundle.manifest.options.threads,)
    return Asked(bundle, place, threads, course, words["batch"], seal)


def _place(on: str, config: Path | None, engine: str) -> Place:
    """The device of that name or address, or this machine.

    Raises:
        Unsupported: it is an emulated one.
    """
    from edgekit.flash import names
    from edgekit.places.cores import CORES
    from edgekit.places.here import this_machine
    from edgekit.places.over_ssh import over_ssh

    if on == HERE:
        return this_machine()
    known = {one.name for one in names.listed(names.default_file())}
    if on in CORES and on not in known:
        raise Unsupported(
            f"an emulated {on} has no latency: emulation says nothing of a device's times",
            hint="name a device (--on ssh://user@host), or --on here",
        )
    return over_ssh(names.find(names.default_file(), on).url, config, engine)


def _runs(asked: Asked, quiet: bool) -> list[Stretch]:
    """One after the other. What was measured before an error, or Ctrl-C, is kept."""
    from dataclasses import replace

    from edgekit import bench_words, benching

    def seen(begun: Begun, row: Interval | None) -> None:
        _say(bench_words.header() if row is None else bench_words.line(begun, row), quiet)

    found: list[Stretch] = []
    for threads in asked.threads:
        if len(asked.threads) > 1:
            _say(f"{threads} thread{'s' if threads > 1 else ''}", quiet)
        options = replace(asked.bundle.manifest.options, threads=threads)
        try:
            one = benching.stretch(
                asked.place, asked.bundle, options, (asked.course, asked.batch), lambda said: _say(said, quiet), seen
            )
        except (KeyboardInterrupt, EdgeKitError) as error:
            if not found:
                raise
            said = error.what if isinstance(error, EdgeKitError) else "stopped by hand"
            _say(f"not measured with {threads} threads: {said}", False)
            if isinstance(error, EdgeKitError):
                found[-1] = replace(found[-1], error=error)
            break
        found.append(one)
        if one.ended:
            break
    return found


def _answer(asked: Asked, found: Sequence[Stretch], table: Path | None, as_json: bool) -> None:
    """The summary, and what goes into the bundle: runs that an error ended are shown, and not kept."""
    from edgekit import bench_words, keeping, measured

    entries = [measured.facts(asked.bundle, one) for one in found]
    rows = [measured.every_row(one) for one in found]
    if table is not None:
        _write(table, [(entry["threads"], row) for entry, some in zip(entries, rows, strict=True) for row in some])
    good = [entry for entry, one in zip(entries, found, strict=True) if not one.error or one.ended is None]
    kept = keeping.keep(asked.bundle, good, asked.seal) if asked.seal is not None and good else None
    manifest = asked.bundle.manifest
    head = {key: getattr(manifest, key) for key in ("name", "version", "format", "precision", "target")}
    if as_json:
        told = [{**entry, "rows": some} for entry, some in zip(entries, rows, strict=True)]
        first = {"median_ms": entries[0]["p50_ms"], "p90_ms": entries[0]["p90_ms"]}
        click.echo(json.dumps({"bundle": str(asked.bundle.folder), **head, **first, "kept": bool(kept), "runs": told}))
        return
    click.echo(f"{head['name']} {head['version']}: {head['format']} {head['precision']} for {head['target']}")
    click.echo(bench_words.where(entries[0]))
    for entry in entries:
        click.echo("")
        for words in bench_words.summary(entry):
            click.echo(words)
    if kept is not None:
        click.echo(f"\nkept in {kept}, {'signed anew' if asked.seal and asked.seal.secret else 'not signed'}")


def _write(table: Path, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    """The intervals for a spreadsheet: a column for every sensor that any of them tells of."""
    flat = []
    for threads, row in rows:
        plain = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        sensors = {f"{kind}.{name}": value for kind in ("temperatures", "power") for name, value in row[kind].items()}
        flat.append({"threads": threads, **plain, "throttled": " ".join(row["throttled"]), **sensors})
    names = list(dict.fromkeys(name for row in flat for name in row))
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(flat)


def _show_plan(asked: Asked, as_json: bool) -> None:
    from edgekit import benching

    course, carried = asked.course, benching.carried_bytes(asked.bundle)
    if as_json:
        told: dict[str, Any] = {
            "on": asked.place.name,
            "threads": asked.threads,
            "seconds": course.seconds,
            "carried": carried,
        }
        told |= {"interval": course.interval, "rate": course.rate, "batch": asked.batch}
        click.echo(json.dumps({**told, "keep": asked.seal is not None, "dry_run": True}))
        return
    pace = "back to back" if course.rate is None else f"{course.rate:g} starts a second"
    many = ", then ".join(str(count) for count in asked.threads)
    click.echo(f"on {asked.place.words}: {carried / 1e6:,.1f} MB go over and are removed again")
    click.echo(f"with {many} thread(s) for {course.seconds:g} s each, {pace}, a line every {course.interval:g} s")
    signed = "signed anew" if asked.seal and asked.seal.secret else "not signed"
    click.echo(f"what is found goes into {asked.bundle.folder}, {signed}" if asked.seal else "nothing is kept (--keep)")


def _say(words: str, quiet: bool) -> None:
    """Progress, line by line on standard error."""
    if not quiet:
        click.echo(words, err=True)

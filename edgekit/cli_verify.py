"""The verb `edgekit verify`: a bundle's recorded answers replayed on another CPU, emulated, and what that proves.

Refuses nothing itself; a bundle that answers otherwise there exits 3, one whose data is too little to tell 4."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from edgekit_runtime.errors import EdgeKitError

from edgekit.cli_options import answer_options

if TYPE_CHECKING:
    from edgekit_runtime.bundle import Bundle

    from edgekit.agreeing import Wish
    from edgekit.places.cores import Core
    from edgekit.verifying import Verified

EXITS = {"proved": 0, "inconclusive": 4, "missed": 3, "differs": 3, "refused": 3}


@click.command()
@click.argument("bundle")
@click.option(
    "--on",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A core (edgekit emulators), or a target's name; several give a table.",
)
@click.option("--data", metavar="DATA", help="Score it there and here too: what `edgekit build --data` takes.")
@click.option("--calibration", metavar="DATA", help="What calibrated it; else a quarter of --data is left out.")
@click.option("--samples", type=click.IntRange(1), default=256, show_default=True, metavar="N", help="At most so many.")
@click.option("--metric", metavar="NAME", help="top1, top5, mae, cosine, agreement, or module:function.")
@click.option("--output", metavar="NAME", help="The output whose quality is judged; the first otherwise.")
@click.option("--max-drop", metavar="0.5pt|1%", help="The most that may be lost there beside here.")
@click.option("--cache", "root", metavar="FOLDER", help="Where answers are kept.")
@click.option("--no-fetch", is_flag=True, help="Refuse where something would have to be fetched.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched and run; do neither.")
@answer_options
def verify(
    bundle: str, on: tuple[str, ...], max_drop: str | None, root: str | None, no_fetch: bool, dry_run: bool,
    as_json: bool, quiet: bool, **words: Any,
) -> int:  # fmt: skip
    """Prove BUNDLE on another CPU without the device: emulated, by the wheels that the device would install."""
    from edgekit_runtime.bundle import open_bundle

    from edgekit import verifying
    from edgekit.agreeing import Wish
    from edgekit.cache import user_cache
    from edgekit.goals import parse_budget

    if max_drop is not None and words["data"] is None:
        raise EdgeKitError("--max-drop needs data to hold it against", hint="say --data DATA")
    wish = Wish(user_cache(root), max_drop=parse_budget(max_drop) if max_drop else None, **words)
    opened, cores, tell = open_bundle(bundle), verifying.cores_of(on), _tell(quiet)
    for core in cores.values():
        verifying.refuse_unfit(opened, core)
    if dry_run:
        plans = [_plan(opened, name, core, wish) for name, core in cores.items()]
        click.echo(json.dumps(plans, indent=1) if as_json else "\n".join(map(_plan_words, plans)))
        return 0
    found = []
    for core in cores.values():
        verifying.fetch(core, not no_fetch, tell)
    for name, core in cores.items():
        found.append(verifying.verify(opened, name, core, wish, tell))
    click.echo(json.dumps(_facts(opened, found), indent=1) if as_json else "\n".join(_lines(opened, found)))
    codes = {EXITS[one.outcome] for one in found}
    return next((code for code in (3, 4) if code in codes), 0)


def _plan(bundle: Bundle, name: str, core: Core, wish: Wish) -> dict[str, Any]:
    from edgekit.places import roots

    golden, absent = bundle.manifest.golden, roots.missing(core)
    return {
        "on": name,
        "core": core.name,
        "arch": core.arch,
        "engine": bundle.manifest.engine,
        "answers": golden.count if golden else 0,
        "data": wish.data,
        "samples": wish.samples if wish.data else 0,
        "fetch": [{"words": part.words, "megabytes": part.megabytes} for part in absent],
    }


def _plan_words(plan: dict[str, Any]) -> str:
    lines = [f"would fetch: {part['words']}, about {part['megabytes']} MB" for part in plan["fetch"]]
    lines.append(f"would replay {plan['answers']} recorded answers by {plan['engine']} on {plan['core']}, emulated")
    if plan["data"]:
        lines.append(f"would score at most {plan['samples']} samples of {plan['data']} there and here")
    return "\n".join(lines)


def _facts(bundle: Bundle, found: Sequence[Verified]) -> dict[str, Any]:
    """All of it as JSON values; what is not finite is null."""
    from edgekit.verifying import NOT_PROVED

    return {
        "bundle": str(bundle.folder),
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "proved": all(one.outcome == "proved" for one in found),
        "cores": [_core_facts(bundle, one) for one in found],
        "not_proved": list(NOT_PROVED),
    }


def _core_facts(bundle: Bundle, one: Verified) -> dict[str, Any]:
    seen, scored, there = one.replay, one.scored, one.there
    return {
        "on": one.on,
        "core": one.core.name,
        "arch": one.core.arch,
        "isa": list(there.get("isa", ())),
        "engine": bundle.manifest.engine,
        "engine_version": there.get("engines", {}).get(bundle.manifest.engine),
        "numpy": there.get("numpy"),
        "python": there.get("python"),
        "outcome": one.outcome,
        "why": one.why,
        "answers": seen.answers if seen else 0,
        "batches": list(seen.batches) if seen else [],
        "worst": seen.worst if seen and seen.worst < float("inf") else None,
        "output": seen.output if seen else None,
        "same_best": [seen.same, seen.told] if seen and seen.told else None,
        "tolerance": one.tolerance,
        "quality": asdict(scored.quality) if scored else None,
        "notes": list(one.notes),
    }


def _lines(bundle: Bundle, found: Sequence[Verified]) -> list[str]:
    """For a person: a table where there are several, then each; then what none of it proves."""
    from edgekit.verifying import NOT_PROVED

    lines = _table(found) if len(found) > 1 else []
    for one in found:
        lines += ["", *_block(bundle, one)] if lines else _block(bundle, one)
    return [*lines, "", "not proved:", *(f"  {words}" for words in NOT_PROVED)]


def _table(found: Sequence[Verified]) -> list[str]:
    rows = [("on", "core", "largest difference", "tolerance", "outcome")]
    for one in found:
        worst = f"{one.replay.worst:.2g}" if one.replay else "-"
        rows.append((one.on, one.core.name, worst, f"{one.tolerance:g}", one.outcome))
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{size}}" for cell, size in zip(row, wide, strict=True)).rstrip() for row in rows]


def _block(bundle: Bundle, one: Verified) -> list[str]:
    """What was found on one core."""
    manifest, seen, there = bundle.manifest, one.replay, one.there
    lines = [f"{manifest.name} {manifest.version} on {one.core.name}, emulated: {one.outcome}", f"  {one.why}"]
    if there:
        ran = there["engines"].get(manifest.engine, "?")
        lines.append(f"  ran by     {manifest.engine} {ran}, numpy {there['numpy']}, Python {there['python']}")
        lines.append(f"  features   {' '.join(there['isa']) or 'none that matter'} ({one.core.arch})")
    if seen:
        batches = f", in runs of {', '.join(map(str, seen.batches))}" if seen.batches else ""
        lines.append(f"  replayed   {seen.answers} recorded answers{batches}")
        if seen.told:
            lines.append(f"  best class as recorded for {seen.same} of {seen.told}")
    return lines + [f"  note       {note}" for note in one.notes]


def _tell(quiet: bool) -> Callable[[str], None]:
    """Progress, line by line on standard error."""
    return (lambda words: None) if quiet else (lambda words: click.echo(words, err=True))

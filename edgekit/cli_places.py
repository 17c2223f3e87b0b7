"""The verbs for places to run at besides here: `edgekit emulators`, which fetches what emulating a device's CPU takes.

Refuses an unknown core or target; fetches nothing that was not asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekit.places.cores import Core


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def emulators(context: click.Context, as_json: bool) -> None:
    """CPUs that a build can be scored on without the device, and what is fetched for each; `add` fetches it."""
    from edgekit.places.cores import CORES

    if context.invoked_subcommand is not None:
        return
    found = [_facts(core) for core in CORES.values()]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    wide = max(len(core["name"]) for core in found)
    for core in found:
        missing = ", ".join(part["what"] for part in core["missing"])
        state = "ready" if core["ready"] else f"to fetch: {missing}"
        click.echo(f"{core['name']:<{wide}}  {core['arch']:<8} {state}")
        click.echo(f"{'':<{wide}}  stands for {', '.join(core['targets']) or 'no target'}")
    _show_kept()


def _show_kept() -> None:
    from edgekit.places import roots

    kept = roots.kept()
    for folder, size in kept:
        click.echo(f"{folder.name:<32} {_size([(folder, size)]):>8}")
    click.echo(f"{_size(kept)} in {roots.home()}")


@emulators.command("add")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and fetch nothing.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--quiet", is_flag=True, help="No progress.")
def emulators_add(name: str, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Fetch once what emulating NAME (a core, or a target) takes. No root rights are needed."""
    from edgekit.places import roots
    from edgekit.places.emulated import core_named

    core = core_named(name)
    before = _facts(core)
    if not as_json:
        for part in before["missing"]:
            click.echo(f"{'would fetch' if dry_run else 'to fetch'}: {part['words']}, about {part['megabytes']} MB")
    if not dry_run:
        roots.add(core, _tell(quiet))
    if as_json:
        click.echo(json.dumps({**_facts(core), "dry_run": dry_run, "fetched": [] if dry_run else before["missing"]}))
    elif not before["missing"]:
        click.echo(f"{core.name} is ready; nothing is missing")
    elif not dry_run:
        click.echo(f"{core.name} is ready")


@emulators.command("remove")
@click.argument("name", required=False)
@click.option("--quiet", is_flag=True, help="No progress.")
def emulators_remove(name: str | None, quiet: bool) -> None:
    """Delete what was fetched for NAME (cores of one architecture share it), or everything."""
    from edgekit.places import roots
    from edgekit.places.emulated import core_named

    wanted = None if name is None else {part.folder for part in roots.parts(core_named(name))}
    going = [(folder, size) for folder, size in roots.kept() if wanted is None or folder in wanted]
    roots.remove([folder for folder, _ in going], _tell(quiet))
    click.echo(f"removed {_size(going)}")


def _facts(core: Core) -> dict[str, Any]:
    """What is known of a core here, as JSON values."""
    from edgekit.places import roots
    from edgekit.target import list_targets

    missing = roots.missing(core)
    qemu = roots.find_qemu(core.arch)
    return {
        "name": core.name,
        "arch": core.arch,
        "targets": [target.name for target in list_targets() if target.emulate == core.name],
        "ready": not missing,
        "missing": [
            {"what": part.words.partition(":")[0], "words": part.words, "megabytes": part.megabytes} for part in missing
        ],
        "qemu": str(qemu) if qemu else None,
        "bytes": sum(size for folder, size in roots.kept() if folder in {part.folder for part in roots.parts(core)}),
    }


def _size(folders: list[tuple[Path, int]]) -> str:
    return f"{sum(size for _, size in folders) / 1e6:,.0f} MB"


def _tell(quiet: bool) -> Callable[[str], None]:
    """Progress, line by line on standard error; the build's spinner would import the build."""
    return (lambda words: None) if quiet else (lambda words: click.echo(words, err=True))

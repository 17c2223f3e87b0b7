"""Replay every bundle on every core, and print what runs where; `--write` keeps the results and puts them into README,
`--kept` puts there what was kept before, without a run.

Refuses a machine that cannot have the emulators, with their own words."""

import sys
from concurrent.futures import ThreadPoolExecutor

import click
from edgekit_runtime.errors import EdgeKitError

from edgekit.places import roots
from edgekit.places.cores import CORES
from tests.arm import page
from tests.arm.exhibits import exhibits, opened
from tests.arm.replaying import ENGINES, STANDS_FOR, Cell, replay

AT_ONCE = 2


def main() -> int:
    """Two workers at once; the bundles are made before, one by one: the tools that make them share a process badly."""

    def one(pair: tuple[str, str]) -> list[Cell]:
        click.echo(f"{pair[0]}, {pair[1]}", err=True)
        return replay(*pair, lambda words: None)

    if "--kept" in sys.argv:
        page.write(page.text(page.kept()))
        return 0
    try:
        for core in STANDS_FOR:
            roots.add(CORES[core], lambda words: click.echo(words, err=True))
        for engine in ENGINES:
            for exhibit in exhibits(engine):
                click.echo(f"making {exhibit.title}, {engine}", err=True)
                opened(exhibit)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            filled = list(pool.map(one, [(core, engine) for core in STANDS_FOR for engine in ENGINES]))
    except EdgeKitError as error:
        click.echo(f"error: {error.what}\nhint: {error.hint}", err=True)
        return 1
    cells = [cell for part in filled for cell in part]
    click.echo("\n".join(page.grid(cells)))
    if "--write" in sys.argv:
        page.keep(cells)
        page.write(page.text(page.kept()))
    return 0 if all(cell.good for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The command `edgekit pull-samples`: fetch what a device kept, as data for the next build.

Refuses nothing itself; a device that keeps nothing, or sends what is no sample, is told with what to do instead."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click


@click.command("pull-samples")
@click.argument("where", metavar="URL")
@click.option("--out", type=Path, required=True, metavar="DIR", help="Where they go, beside those of earlier pulls.")
@click.option("--model", metavar="NAME", help="Those of one model alone.")
@click.option("--token", type=Path, metavar="FILE", help="Where the token is written; else EDGEKIT_TOKEN.")
@click.option("--ca", type=Path, metavar="FILE", help="The CA that signed the server's certificate.")
@click.option("--cert", type=Path, metavar="FILE", help="A certificate and its key, for a server that wants one.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, metavar="SECONDS")
@click.option("--dry-run", is_flag=True, help="Say how many there are and how large; fetch none.")
@click.option("--json", "as_json", is_flag=True, help="The same facts for machines.")
@click.option("--quiet", is_flag=True, help="No progress.")
def pull_samples(
    where: str, out: Path, model: str | None, token: Path | None, dry_run: bool, as_json: bool, quiet: bool,
    **access: Any,
) -> None:  # fmt: skip
    """Fetch the samples that the device at URL kept, as data for `edgekit build`.

    URL is its --admin address (http://HOST:8001, unix:PATH), or the folder of its --state, on a card that is read here.
    """
    from edgekit import calling, pulling

    secret = calling.read_token(token) if token else os.environ.get("EDGEKIT_TOKEN") or None
    wish = pulling.Wish(out, model, dry_run)
    found = pulling.pull(where, calling.Access(secret, **access), wish, (lambda words: None) if quiet else _tell)
    click.echo(json.dumps(pulling.to_json(found)) if as_json else "\n".join(pulling.lines(found)))


def _tell(words: str) -> None:
    """Progress, line by line on standard error."""
    click.echo(words, err=True)

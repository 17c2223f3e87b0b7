"""The command `edgekit predict`: ask a server as a person would, and see its answer.

Refuses nothing itself; a server that does not answer, or not as a model server, is told with what to type instead."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("url")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="FILE",
    help="photo.jpg, sound.wav, text.txt, x.npy, x.npz or NAME=x.npy; - is standard input. Repeatable.",
)
@click.option(
    "--top", type=click.IntRange(1, 1000), metavar="N", help="How many labels (5); for arrays, labels at all."
)
@click.option("--token", type=Path, metavar="FILE", help="Where the token is written; else EDGEKIT_TOKEN.")
@click.option("--ca", type=Path, metavar="FILE", help="The CA that signed the server's certificate.")
@click.option("--cert", type=Path, metavar="FILE", help="A certificate and its key, for a server that wants one.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, metavar="SECONDS")
@click.option(
    "--repeat", type=click.IntRange(1, 1_000_000), default=1, metavar="N", help="Ask so often; tells p50, p99."
)
@click.option("--json", "as_json", is_flag=True, help="The same facts for machines.")
def predict(
    url: str,
    inputs: tuple[str, ...],
    top: int | None,
    repeat: int,
    as_json: bool,
    token: Path | None,
    **access: Any,
) -> None:
    """Ask the server at URL (http://HOST:8000[/NAME[/VERSION]], https://..., unix:PATH) and show its answer."""
    from edgekit import calling, predicting

    secret = calling.read_token(token) if token else os.environ.get("EDGEKIT_TOKEN") or None
    question = predicting.Question(inputs, top, repeat)
    place, trust = calling.parse_place(url), calling.Access(secret, **access)
    found = predicting.predict(place, question, trust, sys.stdin.buffer)
    if as_json:
        click.echo(json.dumps(predicting.to_json(found)))
        return
    from rich.console import Console

    out = Console(highlight=False)
    for part in predicting.shown(found):
        out.print(part, soft_wrap=True)

"""Options that many verbs have.

Refuses nothing."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def answer_options(command: F) -> F:
    """--json and --quiet."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="The same facts for machines."),
        click.option("--quiet", is_flag=True, help="No progress."),
    ):
        command = option(command)
    return command

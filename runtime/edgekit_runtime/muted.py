"""Quiet below Python: engines write greetings to the process's own stderr while they open a file.

Refuses nothing; stderr is there again afterwards."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def muted() -> Iterator[None]:
    """Drop what is written to file descriptor 2 meanwhile; nothing that engines say there is an error of ours."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)

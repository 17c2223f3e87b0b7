"""Silence for the libraries that print a page per model, and the one line of their errors that tells.

Refuses nothing; what was there before is there again after."""

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

TELLING = (
    r"^(TF Select|Custom) ops:",
    r"error:",
    r"not supported|Could not|Cannot|requires|[Uu]nable to|No conversion",
)
"""What marks the line of a framework's error that says what is wrong, the surest first."""


class _Nowhere(io.TextIOBase):
    """A stream that drops what it gets and is never closed: loggers that are made meanwhile hold on to it."""

    def write(self, text: str) -> int:
        return len(text)

    def close(self) -> None:
        return None


NOWHERE = _Nowhere()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what is printed, logged and warned meanwhile, by Python and by C++; errors still rise."""
    disabled, level = logging.root.manager.disable, logging.root.level
    nowhere = os.open(os.devnull, os.O_WRONLY)
    kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(NOWHERE), redirect_stderr(NOWHERE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for descriptor, _ in kept:
                os.dup2(nowhere, descriptor)
            yield
    finally:
        for descriptor, copy in kept:
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)
        logging.disable(disabled)
        logging.root.setLevel(level)


def last_line(error: BaseException) -> str:
    """The last line of a foreign error, with its class: ONNX Runtime's and NNCF's say there what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:240]}" if lines else type(error).__name__


def gist(error: BaseException) -> str:
    """The line of a framework's error that says what is wrong, wherever it stands."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for sign in TELLING for line in lines if re.search(sign, line)]
    line = (telling or lines or [type(error).__name__])[0]
    line = re.sub(r"^(<unknown>|loc\(.*?\)|[\w/.-]+:\d+(:\d+)?):\s*", "", line)
    return line if len(line) <= 200 else line[:197] + "..."

"""The last few things that went wrong, in the log's own words: for the page and for telemetry.

Refuses nothing; a flood of the same line is kept once, with how often it came. Of a path the last name is told: who may
look at a device need not know where its files lie."""

import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MOST = 20
MOST_CHARACTERS = 300
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:,;'\"]+/)+")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One line of the log; `when_ms` is the last time that it came, in milliseconds since 1970."""

    when_ms: int
    what: str
    times: int = 1


class Recent(logging.Handler):
    """Keeps warnings and errors; `told` hears each new one (not its repetitions), from whichever thread."""

    def __init__(self, told: Callable[[Trouble], None] = lambda trouble: None) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[Trouble] = deque(maxlen=MOST)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        try:
            when, what = int(record.created * 1000), placeless(record.getMessage())[:MOST_CHARACTERS]
            if self._kept and self._kept[-1].what == what:
                self._kept[-1] = Trouble(when, what, self._kept[-1].times + 1)
                return
            found = Trouble(when, what)
            self._kept.append(found)
            self._told(found)
        except Exception:  # as all handlers: a line that does not read must not end what wanted to log it
            self.handleError(record)

    def all(self) -> list[Trouble]:
        """Oldest first."""
        return list(self._kept)


def placeless(words: str) -> str:
    """The words, of each whole path its last name alone."""
    return FOLDERS.sub("", words)

"""The last few things that went wrong, in the log's own words: for the page and for telemetry.

Refuses nothing; a flood of the same line is kept once, with how often it came."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MOST = 20
MOST_CHARACTERS = 300


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
        when, what = int(record.created * 1000), record.getMessage()[:MOST_CHARACTERS]
        if self._kept and self._kept[-1].what == what:
            self._kept[-1] = Trouble(when, what, self._kept[-1].times + 1)
            return
        found = Trouble(when, what)
        self._kept.append(found)
        self._told(found)

    def all(self) -> list[Trouble]:
        """Oldest first."""
        return list(self._kept)

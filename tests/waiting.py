"""Waiting for what comes soon, however busy the machine is.

Refuses to wait for ever: a test that waits in vain fails."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def here(seconds: float) -> float:
    """What takes so long on a quiet machine may take this long on one that has more to do than it has processors."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def until(true: Callable[[], T], seconds: float = 30.0) -> T:
    """What it gives, once that is true."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found

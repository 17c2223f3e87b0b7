"""Which start of the machine this is, and how long ago it was: a clock that nobody sets.

Refuses nothing; where the system does not tell, each process is taken for a start of its own."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Boot:
    """The machine's start by name, and the milliseconds since, sleep included."""

    name: str
    now_ms: Callable[[], int]


def this_boot() -> Boot:
    """The one that we run in."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    try:
        name = BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        import secrets

        name = secrets.token_hex(16)
    return Boot(name, lambda: time.clock_gettime_ns(clock) // 1_000_000)

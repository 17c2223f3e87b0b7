"""What every Linux tells of itself: CPU time, load, memory, this process, uptime, disk.

Refuses nothing: a line that is missing or does not read leaves its value out."""

import os
from pathlib import Path
from typing import NamedTuple

from edgekit_runtime.machine.files import text

STAT = 2**16
PAGE = os.sysconf("SC_PAGE_SIZE")


class CpuTime(NamedTuple):
    """Ticks since the start, of all CPUs together."""

    busy: int
    total: int


def cpu_time(root: Path) -> tuple[CpuTime | None, int | None]:
    """The time spent, and how many CPUs there are."""
    lines = (text(root / "proc/stat", STAT) or "").splitlines()
    count = sum(line[:3] == "cpu" and line[3:4].isdigit() for line in lines) or None
    ticks = _whole(lines[0].split()[1:9]) if lines and lines[0].startswith("cpu ") else []
    if len(ticks) < 5:
        return None, count
    # guest time, the ninth and tenth, is in user time already; what a hypervisor took is time that we did not have
    total = sum(ticks)
    return CpuTime(total - ticks[3] - ticks[4], total), count


def share(before: CpuTime | None, now: CpuTime | None) -> float | None:
    """The busy share between two looks; None where no time passed, or the counters were set back."""
    if before is None or now is None or now.total <= before.total:
        return None
    return min(1.0, max(0.0, (now.busy - before.busy) / (now.total - before.total)))


def load(root: Path) -> float | None:
    """Runnable tasks, a mean over a minute."""
    return _first(text(root / "proc/loadavg"))


def uptime(root: Path) -> float | None:
    """Seconds since the machine started."""
    return _first(text(root / "proc/uptime"))


def memory(root: Path) -> tuple[int | None, int | None]:
    """All memory, and what a new program could have."""
    told: dict[str, int] = {}
    for line in (text(root / "proc/meminfo") or "").splitlines()[:10]:
        key, _, rest = line.partition(":")
        words = rest.split()
        if words[1:] == ["kB"] and (size := _whole(words[:1])):
            told[key] = size[0] * 1024
    return told.get("MemTotal"), told.get("MemAvailable")


def resident(root: Path) -> int | None:
    """What this process holds in memory."""
    pages = _whole((text(root / "proc/self/statm") or "").split()[1:2])
    return pages[0] * PAGE if pages else None


def disk(folder: Path | None) -> tuple[int | None, int | None]:
    """The size of the disk that holds `folder`, and what is free there for who is not root."""
    if folder is None:
        return None, None
    try:
        found = os.statvfs(folder)
    except (OSError, ValueError):
        return None, None
    return found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail


def _first(told: str | None) -> float | None:
    try:
        value = float((told or "").split()[0])
    except (ValueError, IndexError):
        return None
    return value if 0 <= value < float("inf") else None


def _whole(words: list[str]) -> list[int]:
    """The words as numbers, or none of them."""
    return [int(word) for word in words] if all(word.isdecimal() and len(word) < 19 for word in words) else []

"""Small reads of files that may not be there: the kernel's, under /proc and /sys.

Refuses nothing: a file that is gone, locked, too long or not a number reads as None."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

LONGEST = 4096
MOST = 64
"""Entries of a folder that are looked at: a machine with more sensors tells of the first."""


def text(path: Path | str, longest: int = LONGEST) -> str | None:
    """The file's first bytes without the white space around them, or None where there are none."""
    try:
        # not open(): it allocates a buffer and asks for the size, which costs more than the read
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        raw = os.read(file, longest)
    except OSError:  # a sensor that is switched off answers so: EAGAIN, ENODATA, EIO
        return None
    finally:
        os.close(file)
    return raw.decode("utf-8", "replace").strip("\0 \t\r\n") or None


def number(path: Path | str) -> int | None:
    """The whole number that the file holds."""
    found = text(path, 64)
    try:
        return None if found is None else int(found)
    except ValueError:
        return None


def entries(folder: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    """What is in a folder and matches, in the order of its numbers: the path, and what the group in `pattern` held."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    found = [(match[1], name) for name in names if (match := re.fullmatch(pattern, name))]
    found.sort(key=lambda one: [int(digits) for digits in re.findall(r"\d+", one[1])])
    for group, name in found[:MOST]:
        yield folder / name, group


def plain(name: str) -> str:
    """A sensor's name as a label: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:48]

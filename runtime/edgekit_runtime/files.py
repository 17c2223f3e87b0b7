"""Files by name, wherever they are: in a folder, in the store, in memory.

Refuses links, devices, pipes and more than 10,000 files in a folder; nothing outside it is ever opened."""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.errors import NotFound, Untrusted

SHA256 = re.compile(r"[0-9a-f]{64}")
"""What the digest of a file is written as."""
MAX_FILES = 10_000
"""Files and folders together."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Not blocking: what was a file may have become a pipe that nobody writes to."""


@dataclass(frozen=True)
class Files:
    """Named files: `where` they are, in words; their `names`, with "/" between folders; `open` one to read it."""

    where: str
    names: frozenset[str]
    open: Callable[[str], BinaryIO]


def in_folder(path: Path) -> Files:
    """All files in a folder and in the folders below it.

    Raises:
        NotFound: there is no folder, or it cannot be read.
        Untrusted: something in it is not a plain file, or it holds too many.
    """
    try:
        names = _names(path)
    except OSError as error:
        raise NotFound(f"{path} does not read: {error.strerror}", hint="name a folder that you can read") from error
    return Files(str(path), names, lambda name: _open(path, name))


def open_plain(path: str | Path, folder: int | None = None) -> BinaryIO:
    """Open a plain file, never through a link. Raises `OSError`."""
    number = os.open(path, _READ, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path} is not a plain file")
    return os.fdopen(number, "rb")


def _names(top: Path) -> frozenset[str]:
    found: set[str] = set()
    waiting, seen = [""], 0
    while waiting:
        inside = waiting.pop()
        with os.scandir(top / inside) as entries:
            for entry in entries:
                seen += 1
                if seen > MAX_FILES:
                    raise Untrusted(
                        f"{top} holds more than {MAX_FILES} files",
                        hint="name the folder of one bundle",
                        reason="unlisted",
                    )
                name = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                elif not entry.is_file(follow_symlinks=False) or not _is_text(name):
                    raise Untrusted(
                        f"{top}: {name!r} is not a plain file",
                        hint="copy the bundle with its files, not links",
                        reason="unlisted",
                    )
                else:
                    found.add(name)
    return frozenset(found)


def _is_text(name: str) -> bool:
    """Whether the name can be written down; bytes that are no UTF-8 come as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _open(top: Path, name: str) -> BinaryIO:
    """Walk there folder by folder: a link put in the way after the look is not followed."""
    *folders, last = name.split("/")
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            if part in ("", ".", ".."):
                raise OSError(f"{name!r} is outside {top}")
            below = os.open(part, _READ | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        return open_plain(last, here)
    finally:
        os.close(here)

"""Where an artifact can be run besides here: an emulated core, or a device over ssh. The values that both share.

Refuses nothing itself: `emulated`, `over_ssh` and `there` do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekit_runtime.errors import EdgeKitError


@dataclass(frozen=True)
class Start:
    """How a worker is started: `before` goes to its stdin first, then the messages."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    before: bytes = b""


@dataclass(frozen=True)
class Place:
    """A place with another CPU than this machine's. `words` say what it is, as evidence will.

    `start` is given an empty folder of its own, which lives as long as the worker. `explain` turns the exit
    status and the standard error of a worker that ended into what was wrong; None where it cannot tell.
    """

    name: str
    kind: Literal["emulated", "device"]
    words: str
    start: Callable[[Path], Start]
    explain: Callable[[int, str], EdgeKitError | None]


@dataclass(frozen=True)
class Absent:
    """Why a place cannot be had, and what to do about it."""

    why: str
    hint: str

"""The version of a model that answers a copy of some requests and is not served: which one, and on what terms.

Refuses nothing when it is read: a file that does not read is as none, and what is served goes on.

It holds for as long as the version that it is compared with is live: the swap of the link `live` ends it."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import Any

from edgekit_runtime import disk
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.store.layout import ID, Layout

NAME = "shadow.json"

log = logging.getLogger("edgekit_runtime.store")


@dataclass(frozen=True)
class Terms:
    """It answers the part `share` of the requests. Once `requests` were compared, and before `seconds` are over, the
    share that agreed must be `agreement` for certain, and its time `slower` times that of the live version at most;
    it is made live then, on trial for `probation` seconds."""

    share: float
    requests: int = 500
    seconds: float = 86_400.0
    agreement: float = 0.98
    slower: float = 1.2
    probation: float = 300.0


@dataclass(frozen=True)
class Shadowing:
    """The version `id`, compared with the version `beside`. `started` (Unix time) is when a server first opened it;
    `starts` counts the servers that opened it and did not end well."""

    id: str
    beside: str
    terms: Terms
    started: float | None = None
    starts: int = 0


def read_shadow(at: Layout, name: str) -> Shadowing | None:
    """What the file says; None where there is none, or none that reads."""
    path = at.slot(name) / NAME
    if at.disk.kind(path) != "file":
        return None
    try:
        return _shadowing(json.loads(at.read(path)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, BadBundle):
        log.warning("%s does not read: the version in shadow is dropped", path)
        return None


def _shadowing(raw: dict[str, Any]) -> Shadowing | None:
    found = Shadowing(**{**raw, "terms": Terms(**raw["terms"])})
    numbers = [*asdict(found.terms).values(), found.starts, *([] if found.started is None else [found.started])]
    sound = all(map(math.isfinite, numbers)) and all(map(ID.fullmatch, (found.id, found.beside)))
    return found if sound else None


def write_shadow(at: Layout, name: str, one: Shadowing) -> None:
    """From here on it is in shadow."""
    disk.replace(at.disk, at.slot(name) / NAME, json.dumps(asdict(one)).encode())


def is_there(at: Layout, name: str) -> bool:
    """Whether there is such a file, whatever is in it."""
    return at.disk.kind(at.slot(name) / NAME) is not None


def end_shadow(at: Layout, name: str) -> None:
    """None is in shadow any more."""
    disk.forget(at.disk, at.slot(name) / NAME)

"""The floor: the oldest release of each model that is still taken, in a file outside the store.

Refuses to sink, but for a signed override; a file that a bad disk spoilt is made again from what is installed."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit_runtime import disk
from edgekit_runtime.disk import Disk, make_folder, plain_errors
from edgekit_runtime.manifest import PLAIN

MAX_BYTES = 2**20
WAIT_SECONDS = 10.0
SEEN_SECONDS = 3600
"""How far the clock must have gone on to be written down again: flash wears."""


@dataclass(frozen=True)
class _Said:
    names: Mapping[str, int] = field(default_factory=dict)
    seen: float = 0.0


@dataclass(frozen=True)
class Floor:
    """The file at `path`. `installed` says the floors that what is installed speaks for, where the file is lost."""

    path: Path
    disk: Disk
    installed: Callable[[], Mapping[str, int]]

    def least(self, name: str) -> int:
        """Releases of the model that are lower than this are not installed."""
        return self._read().names.get(name, 0)

    def seen(self) -> float:
        """The latest time that was ever seen here, in Unix seconds: a clock that is behind it is wrong."""
        return self._read().seen

    def rise(self, name: str, release: int) -> None:
        """Take nothing lower any more; never sinks."""
        self._change(lambda said: _set(said, name, release) if release > said.names.get(name, 0) else said)
        with plain_errors(self._where):
            if self.disk.kind(self.path) is not None:
                self.disk.sync_folder(self.path.parent)  # where it stood there already: its writer may have died

    def allow(self, name: str, release: int) -> None:
        """Sink to `release`, once: the caller verified the signed override that says so. Never rises."""
        self._change(lambda said: _set(said, name, release) if release < said.names.get(name, 0) else said)

    def see(self, now: float) -> None:
        """Remember that it is so late; who calls believes the clock."""
        self._change(lambda said: replace(said, seen=now) if now >= said.seen + SEEN_SECONDS else said)

    def _change(self, change: Callable[[_Said], _Said]) -> None:
        if change(self._read()) == (self._stored() or _Said()):
            return
        with plain_errors(self._where):
            make_folder(self.disk, self.path.parent)
            with self.disk.lock(self.path.with_name(self.path.name + ".lock"), WAIT_SECONDS):
                said = change(self._read())
                raw = {"names": dict(said.names), "seen": said.seen}
                disk.replace(self.disk, self.path, json.dumps(raw, sort_keys=True).encode())

    def _read(self) -> _Said:
        return self._stored() or _Said(self.installed())

    def _stored(self) -> _Said | None:
        with plain_errors(self._where):
            if self.disk.kind(self.path) != "file":
                return None
            with self.disk.open(self.path) as file:
                return _parse(file.read(MAX_BYTES + 1))

    @property
    def _where(self) -> str:
        return f"the rollback floor {self.path}"


def _set(said: _Said, name: str, release: int) -> _Said:
    return replace(said, names={**said.names, name: release})


def _parse(data: bytes) -> _Said | None:
    try:
        raw = json.loads(data)
        names, seen = raw["names"], raw["seen"]
        sound = isinstance(names, dict) and math.isfinite(seen)
        sound = sound and all(PLAIN.fullmatch(name) and _is_release(names[name]) for name in names)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return _Said(names, seen) if sound else None


def _is_release(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

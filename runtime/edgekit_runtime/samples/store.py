"""The store of kept samples: one folder, one limit, any thread.

Refuses more bytes than its limit: what is worth least goes first. A full or failing disk costs samples, never answers.

A kept sample is a folder of its own. Which are kept, each model's shelves decide; the same content is kept once.
"""

import json
import logging
import math
import os
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.samples import entries
from edgekit_runtime.samples.candidate import Candidate
from edgekit_runtime.samples.exporting import PART, described, tarred
from edgekit_runtime.samples.shelves import REASONS, Kept, Row, Shelves, Worths

log = logging.getLogger("edgekit_runtime.samples")

PAUSE_SECONDS = 30.0
"""How long a disk that failed is left alone."""
EARLY = 1_000
"""Labels that were told before their sample was looked at, and wait for it."""
PAGE = 1_000
MOST_MODELS = 1_000
AT_FIRST, RESERVE, DAY = 4, 0.25, 86_400.0
"""Flash wears out: what is written is at first four times the limit, and then the limit once a day. The last quarter
of the limit is for the random sample: a drift that grows and grows makes each sample the strangest so far."""
DROPPED = ("disk", "too_large", "unreadable", "writes")


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept: how many samples of each model, their bytes on disk, and what was dropped for which reason."""

    kept: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROPPED, 0))


class Samples:
    """The store in one folder. Any thread may call it; `families` never waits, all else may wait for the disk."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Open the store, or begin one.

        Raises:
            EdgeKitError: the folder cannot be used.
        """
        self.folder, self.limit = folder, limit_bytes
        self.held = Held()
        self._lock, self._random = threading.Lock(), random.Random()
        self._shelves = Shelves(limit_bytes)
        self._ids: dict[tuple[str, str], str] = {}
        self._early: OrderedDict[tuple[str, str], tuple[str, int | None]] = OrderedDict()
        self._aside: dict[str, int] = {}
        self._dropped = dict.fromkeys(DROPPED, 0)
        self._resume = 0.0
        self._allowed, self._since = float(AT_FIRST * limit_bytes), time.monotonic()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._open()
        except OSError as error:
            raise EdgeKitError(
                f"{folder} cannot hold samples: {error.strerror}", hint="name a folder that can be written"
            ) from error
        self._publish()

    def consider(self, one: Candidate) -> None:
        """Keep the sample if it is worth it. Never raises for what the disk does."""
        with self._lock:
            worths = _worths(one, self._random.random())
            size = len(one.source) if one.source is not None else sum(value.nbytes for value in one.feeds.values())
            weight = self._shelves.weight(entries.room(size, 1))
            if wanted := self._shelves.wanted(one.model, worths, weight):
                self._keep(one, worths, wanted)
            elif weight > self._shelves.share():
                self._drop("too_large")

    def told(self, model: str, id: str, label: str, index: int | None) -> bool:
        """Take down the true label of the sample with that id; False where it is not kept, or not yet."""
        with self._lock:
            name = self._ids.get((model, id))
            if name is None:
                self._early[model, id[: entries.LONGEST]] = label, index
                if len(self._early) > EARLY:
                    self._early.popitem(last=False)
                return False
            kept = self._shelves.kept[name]
            if (kept.label, kept.index) == (label, index):
                return True
            kept.label, kept.index = label, index
            self._allow()
            if self._allowed < 2 * entries.BLOCK:
                self._drop("writes")  # the label is known until a restart
                return True
            self._allowed -= 2 * entries.BLOCK
            try:
                text = entries.written(entries.raw(self.folder / name) | {"label": label, "index": index})
                entries.replace(self.folder / name / entries.FACTS, text)
                size = entries.room((self.folder / name / kept.file).stat().st_size, len(text))
                self._shelves.resize(kept, size)
                self._evict(self._shelves.plan(0, {}) or [])
            except (OSError, ValueError) as error:
                self._failed(error)
            self._publish()
            return True

    def families(self) -> list[Family]:
        """For /metrics."""
        held = self.held
        kept = tuple(Sample(count, (("model", model),)) for model, count in sorted(held.kept.items()))
        dropped = tuple(Sample(count, (("reason", reason),)) for reason, count in held.dropped.items())
        words = "Samples that were worth keeping and could not be kept, by reason."
        return [
            Family("edgekit_samples_kept", "gauge", "Samples kept on disk, by model.", kept),
            Family("edgekit_samples_bytes", "gauge", "Bytes of disk that kept samples take.", (Sample(held.bytes),)),
            Family("edgekit_samples_dropped_total", "counter", words, dropped),
        ]

    def index(self, after: str = "") -> dict[str, Any]:
        """What is kept, as a JSON value: the first samples whose names come after `after`."""
        with self._lock:
            every = sorted(self._shelves.kept)
            names = [name for name in every if name > after]
            told = [described(self._shelves.kept[name]) for name in names[:PAGE]]
            held = self.held
        return {
            "models": [{"model": model, "samples": count} for model, count in sorted(held.kept.items())],
            "bytes": held.bytes, "limit_bytes": self.limit, "dropped": dict(held.dropped),
            "next": names[PAGE - 1] if len(names) > PAGE else None, "samples": told,
        }  # fmt: skip

    def export(
        self, model: str | None = None, version: str | None = None, after: str = "", most: int = PART
    ) -> Iterator[bytes]:
        """A part of one model's samples as a tar: those whose names come after `after`, about `most` bytes of them.

        The model may be left out where there is one, the version where all are wanted.

        Raises:
            NotFound: there is no sample of that.
            BadRequest: there are several models.
        """
        with self._lock:
            model = self._model(model)
            mine = [one for _, one in sorted(self._shelves.kept.items()) if one.model == model]
            mine = [one for one in mine if version in (None, one.version)]
            if not mine:
                raise NotFound(f"no samples of {model} version {version} are kept", hint="leave out the version")
            rest = [one for one in mine if one.name > after]
            chosen: list[Kept] = []
            taken = 0
            for one in rest:
                if chosen and taken + one.size > most:
                    break
                chosen.append(one)
                taken += one.size
            told = [(one, described(one)) for one in chosen]
        following = chosen[-1].name if len(chosen) < len(rest) else None
        return tarred(self.folder, {"model": model, "next": following}, told)

    def _model(self, model: str | None) -> str:
        models = sorted({one.model for one in self._shelves.kept.values()})
        if not models:
            raise NotFound("no samples are kept yet", hint="ask again after some requests")
        if model is None and len(models) > 1:
            raise BadRequest("samples of several models are kept", hint=f"say one of {', '.join(models[:20])}")
        if model is not None and model not in models:
            raise NotFound("no samples of that model are kept", hint=f"ask for {', '.join(models[:20])}")
        return model or models[0]

    def _open(self) -> None:
        """Take up what is there."""
        floors = self.folder / entries.FLOORS
        try:
            self._shelves.raise_floors(_floors(json.loads(entries.held(floors, entries.MOST_FLOORS))))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError):
            log.warning("%s does not read: samples are chosen as if anew", floors.name)
        for path in entries.sweep(self.folder):
            kept = entries.read(path)
            if kept is None:
                self._aside[path.name] = entries.weighed(path)
                log.warning("a kept sample is damaged and left aside: %s", path.name)
            elif self._shelves.put(kept, again=True):
                self._ids[kept.model, kept.id] = kept.name
            else:
                entries.remove(self.folder, path.name)
        self._bound()
        if self._shelves.total > self._shelves.limit:
            self._throw_aside()
            self._evict(self._shelves.plan(0, {}) or [])

    def _keep(self, one: Candidate, worths: Worths, wanted: list[str]) -> None:
        """Keep a sample that seems worth it."""
        now = time.monotonic()
        if now < self._resume:
            self._drop("disk")
            return
        self._allow()
        if self._allowed <= (0.0 if "random" in wanted else RESERVE * self.limit):
            self._drop("writes")
            return
        found = entries.content(one)
        if found is None:
            self._drop("unreadable")
            return
        file, data = found
        name, id = entries.named(one.model, file, data), one.id[: entries.LONGEST]
        if name in self._shelves.kept:
            self._again(self._shelves.kept[name], id)
            return
        label, index = self._early.pop((one.model, id), (None, None))
        kept = Kept(name, one.model, one.version, id, one.when_ms, one.kind, file, 0, worths, one.label, label, index)
        told = entries.written(entries.facts(one, kept))
        kept.size = entries.room(len(data), len(told))
        try:
            self._store(kept, data, told)
        except OSError as error:
            self._failed(error)
        self._publish()

    def _allow(self) -> None:
        """What may be written grows with the time."""
        now = time.monotonic()
        more = (now - self._since) / DAY * self.limit
        self._allowed, self._since = min(self._allowed + more, AT_FIRST * self.limit), now

    def _store(self, kept: Kept, data: bytes, told: bytes) -> None:
        """Make room and write. Raises OSError."""
        shelves, weight = self._shelves, self._shelves.weight(kept.size)
        wants = {
            (kept.model, reason): worth
            for reason, worth in zip(REASONS, kept.worths, strict=True)
            if worth is not None and reason in shelves.wanted(kept.model, kept.worths, weight)
        }
        if not wants:
            if weight > shelves.share():
                self._drop("too_large")
            return
        if self._aside and weight > shelves.limit - shelves.total:
            self._throw_aside()
        strips = shelves.plan(weight, wants)
        if strips is None:
            return
        disk = os.statvfs(self.folder)
        if not strips and disk.f_bavail * disk.f_frsize < kept.size:
            raise OSError("no space is left")
        self._evict(strips)
        if kept.name in self._aside:
            entries.remove(self.folder, kept.name)
            del self._aside[kept.name]
            self._bound()
        self._allowed -= kept.size
        entries.write(self.folder, kept, data, told)
        if shelves.put(kept):
            self._ids[kept.model, kept.id] = kept.name
        else:
            entries.remove(self.folder, kept.name)

    def _again(self, kept: Kept, id: str) -> None:
        """The same content came again, under another id: a label told for that one is this one's."""
        if self._ids.get((kept.model, kept.id)) == kept.name:
            del self._ids[kept.model, kept.id]
        kept.id = id
        self._ids[kept.model, id] = kept.name

    def _evict(self, strips: list[tuple[str, str]]) -> None:
        """Take samples off their shelves, and off the disk with the last. Raises OSError."""
        for name, reason in strips:
            kept = self._shelves.kept[name]
            if kept.why == {reason}:
                entries.remove(self.folder, name)
                if self._ids.get((kept.model, kept.id)) == name:
                    del self._ids[kept.model, kept.id]
            self._shelves.strip(name, reason)
        if strips:
            text = json.dumps(self._shelves.floors(), separators=(",", ":")).encode()
            entries.replace(self.folder / entries.FLOORS, text)

    def _throw_aside(self) -> None:
        """Remove what is damaged: it is worth less than anything."""
        for name in list(self._aside):
            entries.remove(self.folder, name)
            del self._aside[name]
        self._bound()

    def _bound(self) -> None:
        """What is damaged takes room too, and so do the folder itself and the file of floors."""
        own = 2 * entries.BLOCK + self.limit // 100
        self._shelves.limit = max(0, self.limit - own - sum(self._aside.values()))

    def _drop(self, reason: str) -> None:
        self._dropped[reason] += 1
        self.held = replace(self.held, dropped=dict(self._dropped))

    def _failed(self, error: Exception) -> None:
        self._drop("disk")
        self._resume = time.monotonic() + PAUSE_SECONDS
        log.warning("a sample is not kept, and none for %g s: %s", PAUSE_SECONDS, error)

    def _publish(self) -> None:
        """What the event loop may read."""
        counts: dict[str, int] = {}
        for one in self._shelves.kept.values():
            counts[one.model] = counts.get(one.model, 0) + 1
        size = sum(one.size for one in self._shelves.kept.values()) + sum(self._aside.values())
        self.held = Held(counts, size, dict(self._dropped))


def _worths(one: Candidate, draw: float) -> Worths:
    """A confidence that is no number is none at all; a drift that is none tells nothing."""
    sure = None if one.confidence is None else -one.confidence if math.isfinite(one.confidence) else 0.0
    strange = one.drift if one.drift is not None and math.isfinite(one.drift) else None
    return sure, strange, -draw


def _floors(raw: Any) -> dict[str, dict[str, Row]]:
    """Floors as they were written. Raises ValueError, TypeError or AttributeError."""
    found = {
        str(model): {
            reason: (float(worth), str(name)) for reason, (worth, name) in by_reason.items() if reason in REASONS
        }
        for model, by_reason in raw.items()
    }
    floors = [worth for by_reason in found.values() for worth, _ in by_reason.values()]
    if len(found) > MOST_MODELS or not all(map(math.isfinite, floors)):
        raise ValueError("no floors")
    return found

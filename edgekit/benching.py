"""Measure a bundle over time, on a device or here: latency beside temperature and clock, memory, energy.

Refuses emulated places, bundles without recorded inputs, and batches that the artifact does not take."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.endurance import Course
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.frames import Message
from edgekit_runtime.tensors import Array, Feeds, dequantized

from edgekit.attesting import PROVENANCE
from edgekit.model import Artifact, Tell
from edgekit.places import Place
from edgekit.places.streaming import streamed
from edgekit.places.there import open_at
from edgekit.sbom import SBOM
from edgekit.stretch import Begun, Interval, Times, parse_begun, parse_interval

BESIDE = frozenset({"report.json", "report.html", "MODEL_CARD.md", SBOM, PROVENANCE})
"""Files of a bundle that no engine reads."""
MOST_INTERVALS = 20_000

Seen = Callable[[Begun, Interval | None], None]
"""Told of the start, then of each interval as it ends."""


@dataclass(frozen=True)
class Stretch:
    """One run: with what, where, what was seen. `ended` in words where it was not the time that ended it, and the
    `error` if it was one. `memory` is what a fresh process took, `machine` what the worker told of where it is."""

    options: EngineOptions
    course: Course
    batch: int | None
    place: str
    machine: Mapping[str, Any]
    memory: Mapping[str, float]
    begun: Begun
    rows: tuple[Interval, ...]
    times: Times
    when: str
    ended: str | None = None
    error: EdgeKitError | None = None


def feeds_of(bundle: Bundle, batch: int | None) -> Feeds:
    """The bundle's first recorded inputs as real numbers; with a batch, their rows over and over to so many.

    Raises:
        EdgeKitError: nothing was recorded, or no such batch can be had.
    """
    golden = bundle.golden()
    if not golden:
        raise EdgeKitError(f"{bundle.folder} has no recorded inputs", hint="build it again")
    feeds = dict(golden[0][0])
    for port in bundle.manifest.inputs:
        name, spec = port.spec.name, port.spec
        if spec.scale is not None:
            feeds[name] = dequantized(feeds[name], spec)
        if batch is None:
            continue
        if spec.shape and spec.shape[0] is None and len(feeds[name]):
            feeds[name] = feeds[name][np.arange(batch) % len(feeds[name])]
        elif not spec.shape or spec.shape[0] != batch:
            fixed = spec.shape[0] if spec.shape else "no batch"
            raise EdgeKitError(f"input {name} takes {fixed}, not a batch of {batch}", hint="leave --batch out")
    return feeds


def batch_of(bundle: Bundle, feeds: Feeds) -> int | None:
    """How many samples go in at once; None where the first input has no such axis."""
    value: Array = feeds[bundle.manifest.inputs[0].spec.name]
    return len(value) if value.ndim else None


@contextmanager
def artifact_of(bundle: Bundle) -> Iterator[Artifact]:
    """The bundle's artifact as one that can be carried: its own files alone, as links in a folder."""
    manifest = bundle.manifest
    bundle.place(manifest.entry)  # raises where it is encrypted
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        for name in _own(bundle):
            link = Path(folder) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((bundle.folder / name).resolve())
        yield Artifact(
            manifest.engine, manifest.precision, Path(folder) / manifest.entry, manifest.inputs, manifest.outputs
        )


def _own(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    others = {manifest.labels, manifest.baseline, manifest.golden.file if manifest.golden else None, *BESIDE}
    others.add(str((manifest.preprocess or {}).get("vocab")))
    shadow = manifest.shadow.entry.rpartition("/")[0] if manifest.shadow else ""
    return [name for name in manifest.files if name not in others and not (shadow and name.startswith(f"{shadow}/"))]


def carried_bytes(bundle: Bundle) -> int:
    """What goes over to a device."""
    return sum(bundle.manifest.files[name].size for name in _own(bundle))


def check(course: Course) -> Course:
    """The course, if its intervals can all be kept. Raises `EdgeKitError` where they are too many."""
    if course.seconds / course.interval > MOST_INTERVALS:
        least = course.seconds / MOST_INTERVALS
        raise EdgeKitError(f"more than {MOST_INTERVALS:,} intervals", hint=f"say --interval {least:.3g}s or more")
    return course


@dataclass
class _Seen:
    """What came so far."""

    begun: Begun | None = None
    rows: list[Interval] = field(default_factory=list)
    times: Times = field(default_factory=Times)

    def take(self, message: Message, seen: Seen) -> None:
        """One more message of the worker."""
        if message.head.get("do") == "begun":
            self.begun = parse_begun(message.head)
            seen(self.begun, None)
            return
        row, taken = parse_interval(message.head, message.arrays)
        if self.begun is None or len(self.rows) >= 2 * MOST_INTERVALS:
            raise EdgeKitError("the worker tells more than was asked", hint="update EdgeKit, here and there")
        self.times.add(taken)
        self.rows.append(row)
        seen(self.begun, row)


def stretch(
    place: Place, bundle: Bundle, options: EngineOptions, run: tuple[Course, int | None], tell: Tell, seen: Seen
) -> Stretch:
    """Run the bundle at the place on a course, with a batch. Ctrl-C and errors on the way end it with what there is.

    Raises:
        EdgeKitError: it does not come to the end of a first interval; KeyboardInterrupt likewise.
    """
    course, batch = run
    feeds, found, when = feeds_of(bundle, batch), _Seen(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended, error = None, None
    with artifact_of(bundle) as artifact, open_at(place, options, tell) as there:
        tell("measuring its memory in a fresh process")
        memory = there.footprint(artifact, feeds)
        tell(f"warming up, then running for {course.seconds:g} s")
        try:
            for message in streamed(there, artifact, asdict(course), feeds):
                found.take(message, seen)
        except KeyboardInterrupt:
            if not found.rows:
                raise
            ended = "stopped by hand"
        except EdgeKitError as came:
            if not found.rows:
                raise
            ended, error = f"ended by an error: {came.what}", came
    if found.begun is None or not found.rows:
        raise EdgeKitError(f"{place.words} told of no interval", hint="give it more --seconds")
    return Stretch(
        options, course, batch_of(bundle, feeds), place.words, there.machine, memory, found.begun,
        tuple(found.rows), found.times, when, ended, error,
    )  # fmt: skip

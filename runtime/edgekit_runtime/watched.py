"""What is watched of one model: its drift, its float shadow, what is offered for keeping.

Refuses nothing; a baseline or a shadow that does not open is told, and not tried again."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit_runtime.answer import top
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.lane import Lane
from edgekit_runtime.served import Served
from edgekit_runtime.tensors import Array, Feeds

if TYPE_CHECKING:
    from edgekit_runtime.drift import Drift, Reading
    from edgekit_runtime.feedback import Feedback
    from edgekit_runtime.samples import Candidate, Samples
    from edgekit_runtime.shadow import Shadow

log = logging.getLogger("edgekit_runtime.monitor")

MOST_ROWS, MOST_VALUES = 1_000, 2**18
"""Of larger answers the best classes are not looked for: the event loop has others to serve."""


@dataclass(frozen=True)
class Wishes:
    """What to look at. `rate` are false alarms of drift a day for each model, `per_second` how many of its samples are
    looked at, at most (None: any); `shadow` is the part of the requests that the float artifact answers too, `share`
    the part of one processor's time that all of it may take in the long run."""

    drift: bool = True
    rate: float = 0.01
    per_second: float | None = None
    shadow: float = 0.0
    samples: "Samples | None" = None
    feedback: "Feedback | None" = None
    share: float = 0.01

    def reach(self, lane: Lane) -> bool:
        """Whether there is something to look at in the lane's answers."""
        manifest = lane.served.manifest
        if self.samples is not None or manifest is None:
            return self.samples is not None
        return (self.drift and manifest.baseline is not None) or (self.shadow > 0 and manifest.shadow is not None)


@dataclass(slots=True)
class Watched:
    """A model's own part: made in the thread when its first answer comes. It holds no engine but the shadow's: the
    served one has to go when its lane closes."""

    name: str
    version: str
    read: "Callable[[Feeds, Feeds], list[Reading]] | None" = None
    drift: "Drift | None" = None
    odd: "Callable[[Reading], float] | None" = None
    shadow: "Shadow | None" = None
    alarm: bool = False


def opened(served: Served, wishes: Wishes) -> Watched:
    """What there is to watch of a model."""
    watched = Watched(served.name, served.version)
    for part in (_open_drift, _open_shadow):
        try:
            part(watched, served, wishes)
        except EdgeKitError as error:
            log.warning("%s: not watched: %s", served.name, error.what)
        except Exception:  # a foreign engine's, or a bug: not tried again with each answer
            log.exception("%s: not watched", served.name)
    return watched


def _open_drift(watched: Watched, served: Served, wishes: Wishes) -> None:
    baseline = served.bundle.baseline() if wishes.drift and served.bundle is not None else None
    if baseline is not None:
        from edgekit_runtime.drift import Drift, oddness, reader

        watched.drift = Drift(baseline, wishes.rate, wishes.per_second)
        watched.odd = oddness(baseline)
        watched.read = reader(served.inputs, served.outputs, served.preprocess, len(served.labels))


def _open_shadow(watched: Watched, served: Served, wishes: Wishes) -> None:
    run = served.bundle.open_shadow() if wishes.shadow and served.bundle is not None else None
    if run is not None:
        from edgekit_runtime.shadow import Shadow

        watched.shadow = Shadow(run, served.labels, wishes.shadow)


def candidate(
    served: Served, feeds: Feeds, outputs: Feeds, watched: Watched, readings: "Sequence[Reading]"
) -> "Candidate | None":
    """An answer as it is offered for keeping, still without its id, time and source; None for a batch of several."""
    from edgekit_runtime.samples import Candidate

    if served.batchable() and _rows(feeds) != 1:
        return None
    best = top(outputs, served.labels, 1)
    return Candidate(
        model=served.name,
        version=served.version,
        id="",
        when_ms=0,
        feeds=feeds,
        source=None,
        kind="" if served.preprocess is None else served.preprocess.kind,
        outputs=outputs,
        label=best[0][0] if best else None,
        confidence=best[0][1] if best else None,
        drift=None if watched.odd is None else max(map(watched.odd, readings), default=None),
    )


def pair(lane: Lane) -> tuple[str, str]:
    """The name and the version of a lane's model."""
    return lane.served.name, lane.served.version


def best_classes(served: Served, feeds: Feeds, outputs: Mapping[str, Array]) -> tuple[str, ...]:
    """The word (or the number) of the best class of each row; none where the model is no classifier of rows."""
    for value in outputs.values():
        if value.size < 2 or value.dtype.kind not in "fiu":
            continue
        rows, classes = value.shape[0], value.shape[-1]
        if classes == value.size:
            return (_word(served, classes, int(value.argmax())),)
        if rows * classes == value.size <= MOST_VALUES and classes > 1 and _apart(served, feeds, rows):
            best: list[int] = value.reshape(rows, classes).argmax(1).tolist()
            return tuple([_word(served, classes, at) for at in best])
    return ()


def _word(served: Served, classes: int, at: int) -> str:
    return served.labels[at] if len(served.labels) == classes else str(at)


def _apart(served: Served, feeds: Feeds, rows: int) -> bool:
    """Whether so many rows of an answer are those of a request, each for itself."""
    return rows <= MOST_ROWS and rows == _rows(feeds) and served.batchable()


def _rows(feeds: Feeds) -> int:
    return max((math.prod(value.shape[:1]) for value in feeds.values()), default=1)

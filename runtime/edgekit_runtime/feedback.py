"""True labels that are told later, by the id of the request: how often a model is right in the field.

Refuses an id that is not known or too long ago, a label that the model does not have, and more or fewer labels than
the request had rows.

The interval is Wilson's score interval: E. B. Wilson, "Probable inference, the law of succession, and statistical
inference", Journal of the American Statistical Association 22 (1927) 209-212. It holds for few samples and for shares
near 0 or 1, where the usual one has no width."""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import NotFound
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.told_labels import read_label, uneven

log = logging.getLogger("edgekit_runtime.feedback")

WINDOW = 1_000
"""Over how many judged answers the accuracy rolls."""
TAIL = 2_000
"""How many answers outlive a restart."""
MOST_PAIRS = 64
LONGEST_ID = 256
FILE = "feedback.json"
MOST_FILE = 16 * 2**20
Z = 1.959963984540054
"""The normal distribution's 97.5 % point: intervals are of 95 %."""

Pair = tuple[str, str]
"""A model's name and version."""
Entry = tuple[str, str, tuple[str, ...], int]
"""Model, version, the answer of each row, and the number of the judgement that was passed on the first: 0 for none
yet. The other rows have the numbers after it."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Of `n` judged answers the share `accuracy` was right; the true share is from `low` to `high`, at 95 %."""

    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What was answered, and what would have been right; `index` is the class of `label`, where the model has some."""

    id: str
    model: str
    version: str
    answer: str
    label: str
    right: bool
    index: int | None


@dataclass(frozen=True, slots=True)
class State:
    """What outlives a restart: the last answers, and the judgements passed, each with its number."""

    serial: int
    ring: tuple[tuple[str, Entry], ...]
    windows: tuple[tuple[Pair, tuple[tuple[int, bool], ...]], ...]


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `right` of `n` were seen."""
    if n == 0:
        return 0.0, 1.0
    share, square = right / n, Z * Z
    middle = share + square / (2 * n)
    half = Z * ((share * (1 - share) + square / (4 * n)) / n) ** 0.5
    return max(0.0, (middle - half) / (1 + square / n)), min(1.0, (middle + half) / (1 + square / n))


def quality(right: int, n: int) -> Quality | None:
    """The share with its interval; None where nothing was seen."""
    return Quality(n, right / n, *wilson(right, n)) if n else None


class Feedback:
    """Answers by id, at most `capacity` of them, and judgements on them. All methods belong to the event loop."""

    def __init__(self, capacity: int = 20_000) -> None:
        self._capacity, self._held = capacity, 0
        self._ring: OrderedDict[str, Entry] = OrderedDict()
        self._windows: OrderedDict[Pair, OrderedDict[int, bool]] = OrderedDict()
        self._labels: OrderedDict[Pair, tuple[str, ...]] = OrderedDict()
        self._totals: dict[tuple[Pair, bool], int] = {}
        self._serial = 0

    def know(self, model: str, version: str, labels: Sequence[str]) -> None:
        """The words for a model's classes. They hold on when it is not served any more: labels come late."""
        self._labels[model, version] = tuple(labels)
        self._labels.move_to_end((model, version))
        if len(self._labels) > MOST_PAIRS:
            self._labels.popitem(last=False)

    def remember(self, id: str, model: str, version: str, *answers: str) -> None:
        """Note what was answered to each row of a request. Of requests with one id the newest counts."""
        ring = self._ring
        if id in ring:
            self._held -= len(ring[id][2])
            ring.move_to_end(id)
        elif len(id) > LONGEST_ID:
            return
        ring[id] = (model, version, answers, 0)
        self._held += len(answers)
        while self._held > self._capacity:
            self._held -= len(ring.popitem(False)[1][2])

    def tell(self, id: str, label: str | int, model: str | None = None) -> Judged:
        """Judge what was answered to a request of one row: `tell_rows` of one label."""
        return self.tell_rows(id, (label,), model)[0]

    def tell_rows(self, id: str, labels: Sequence[str | int], model: str | None = None) -> tuple[Judged, ...]:
        """Judge what was answered to each row of a request. Told again, the last word counts, once.

        Raises:
            NotFound: there is no such request, or it is too long ago.
            BadRequest: the model has no such label, or the request another number of rows; then none is judged.
        """
        found = self._ring.get(id)
        if found is None or model not in (None, found[0]):
            raise NotFound("no such request, or too long ago", hint=f"the last {self._capacity} answers are remembered")
        name, version, answers, _ = found
        if len(labels) != len(answers):
            raise uneven(len(labels), len(answers))
        known = self._labels.get((name, version), ())
        said = [read_label(label, known) for label in labels]
        judged = tuple(
            Judged(id, name, version, answer, word, word == answer, index)
            for answer, (word, index) in zip(answers, said, strict=True)
        )
        self._pass(id, found, judged)
        return judged

    def quality(self, model: str, version: str) -> Quality | None:
        """How often the last answers that were judged were right; None before the first."""
        window = self._window(model, version)
        return quality(sum(window.values()), len(window))

    def families(self) -> list[Family]:
        """For /metrics."""
        totals = tuple(
            Sample(count, (*_labelled(pair), ("right", "true" if right else "false")))
            for (pair, right), count in self._totals.items()
        )
        found = [(pair, one) for pair in self._windows if (one := self.quality(*pair)) is not None]
        span = f"of the last {WINDOW} judged answers at most"
        return [
            Family("edgekit_feedback_total", "counter", "Answers judged, as they were judged first.", totals),
            _gauge("edgekit_quality_accuracy", f"Share of right answers, {span}.", [(p, q.accuracy) for p, q in found]),
            _gauge("edgekit_quality_accuracy_low", "Lower end of its 95 % interval.", [(p, q.low) for p, q in found]),
            _gauge("edgekit_quality_accuracy_high", "Upper end of its 95 % interval.", [(p, q.high) for p, q in found]),
            _gauge("edgekit_quality_samples", "Judged answers in it.", [(p, q.n) for p, q in found]),
        ]

    def state(self) -> State:
        """What is to outlive a restart, for `save`. Takes well below a millisecond."""
        newest, left = [], TAIL
        for id in reversed(self._ring):
            entry = self._ring[id]
            left -= len(entry[2])
            if left < 0:
                break
            newest.append((id, entry))
        windows = tuple((pair, tuple(window.items())) for pair, window in self._windows.items())
        return State(self._serial, tuple(reversed(newest)), windows)

    def restore(self, state: State) -> None:
        """Take up what `load` gave."""
        self._serial = state.serial
        for id, (model, version, answers, serial) in state.ring:
            self.remember(id, model, version, *answers)
            if id in self._ring:
                self._ring[id] = model, version, answers, serial
        for pair, judged in state.windows[-MOST_PAIRS:]:
            self._windows[pair] = OrderedDict(judged[-WINDOW:])

    def _pass(self, id: str, entry: Entry, judged: Sequence[Judged]) -> None:
        """Count the judgements, or put them in place of those before, as far as these still count."""
        name, version, answers, serial = entry
        if not serial:
            first, self._serial = self._serial + 1, self._serial + len(judged)
            self._ring[id] = name, version, answers, first
            for number, one in enumerate(judged, first):
                self._first((name, version), number, one.right)
            return
        window = self._windows.get((name, version)) or OrderedDict()
        for number, one in enumerate(judged, serial):
            if number in window:
                window[number] = one.right

    def _window(self, model: str, version: str) -> Mapping[int, bool]:
        return self._windows.get((model, version)) or {}

    def _first(self, pair: Pair, serial: int, right: bool) -> None:
        window = self._windows.setdefault(pair, OrderedDict())
        self._windows.move_to_end(pair)
        window[serial] = right
        if len(window) > WINDOW:
            window.popitem(last=False)
        self._totals[pair, right] = self._totals.get((pair, right), 0) + 1
        if len(self._windows) > MOST_PAIRS:
            gone, _ = self._windows.popitem(last=False)
            for which in (True, False):
                self._totals.pop((gone, which), None)


def save(folder: Path, state: State) -> None:
    """Write the state as one file, whole or not at all. For a thread: it waits for the disk. Raises OSError."""
    told = {"schema": 1, "serial": state.serial, "ring": state.ring, "windows": state.windows}
    made = folder / f".{FILE}.new"
    made.unlink(missing_ok=True)
    file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(json.dumps(told, separators=(",", ":")).encode())
            opened.flush()
            os.fsync(opened.fileno())
        made.replace(folder / FILE)
    except OSError:
        with suppress(OSError):
            made.unlink(missing_ok=True)
        raise
    opened_folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened_folder)
    finally:
        os.close(opened_folder)


def load(folder: Path) -> State | None:
    """What `save` wrote last; None where there is nothing, or nothing that reads."""
    try:
        with open(folder / FILE, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
            return _state(json.loads(opened.read(MOST_FILE)))  # a pipe in its place would hold us up for ever
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        log.warning("%s does not read, judgements begin anew: %s", FILE, type(error).__name__)
        return None


def _state(raw: Any) -> State:
    """Raises ValueError, KeyError or TypeError."""
    if raw["schema"] != 1:
        raise ValueError("another schema")
    ring = tuple((_word(id), (_word(m), _word(v), _answers(a), int(s))) for id, (m, v, a, s) in raw["ring"])
    windows = tuple(
        ((_word(model), _word(version)), tuple((int(serial), bool(right)) for serial, right in judged))
        for (model, version), judged in raw["windows"]
    )
    known = [serial for _, judged in windows for serial, _ in judged]
    known += [serial + len(answers) - 1 for _, (_, _, answers, serial) in ring]
    return State(max([int(raw["serial"]), *known]), ring, windows)


def _word(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError("no word")
    return raw


def _answers(raw: Any) -> tuple[str, ...]:
    """Of each row; an older runtime wrote the word alone, for the only one."""
    if isinstance(raw, str):
        return (raw,)
    if not isinstance(raw, list) or not raw:
        raise TypeError("no answers")
    return tuple(map(_word, raw))


def _labelled(pair: Pair) -> tuple[tuple[str, str], ...]:
    return (("model", pair[0]), ("version", pair[1]))


def _gauge(name: str, words: str, values: Sequence[tuple[Pair, float]]) -> Family:
    return Family(name, "gauge", words, tuple(Sample(value, _labelled(pair)) for pair, value in values))

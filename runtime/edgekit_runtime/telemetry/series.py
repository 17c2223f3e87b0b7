"""Families of samples taken apart into series, which have names, and numbers, which change. Pure.

Refuses nothing: of two samples of the same series the later is taken, of more than `MOST` series the first."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_runtime.families import Family, Kind, Labels

Key = tuple[str, str, Labels]
"""Family, suffix and labels: what tells one series from another."""
Values = npt.NDArray[np.float64]
MOST = 10_000
KINDS = ("counter", "gauge", "histogram")


@dataclass(frozen=True, slots=True)
class Series:
    """One line of Prometheus' text, without its number."""

    family: str
    kind: Kind
    words: str
    suffix: str
    labels: Labels

    @property
    def name(self) -> str:
        """As Prometheus calls it."""
        return self.family + self.suffix


@dataclass(frozen=True, slots=True)
class Slot:
    """What all series were at one time; `cursor` rises from slot to slot, `start_ms` is when the process began."""

    cursor: int
    when_ms: int
    start_ms: int
    series: tuple[Series, ...]
    values: Values


def taken_apart(families: Iterable[Family]) -> tuple[tuple[Key, ...], Values]:
    """The series, and the number of each."""
    found = {(family.name, one.suffix, one.labels): one.value for family in families for one in family.samples}
    keys = tuple(islice(found, MOST))
    return keys, np.fromiter(islice(found.values(), MOST), np.float64, len(keys))


def named(keys: Sequence[Key], families: Iterable[Family]) -> bytes:
    """These series for the disk, with what their families say of themselves."""
    about = {family.name: (family.kind, family.words) for family in families}
    order = {name: index for index, name in enumerate(dict.fromkeys(name for name, _, _ in keys))}
    lines = [[order[name], suffix, labels] for name, suffix, labels in keys]
    return json.dumps([[[name, *about[name]] for name in order], lines], separators=(",", ":")).encode()


def read_named(raw: bytes) -> tuple[Series, ...]:
    """What `named` wrote.

    Raises:
        ValueError, TypeError, LookupError: something else wrote it.
    """
    about, lines = json.loads(raw)
    return tuple(_series(about[index], suffix, labels) for index, suffix, labels in lines)


def _series(about: Any, suffix: str, labels: Any) -> Series:
    family, kind, words = about
    named = tuple((name, value) for name, value in labels)
    if kind not in KINDS or not all(isinstance(one, str) for one in (family, words, suffix, *sum(named, ()))):
        raise TypeError("no series")
    return Series(family, kind, words, suffix, named)

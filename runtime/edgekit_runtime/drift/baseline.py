"""What inputs and outputs looked like when the bundle was built: for each feature how many samples were in each bin.

Refuses, as `BadBundle`, what is no baseline, and more features or bins than any baseline has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edgekit_runtime.errors import BadBundle

SCHEMA = 1
MAX_FEATURES, MAX_EDGES, MAX_CLASSES, MAX_NAME, MAX_COUNT = 256, 64, 63, 200, 2**40
"""63 classes are told apart; all others count as one more."""


@dataclass(frozen=True)
class Numeric:
    """A number's histogram: `counts[i]` were above `edges[i - 1]` and at most `edges[i]`; the outermost lie beyond
    all that was seen, and a NaN counts as beyond the largest."""

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Categories:
    """How often each of `classes` was predicted; the last of `counts` is for all others.

    `chosen` says that the classes were picked as the most frequent, by samples that are not in `counts`.
    """

    name: str
    classes: tuple[int, ...]
    counts: tuple[int, ...]
    chosen: bool = False


Feature = Numeric | Categories


@dataclass(frozen=True)
class Baseline:
    """The features of `n` samples; a feature's own counts may be of fewer of them."""

    n: int
    features: tuple[Feature, ...]


def to_json(baseline: Baseline) -> dict[str, Any]:
    """The JSON object that `parse_baseline` reads back."""
    return {"schema": SCHEMA, "n": baseline.n, "features": [_feature_json(one) for one in baseline.features]}


def parse_baseline(raw: object) -> Baseline:
    """The baseline that `raw` (decoded JSON) describes.

    Raises:
        BadBundle: it is none, or larger than any that `Recorder` makes.
    """
    if not isinstance(raw, Mapping):
        raise BadBundle("the drift baseline is not a JSON object", hint="build the bundle again")
    if raw.get("schema") != SCHEMA:
        raise BadBundle(
            f"the drift baseline has another schema than {SCHEMA}, which this runtime reads",
            hint="update edgekit-runtime",
        )
    features = tuple(_feature(one) for one in _listed(raw.get("features"), "features", MAX_FEATURES))
    if len({feature.name for feature in features}) != len(features):
        raise _bad("names a feature twice")
    return Baseline(_count(raw.get("n")), features)


def _feature_json(feature: Feature) -> dict[str, Any]:
    if isinstance(feature, Numeric):
        return {"name": feature.name, "edges": list(feature.edges), "counts": list(feature.counts)}
    classes, counts = list(feature.classes), list(feature.counts)
    return {"name": feature.name, "classes": classes, "counts": counts, "chosen": feature.chosen}


def _feature(raw: object) -> Feature:
    if not isinstance(raw, Mapping):
        raise _bad("holds a feature that is no object")
    name = raw.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise _bad("holds a feature without a plain name")
    counts = tuple(_count(one) for one in _listed(raw.get("counts"), "counts", MAX_EDGES + 1))
    if not sum(counts):
        raise _bad("holds a feature that nothing was counted for")
    if "classes" in raw:
        classes = tuple(_whole(one, -1) for one in _listed(raw["classes"], "classes", MAX_CLASSES))
        if len(set(classes)) != len(classes) or len(counts) != len(classes) + 1:
            raise _bad("has counts that do not fit its classes")
        if not isinstance(raw.get("chosen"), bool):
            raise _bad("does not say how its classes were chosen")
        return Categories(name, classes, counts, raw["chosen"])
    edges = tuple(_finite(one) for one in _listed(raw.get("edges"), "edges", MAX_EDGES))
    if any(low >= high for low, high in pairwise(edges)) or len(counts) != len(edges) + 1:
        raise _bad("has edges that do not rise, or counts that do not fit them")
    return Numeric(name, edges, counts)


def _listed(raw: object, what: str, most: int) -> list[Any]:
    if not isinstance(raw, list) or len(raw) > most:
        raise _bad(f"has {what} that are no list of at most {most}")
    return raw


def _count(raw: object) -> int:
    return _whole(raw, 0)


def _whole(raw: object, least: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= MAX_COUNT:
        raise _bad("holds a count or class that is no whole number")
    return raw


def _finite(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise _bad("holds an edge that is no number")
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise _bad("holds an edge that is no number")
    return value


def _bad(what: str) -> BadBundle:
    return BadBundle(f"the drift baseline {what}", hint="build the bundle again")

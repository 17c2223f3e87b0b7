"""From words to an `Order`: the one place where flags, edgekit.toml and the Python call are parsed.

Refuses a key that no order has, with "did you mean"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError

from edgekit.evidence import parse_budget
from edgekit.job import Order, read_labels, read_toml
from edgekit.model import Origin, parse_shape
from edgekit.plan import FORMATS, known
from edgekit.target import PRECISIONS

PROJECT = "edgekit.toml"


@dataclass(frozen=True)
class Words:
    """An order as it is typed, in a flag, a file or a call; None or empty where nothing was said."""

    model: str | None = None
    target: Sequence[str] = ()
    data: str | None = None
    calibration: str | None = None
    weights: str | None = None
    shape: Sequence[str] = ()
    preprocess: str | Mapping[str, Any] | None = None
    labels: str | None = None
    metric: str | None = None
    output: str | None = None
    max_drop: str | None = None
    format: str | None = None
    precision: str | None = None
    integer_io: bool = False
    calibration_samples: int = 256
    out: str | None = None
    name: str | None = None
    version: str = "1"


KEYS = tuple(Words.__dataclass_fields__)
LISTS = ("target", "shape")


def parse_order(words: Words) -> Order:
    """The order that the words give.

    Raises:
        EdgeKitError: something is missing or does not read.
    """
    if not words.model:
        raise EdgeKitError(
            "no model", hint=f"say edgekit build MODEL --target TARGET, or write {PROJECT} (edgekit init MODEL)"
        )
    if not words.target:
        raise EdgeKitError("no target", hint="say --target NAME (edgekit targets list)")
    known("format", words.format, FORMATS)
    known("precision", words.precision, PRECISIONS)
    if words.calibration_samples < 1:
        raise EdgeKitError(f"{words.calibration_samples} calibration samples", hint="ask for at least 1")
    preprocess = words.preprocess
    return Order(
        origin=parse_origin(words.model, words.weights, words.shape),
        targets=tuple(dict.fromkeys(words.target)),
        data=words.data,
        calibration=words.calibration,
        preprocess=read_toml(Path(preprocess)) if isinstance(preprocess, str) else preprocess,
        labels=read_labels(Path(words.labels)) if words.labels else (),
        metric=words.metric,
        output=words.output,
        max_drop=parse_budget(words.max_drop) if words.max_drop else None,
        format=words.format,
        precision=words.precision,
        integer_io=words.integer_io,
        calibration_samples=words.calibration_samples,
        out=Path(words.out) if words.out else None,
        name=words.name,
        version=words.version,
    )


def parse_origin(model: str, weights: str | None = None, shapes: Sequence[str] = ()) -> Origin:
    """What was typed of a model."""
    return Origin(model, Path(weights) if weights else None, tuple(map(parse_shape, shapes)))


def read_project(path: Path) -> dict[str, Any]:
    """The words that an edgekit.toml gives, checked by key and type; one target or shape may stand without brackets."""
    raw = read_toml(path)
    for key, value in raw.items():
        known("key", key, KEYS)
        if key in LISTS and isinstance(value, str):
            raw[key] = value = [value]
        wanted = {"integer_io": bool, "calibration_samples": int, "target": list, "shape": list}.get(key, str)
        if not isinstance(value, wanted) and not (key == "preprocess" and isinstance(value, dict)):
            raise EdgeKitError(
                f"{path}: {key} is {value!r}",
                hint=f"write {'a table or ' if key == 'preprocess' else ''}a {wanted.__name__}",
            )
    return raw

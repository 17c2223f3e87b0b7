"""The order and everything opened for it: one value that the steps of a build share.

Refuses preprocessing that names no input of the model, and a primary output that does not exist."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Preprocess, parse_preprocess
from edgekit_runtime.tensors import TensorSpec

from edgekit.cache import Cache
from edgekit.data import open_data
from edgekit.dataset import Dataset, Wanted, refuse_overlap, split
from edgekit.evidence import Budget
from edgekit.model import Model, Origin, Tell


@dataclass(frozen=True)
class Order:
    """What the user ordered, parsed. `preprocess` is a table, `labels` words, `out` where the bundle goes."""

    origin: Origin
    targets: tuple[str, ...]
    data: str | None = None
    calibration: str | None = None
    preprocess: Mapping[str, Any] | None = None
    labels: tuple[str, ...] = ()
    metric: str | None = None
    output: str | None = None
    max_drop: Budget | None = None
    format: str | None = None
    precision: str | None = None
    integer_io: bool = False
    calibration_samples: int = 256
    out: Path | None = None
    name: str | None = None
    version: str = "1"


@dataclass(frozen=True)
class Job:
    """An order with its model read and its data open. `primary` is the output whose quality is judged."""

    order: Order
    model: Model
    fingerprint: str
    primary: TensorSpec
    calibration: Dataset | None
    evaluation: Dataset | None
    cache: Cache
    tell: Tell


def open_job(order: Order, model: Model, fingerprint: str, cache: Cache, tell: Tell) -> Job:
    """Open the order's data, check it against the model, split it where calibration was not given apart."""
    primary = _primary(order, model)
    classes = primary.shape[-1] if len(primary.shape) == 2 and (primary.shape[-1] or 0) > 1 else None
    judged = classes if order.metric in (None, "top1", "top5") else None
    wanted = Wanted(model.inputs, judged, order.labels, preprocessing(order.preprocess, model))
    if classes and order.labels and len(order.labels) != classes:
        raise EdgeKitError(f"{len(order.labels)} labels for {classes} classes", hint="give one line for each class")
    if order.data:
        tell(f"opening {order.data}")
    evaluation = open_data(order.data, wanted) if order.data else None
    calibration = open_data(order.calibration, wanted) if order.calibration else None
    if evaluation is not None and calibration is not None:
        refuse_overlap(calibration, evaluation)
        if len(calibration) > order.calibration_samples:
            calibration = evenly(calibration, order.calibration_samples)
    elif evaluation is not None:
        calibration, evaluation = split(evaluation, order.calibration_samples)
    return Job(order, model, fingerprint, primary, calibration, evaluation, cache, tell)


def evenly(data: Dataset, count: int) -> Dataset:
    """`count` samples spread evenly over `data`."""
    return data.take([i * len(data) // count for i in range(count)])


def preprocessing(raw: Mapping[str, Any] | None, model: Model) -> Preprocess | None:
    """The declared preprocessing, checked against the model's inputs."""
    if raw is None:
        return None
    names = [spec.name for spec in model.inputs]
    given = dict(raw)
    if "input" not in given and len(names) == 1:
        given["input"] = names[0]
    if given.get("input") not in names:
        raise EdgeKitError(
            f"preprocessing is for input {given.get('input')!r}; the model takes {', '.join(names)}",
            hint=f'write input = "{names[0]}"',
        )
    return parse_preprocess(given)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict. Raises EdgeKitError when it is missing or does not read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EdgeKitError(f"no file {path}", hint="name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise EdgeKitError(f"{path} does not read: {error}", hint="mend its TOML") from error


def read_labels(path: Path) -> tuple[str, ...]:
    """The words for the classes, one a line."""
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeKitError(f"{path} does not read: {error}", hint="give a text file with a class a line") from error


def _primary(order: Order, model: Model) -> TensorSpec:
    if order.output is None:
        return next((spec for spec in model.outputs if spec.dtype.startswith("float")), model.outputs[0])
    for spec in model.outputs:
        if spec.name == order.output:
            return spec
    raise EdgeKitError(f"no output {order.output!r}", hint=f"use one of {', '.join(s.name for s in model.outputs)}")

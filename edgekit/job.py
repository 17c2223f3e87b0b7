"""The order and everything opened for it: one value that the steps of a build share.

Refuses preprocessing that names no input of the model, and a primary output that does not exist."""

import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess import Preprocess, parse_preprocess
from edgekit_runtime.tensors import TensorSpec

from edgekit.cache import Cache
from edgekit.data import open_data
from edgekit.dataset import Dataset, Wanted, refuse_overlap, split
from edgekit.goals import Goals
from edgekit.model import Model, Origin, Tell
from edgekit.searching import search_share


@dataclass(frozen=True)
class Order:
    """What the user ordered, parsed. `preprocess` is a table, `labels` words, `out` where the bundle goes, `least` the
    share of the operators that has to run on an accelerator.

    `release` and `expires` are the manifest's; `keys` is the folder of the keys, of which `key` signs.
    """

    origin: Origin
    targets: tuple[str, ...]
    data: str | None = None
    calibration: str | None = None
    preprocess: Mapping[str, Any] | None = None
    labels: tuple[str, ...] = ()
    metric: str | None = None
    output: str | None = None
    goals: Goals = field(default_factory=Goals)
    best: bool = False
    budget_time_s: float | None = None
    measure_on: str | None = None
    format: str | None = None
    precision: str | None = None
    least: float | None = None
    integer_io: bool = False
    calibration_samples: int = 256
    with_float: bool = False
    exam: bool | None = None
    out: Path | None = None
    name: str | None = None
    version: str = "1"
    release: int | None = None
    expires: int | None = None
    keys: Path = Path()
    key: str | None = None
    unsigned: bool = False
    command: str = ""


@dataclass(frozen=True)
class Job:
    """An order with its model read and its data open. `primary` is the output whose quality is judged.

    The evaluation samples are in a random order of their own (seeded): the search sees the first `seen` of them,
    a confirmation the others. `places[i]` is where sample i stands in the data as they were given. `deadline` is
    the time (of the clock) when the search ends with what it has; None where there is none. `secret` signs the bundle.
    """

    order: Order
    model: Model
    fingerprint: str
    primary: TensorSpec
    calibration: Dataset | None
    evaluation: Dataset | None
    cache: Cache
    tell: Tell
    seen: int = 0
    places: tuple[int, ...] = ()
    deadline: float | None = None
    wanted: Wanted | None = None
    secret: bytes | None = field(default=None, repr=False)

    def word(self, index: int) -> str:
        """A class in words: its label, or its number where there is none."""
        return self.order.labels[index] if index < len(self.order.labels) else str(index)

    def late(self) -> bool:
        """Whether the time that was given for the search is over."""
        return self.deadline is not None and time.monotonic() > self.deadline


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
    if calibration is not None and len(calibration) > order.calibration_samples:
        calibration = evenly(calibration, order.calibration_samples)
    if evaluation is not None and calibration is not None:
        tell("looking for samples that are in both calibration and evaluation")
        refuse_overlap(calibration, evaluation)
    elif evaluation is not None:
        calibration, evaluation = split(evaluation, order.calibration_samples)
    job = Job(order, model, fingerprint, primary, calibration, evaluation, cache, tell, wanted=wanted)
    if order.budget_time_s is not None:
        job = replace(job, deadline=time.monotonic() + order.budget_time_s)
    if evaluation is None:
        return job
    places = np.random.default_rng(0).permutation(len(evaluation))
    seen = search_share(len(evaluation)) if order.goals.judged else 0
    shuffled = evaluation.take([int(place) for place in places])
    return replace(job, evaluation=shuffled, seen=seen, places=tuple(map(shuffled.place_of, range(len(shuffled)))))


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
    wanted = parse_preprocess(given)
    if extra := [name for name in wanted.inputs if name not in names]:
        raise EdgeKitError(
            f"preprocessing makes {', '.join(extra)} too; the model takes {', '.join(names)}",
            hint="name mask and types as the model does, or leave them out",
        )
    return wanted


def read_preprocess(path: Path) -> Mapping[str, Any]:
    """The preprocessing that a TOML file declares, with the files that lie beside it."""
    return anchored(read_toml(path), path.parent)


def vocabulary(order: Order) -> str | None:
    """The file that the order's preprocessing reads, where it names one."""
    named = (order.preprocess or {}).get("vocab")
    return named if isinstance(named, str) else None


def anchored(raw: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """A table of preprocessing that was found in `folder`, as one that may be read from anywhere."""
    vocab = raw.get("vocab")
    return {**raw, "vocab": str(folder.resolve() / vocab)} if isinstance(vocab, str) else raw


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

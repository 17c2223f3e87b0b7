"""From words to an `Order`: the one place where flags, edgekit.toml and the Python call are parsed.

Refuses a key that no order has, with "did you mean"."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError

from edgekit.evidence import METRICS
from edgekit.goals import Goals, parse_amount, parse_budget
from edgekit.job import Order, read_labels, read_preprocess, read_toml
from edgekit.keys import default_home
from edgekit.model import Origin, parse_shape
from edgekit.plan import FORMATS, known
from edgekit.target import PRECISIONS

PROJECT = "edgekit.toml"
FLAGS = {"version": "bundle-version"}
"""Flags that are named otherwise than their key."""


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
    max_class_drop: str | None = None
    max_latency: str | None = None
    max_size: str | None = None
    max_memory: str | None = None
    smaller: bool = False
    best: bool = False
    budget_time: str | None = None
    measure_on: str | None = None
    format: str | None = None
    precision: str | None = None
    min_accelerated: str | None = None
    integer_io: bool = False
    calibration_samples: int = 256
    with_float: bool = False
    exam: bool | None = None
    out: str | None = None
    name: str | None = None
    version: str = "1"
    release: int | None = None
    expires: str | None = None
    keys: str | None = None
    key: str | None = None
    unsigned: bool = False


KEYS = tuple(Words.__dataclass_fields__)
FOR_SIZE = ("float16", "int8-weights", "int4-weights")
"""Precisions that a CPU stores and does not compute in: who names one wants it for its size."""
LISTS = ("target", "shape")
TYPES: dict[str, type] = {
    **dict.fromkeys(("integer_io", "smaller", "best", "with_float", "exam", "unsigned"), bool),
    **dict.fromkeys(LISTS, list),
    **dict.fromkeys(("calibration_samples", "release"), int),
}
"""What a key of the project file holds, where it is not a text."""


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
    if words.metric is not None and ":" not in words.metric:
        known("metric", words.metric, tuple(METRICS))
    goals = _goals(words)
    if goals.judged and not words.data:
        raise EdgeKitError("a limit on the loss needs data to hold it against", hint="say --data DATA")
    if words.best and not goals.judged:
        raise EdgeKitError(
            "--best takes what costs the least to run, and nothing says how much it may lose",
            hint="say --max-drop 0.5pt too, or leave out --best",
        )
    if words.calibration_samples < 1:
        raise EdgeKitError(f"{words.calibration_samples} calibration samples", hint="ask for at least 1")
    if words.unsigned and words.key:
        raise EdgeKitError("--key and --unsigned contradict each other", hint="say one of them")
    if words.release is not None and words.release < 0:
        raise EdgeKitError(
            f"--release {words.release} is no release", hint="say a number that grows from build to build"
        )
    preprocess = words.preprocess
    return Order(
        origin=parse_origin(words.model, words.weights, words.shape),
        targets=tuple(dict.fromkeys(words.target)),
        data=words.data,
        calibration=words.calibration,
        preprocess=read_preprocess(Path(preprocess)) if isinstance(preprocess, str) else preprocess,
        labels=read_labels(Path(words.labels)) if words.labels else (),
        metric=words.metric,
        output=words.output,
        goals=goals,
        best=words.best,
        budget_time_s=parse_amount("--budget-time", words.budget_time, "time") / 1e3 if words.budget_time else None,
        measure_on=words.measure_on,
        format=words.format,
        precision=words.precision,
        least=parse_share("--min-accelerated", words.min_accelerated) if words.min_accelerated else None,
        integer_io=words.integer_io,
        calibration_samples=words.calibration_samples,
        with_float=words.with_float,
        exam=words.exam,
        out=Path(words.out) if words.out else None,
        name=words.name,
        version=words.version,
        release=words.release,
        expires=parse_expiry(words.expires) if words.expires else None,
        keys=Path(words.keys) if words.keys else default_home(),
        key=words.key,
        unsigned=words.unsigned,
        command=command_of(words),
    )


def command_of(words: Words) -> str:
    """The command line that gives this order again."""
    said = ["edgekit", "build", words.model or ""]
    for field in fields(words):
        value, flag = getattr(words, field.name), f"--{FLAGS.get(field.name, field.name).replace('_', '-')}"
        if field.name in ("model", "preprocess") or value == field.default:
            continue
        if isinstance(value, bool):
            said.append(flag if value else flag.replace("--", "--no-", 1))
        elif field.name in LISTS:
            said += [word for item in value for word in (flag, item)]
        else:
            said += [flag, str(value)]
    if isinstance(words.preprocess, str):
        said += ["--preprocess", words.preprocess]
    return shlex.join(said)


def _goals(words: Words) -> Goals:
    memory = parse_amount("--max-memory", words.max_memory, "size") if words.max_memory else None
    return Goals(
        max_drop=parse_budget(words.max_drop) if words.max_drop else None,
        max_class_drop=parse_budget(words.max_class_drop, "--max-class-drop") if words.max_class_drop else None,
        max_latency_ms=parse_amount("--max-latency", words.max_latency, "time") if words.max_latency else None,
        max_bytes=int(parse_amount("--max-size", words.max_size, "size")) if words.max_size else None,
        max_memory_mb=None if memory is None else memory / 1e6,
        smaller=words.smaller or words.precision in FOR_SIZE,
    )


def parse_share(flag: str, text: str) -> float:
    """The share that "90%" or "0.9" means.

    Raises:
        EdgeKitError: it is none.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:  # not a number neither
        raise EdgeKitError(f"{flag} {text!r} is no share", hint="say 90%, or 0.9; 100% lets nothing stay on the CPU")
    return share


def parse_expiry(text: str) -> int:
    """The Unix second that "90d" (days from now) or "2027-12-31" (its end, UTC) means.

    Raises:
        EdgeKitError: it is neither, or past.
    """
    now = datetime.now(UTC)
    try:
        if text.endswith("d"):
            end = now + timedelta(days=int(text[:-1]))
        else:
            end = datetime.combine(date.fromisoformat(text), time(), UTC) + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise EdgeKitError(f"--expires {text!r} is no day", hint="say 365d, or 2027-12-31") from error
    if end <= now:
        raise EdgeKitError(f"--expires {text}: that is past", hint="say a day to come, or leave it out")
    return int(end.timestamp())


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
        wanted = TYPES.get(key, str)
        if not isinstance(value, wanted) and not (key == "preprocess" and isinstance(value, dict)):
            raise EdgeKitError(
                f"{path}: {key} is {value!r}",
                hint=f"write {'a table or ' if key == 'preprocess' else ''}a {wanted.__name__}",
            )
    return raw

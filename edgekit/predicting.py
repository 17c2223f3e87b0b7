"""`edgekit predict`: one question to a server, as a person asks it, and the answer in words, bars and milliseconds.

Refuses inputs that the served model does not take before sending them; photos, sounds and texts go as they are."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.printable import safe
from edgekit_runtime.protocols.v2_tensors import DATATYPES, datatype_of, from_bytes, from_list
from edgekit_runtime.show import outputs as output_words
from edgekit_runtime.tensors import Array, Feeds

from edgekit.calling import Access, Answer, Ask, Place, calling
from edgekit.posting import Body, encoded_body, read_input, tensor_body
from edgekit.refusals import decoded, only_model, refusal, stranger

if TYPE_CHECKING:
    from rich.console import RenderableType

TOP = 5


@dataclass(frozen=True)
class Question:
    """The `--input` values, how many labels are wanted (None: not said), and how often to ask."""

    inputs: tuple[str, ...]
    top: int | None = None
    repeat: int = 1


@dataclass(frozen=True)
class Predicted:
    """Who answered what; `times` are the milliseconds of each asking, as this client saw them."""

    server: str
    model: str
    version: str
    top: tuple[tuple[str, float], ...]
    outputs: Feeds
    times: tuple[float, ...]


def predict(place: Place, question: Question, access: Access, stdin: BinaryIO) -> Predicted:
    """Ask the server at `place`; where it names no model and the server has one, that one is meant.

    Raises:
        EdgeKitError: a file does not read, the server is not there, or it refuses.
    """
    given = [read_input(text, stdin) for text in question.inputs]
    encoded = encoded_body(given)
    with calling(place, access) as ask:
        if place.name is None:
            place = replace(place, name=only_model(ask, place))
        body = encoded or tensor_body(given, _metadata(ask, place), question.top)
        path = f"{_path(place)}/infer" + (f"?top_k={question.top or TOP}" if encoded else "")
        answers = [_timed(ask, path, body)]
        while answers[-1][0].status == 200 and len(answers) < question.repeat:
            answers.append(_timed(ask, path, body))
        answer = answers[-1][0]
        if answer.status != 200:
            raise refusal(ask, place, answer, len(answers) - 1)
        head, outputs = _read_answer(answer, place)
    named = str(head.get("model_name") or place.name), str(head.get("model_version") or place.version or "")
    return Predicted(str(place), *named, _top(head, outputs), outputs, tuple(ms for _, ms in answers))


def _timed(ask: Ask, path: str, body: Body) -> tuple[Answer, float]:
    start = time.perf_counter()
    answer = ask("POST", path, body.data, body.headers)
    return answer, (time.perf_counter() - start) * 1e3


def to_json(found: Predicted) -> dict[str, Any]:
    """The answer for a program; flat, row-major data."""
    return {
        "server": found.server,
        "model": found.model,
        "version": found.version,
        "top": [{"label": label, "score": score} for label, score in found.top],
        "outputs": [
            {
                "name": name,
                "datatype": datatype_of(value),
                "shape": list(value.shape),
                "data": [
                    item if isinstance(item, bool | int | float) else str(item) for item in value.ravel().tolist()
                ],
            }
            for name, value in found.outputs.items()
        ],
        "ms": [round(ms, 3) for ms in found.times],
    }


def shown(found: Predicted) -> "list[RenderableType]":
    """The answer for a person: labels with bars, or the outputs in short; then how long it took."""
    from rich.bar import Bar
    from rich.markup import escape
    from rich.table import Table

    parts: list[RenderableType] = []
    if found.top:
        bars = all(0 <= score <= 1 for _, score in found.top)
        table = Table(box=None, pad_edge=False, show_header=False)
        for label, score in found.top:
            cells: list[RenderableType] = [Bar(1.0, 0.0, score, width=24, color="green")] if bars else []
            table.add_row(escape(safe(label)), *cells, f"{score:.4f}")
        parts.append(table)
    else:
        parts.append(escape(safe(output_words(found.outputs))))
    version = f" {found.version}" if found.version else ""
    parts.append(f"[dim]{escape(safe(f'{found.model}{version} at {found.server}: {_latency(found.times)}'))}[/]")
    return parts


def _latency(times: Sequence[float]) -> str:
    if len(times) == 1:
        return f"{times[0]:.1f} ms"
    half, late = np.percentile(times, [50, 99])
    worst = f"p99 {late:.2f} ms" if len(times) >= 100 else f"slowest {max(times):.2f} ms"
    return f"p50 {half:.2f} ms, {worst}, n = {len(times):,}, one after the other"


def _path(place: Place) -> str:
    version = f"/versions/{quote(place.version, safe='')}" if place.version else ""
    return f"/v2/models/{quote(place.name or '', safe='')}{version}"


def _metadata(ask: Ask, place: Place) -> Mapping[str, Any]:
    answer = ask("GET", _path(place), None, {})
    if answer.status != 200:
        raise refusal(ask, place, answer, 0)
    found = decoded(answer.body)
    if not isinstance(found, dict) or not _listed(found.get("inputs")) or not _listed(found.get("outputs")):
        raise stranger(ask, place)
    return found


def _listed(side: Any) -> bool:
    return isinstance(side, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and isinstance(one.get("shape"), list)
        and all(isinstance(size, int) for size in one["shape"])
        and isinstance(one.get("datatype"), str)
        for one in side
    )


def _read_answer(answer: Answer, place: Place) -> tuple[Mapping[str, Any], Feeds]:
    """What was answered, and its tensors: binary ones lie behind the JSON."""
    length = answer.headers.get("inference-header-content-length", "")
    size = int(length) if length.isascii() and length.isdigit() else len(answer.body)
    head, rest = decoded(answer.body[:size]), memoryview(answer.body)[size:]
    outputs: Feeds = {}
    try:
        for one in head["outputs"]:
            shape = tuple(int(n) for n in one["shape"])
            if min(shape, default=0) < 0 or one["datatype"] not in DATATYPES:
                raise ValueError
            count = (one.get("parameters") or {}).get("binary_data_size")
            if count is None:
                outputs[one["name"]] = from_list(one["data"], one["datatype"], shape, one["name"])
            else:
                outputs[one["name"]] = from_bytes(rest[:count], one["datatype"], shape, one["name"])
                rest = rest[count:]
    except (EdgeKitError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise EdgeKitError(
            f"{place} answered what does not read as v2", hint="look at it with --json, or curl"
        ) from error
    return head, outputs


def _top(head: Mapping[str, Any], outputs: Feeds) -> tuple[tuple[str, float], ...]:
    """The labels that came: EdgeKit's own, or the v2 classification's "score:index:label" of the first sample."""
    said = head.get("parameters")
    best = said.get("top") if isinstance(said, dict) else None
    if isinstance(best, list):
        return tuple((str(one["label"]), float(one["score"])) for one in best if isinstance(one, dict))
    for value in outputs.values():
        rows = [str(item).split(":", 2) for item in _first(value)] if value.dtype.kind == "O" else []
        if rows and all(len(row) > 1 and _number(row[0]) is not None for row in rows):
            return tuple((row[2] if len(row) > 2 else f"class {row[1]}", float(row[0])) for row in rows)
    return ()


def _first(value: Array) -> list[Any]:
    row: Array = value.reshape(len(value), -1)[0] if value.ndim > 1 and len(value) else value
    return row.ravel().tolist()


def _number(text: str) -> float | None:
    try:
        return found if math.isfinite(found := float(text)) else None
    except ValueError:
        return None

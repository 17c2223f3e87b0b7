"""A bundle as a filter: a line of JSON in, a line of JSON out, in order, for as long as lines come.

Refuses a bad line with its number, and goes on with the next; holds one line at a time, of a bounded length."""

import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgekit_runtime.answer import top
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.inputs import fitted, read_inputs
from edgekit_runtime.preprocess import Preprocess, apply
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec

LONGEST = 64 * 2**20
LARGEST_FILE = 512 * 2**20
PIECE = 2**16
ARRAYS = (".npy", ".npz")
FILES = ("image", "file", "audio")
USES = 'write {"inputs": {"NAME": [...]}}, a list for the only input, {"file": "photo.jpg"} or {"b64": "..."}'


@dataclass(frozen=True)
class Filter:
    """`top` labels for each line; `strict` ends at the first bad one; a line is of at most `longest` bytes."""

    top: int = 5
    strict: bool = False
    longest: int = LONGEST


@dataclass(frozen=True)
class _Model:
    inputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    preprocess: Preprocess | None
    run: Runner


def run_filter(bundle: Bundle, lines: BinaryIO, out: Callable[[str], None], wanted: Filter | None = None) -> int:
    """Answer every line of `lines` by one call of `out`, before the next is read; gives 1 if any was bad, else 0.

    Raises:
        EdgeKitError: the bundle does not run here.
    """
    wanted = wanted or Filter()
    specs = tuple(port.spec for port in bundle.manifest.inputs)
    model = _Model(specs, bundle.labels(), bundle.preprocess(), bundle.open_model())
    failed, number = 0, 0
    while line := lines.readline(wanted.longest + 1):
        number += 1
        given: Any = None
        try:
            if len(line) > wanted.longest:
                _skip_rest(line, lines)
                raise BadRequest(f"the line is longer than {wanted.longest} bytes", hint="name a file instead")
            if not line.strip():
                continue
            given = _decoded(line)
            answer = _answer(model, given, wanted.top)
        except EdgeKitError as error:
            failed = 1
            answer = {"error": error.what, "hint": error.hint or _takes(model), "line": number}
        if isinstance(given, dict) and "id" in given:
            answer = {"id": given["id"], **answer}
        out(json.dumps(answer, separators=(",", ":")))
        if failed and wanted.strict:
            break
    return failed


def _skip_rest(line: bytes, lines: BinaryIO) -> None:
    while line and not line.endswith(b"\n"):
        line = lines.readline(PIECE)


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise BadRequest("the line is not UTF-8", hint=USES) from error
    except RecursionError as error:
        raise BadRequest("the line is nested too deeply", hint=USES) from error
    except ValueError as error:
        raise BadRequest(f"the line is not JSON: {str(error)[:100]}", hint=USES) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise BadRequest("an object has the same key twice", hint=USES)
    return made


def _answer(model: _Model, given: Any, count: int) -> dict[str, Any]:
    outputs = model.run(_feeds(model, given))
    answer: dict[str, Any] = {"outputs": {name: _plain(value) for name, value in outputs.items()}}
    best = top(outputs, model.labels, count)
    return answer | {"top": [{"label": label, "score": score} for label, score in best]} if best else answer


def _feeds(model: _Model, given: Any) -> Feeds:
    """The tensors that a line holds or names."""
    by_name = {spec.name: spec for spec in model.inputs}
    if isinstance(given, str) and model.preprocess is not None and model.preprocess.kind == "text":
        return _encoded(model, given.encode())
    if not isinstance(given, dict):
        return {spec.name: _tensor(given, spec) for spec in [_only(model)]}
    named = {key: value for key, value in given.items() if key != "id" or key in by_name}
    if named.keys() == {"inputs"} and "inputs" not in by_name and isinstance(named["inputs"], dict):
        named = named["inputs"]
    elif len(named) == 1 and not named.keys() & by_name.keys():
        key, value = next(iter(named.items()))
        if key in FILES and isinstance(value, str):
            return _file(model, value)
        if key in ("b64", "text") and isinstance(value, str):
            return _encoded(model, _base64(value) if key == "b64" else value.encode())
        if key == "inputs":
            return {spec.name: _tensor(value, spec) for spec in [_only(model)]}
    if named.keys() != by_name.keys():
        missing, extra = sorted(by_name.keys() - named.keys()), sorted(named.keys() - by_name.keys())
        what = f"missing input {', '.join(missing)}" if missing else f"no such input: {', '.join(extra)[:200]}"
        raise BadRequest(what, hint=f"{_takes(model)}; {USES}")
    return {name: _named(model, spec, named[name]) for name, spec in by_name.items()}


def _named(model: _Model, spec: TensorSpec, value: Any) -> Array:
    """One input: its values, or a file or bytes that hold it."""
    if isinstance(value, Mapping):
        key = next(iter(value), "")
        single = len(value) == 1 and isinstance(value[key], str)
        if single and key in FILES:
            return _one(_file(model, value[key], spec), spec)
        if single and key == "b64":
            return _one(_encoded(model, _base64(value[key])), spec)
        raise BadRequest(f"{spec.name}: an object that is no file and no bytes", hint=USES)
    return _tensor(value, spec)


def _one(feeds: Feeds, spec: TensorSpec) -> Array:
    if spec.name not in feeds:
        raise BadRequest(f"{spec.name} does not come from that", hint="give the numbers, or a .npy")
    return feeds[spec.name]


def _tensor(value: Any, spec: TensorSpec) -> Array:
    """Nested lists as a tensor, with the axis of the batch that they may lack."""
    try:
        made = np.array(value, dtype=object if spec.dtype == "object" else None)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{spec.name}: the lists are not all of one size", hint=f"the model takes {spec}") from error
    if spec.dtype == "object" and not all(isinstance(item, str) for item in made.ravel().tolist()):
        raise BadRequest(f"{spec.name}: expected strings", hint=f"the model takes {spec}")
    if made.dtype.kind in "OUS" and spec.dtype != "object":
        raise BadRequest(f"{spec.name}: expected numbers", hint=f"the model takes {spec}")
    if made.size == 0 and made.dtype.kind == "f":
        made = made.astype(spec.dtype)
    return fitted(made, spec)


def _file(model: _Model, name: str, spec: TensorSpec | None = None) -> Feeds:
    """What a file holds: arrays, or something to be preprocessed. Paths are taken from where the filter runs."""
    path = Path(name)
    try:
        found = path.is_file() and path.stat().st_size <= LARGEST_FILE
    except (OSError, ValueError) as error:
        raise BadRequest(f"cannot look at {name[:200]!r}", hint="give the path of a file") from error
    if not found:
        raise BadRequest(f"no file {name[:200]!r}, or too large a one", hint="paths count from where you started this")
    if path.suffix.lower() in ARRAYS:
        return read_inputs([str(path)], [spec] if spec else model.inputs, None)
    try:
        return _encoded(model, path.read_bytes())
    except OSError as error:
        raise BadRequest(f"{name[:200]!r} does not read: {error.strerror}", hint="check its permissions") from error


def _encoded(model: _Model, data: bytes) -> Feeds:
    if model.preprocess is None:
        raise BadRequest("the bundle takes tensors only", hint="build it with --preprocess, or give lists or a .npy")
    by_name = {spec.name: spec for spec in model.inputs}
    return {name: fitted(value, by_name[name]) for name, value in apply(model.preprocess, data).items()}


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise BadRequest("b64 does not hold base64 text", hint="use the standard alphabet with its padding") from error


def _only(model: _Model) -> TensorSpec:
    if len(model.inputs) != 1:
        raise BadRequest(f"the model takes {len(model.inputs)} inputs: name each", hint=USES)
    return model.inputs[0]


def _takes(model: _Model) -> str:
    return f"the model takes {', '.join(map(str, model.inputs))}"


def _plain(value: Array) -> Any:
    if value.dtype.kind not in "OUS":
        return value.tolist()
    words = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in value.ravel()]
    return np.array(words, dtype=object).reshape(value.shape).tolist()

"""What a person gives to `edgekit predict`, as the body of one v2 request: encoded as it is, or as binary tensors.

Refuses files that are no photo, sound, text or array, and arrays that the served model does not take."""

import difflib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.inputs import fitted
from edgekit_runtime.protocols.v2_tensors import DATATYPES, datatype_of, to_bytes
from edgekit_runtime.tensors import Feeds, TensorSpec

MAGICS = {
    b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif", b"BM": "image/bmp", b"II*\0": "image/tiff", b"MM\0*": "image/tiff", b"fLaC": "audio/flac",
}  # fmt: skip
RIFFS = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
ARRAYS = ("npy", "npz")
FILES = "give photo.jpg, sound.wav, text.txt, x.npy, x.npz, NAME=x.npy or - for standard input"


@dataclass(frozen=True)
class Given:
    """One `--input`: what the person wrote, the input it is for, its kind ("npy", "npz" or a media type), its bytes."""

    words: str
    name: str | None
    kind: str
    data: bytes


@dataclass(frozen=True)
class Body:
    """What is posted."""

    headers: Mapping[str, str]
    data: bytes


def read_input(text: str, stdin: BinaryIO) -> Given:
    name, path = None, Path(text)
    if "=" in text and not path.exists():
        name, _, rest = text.rpartition("=")
        path = Path(rest)
    try:
        data = stdin.read() if str(path) == "-" else path.read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise EdgeKitError(f"{path} does not read: {why}", hint=FILES) from error
    return Given(text, name, _kind(data, path), data)


def _kind(data: bytes, path: Path) -> str:
    """By the first bytes; a text has none of its own."""
    if data[:4] == b"RIFF" and data[8:12] in RIFFS:
        return RIFFS[data[8:12]]
    for magic, kind in MAGICS.items():
        if data.startswith(magic):
            return kind
    from mimetypes import guess_type

    guess = guess_type(path.name)[0] or ""
    if guess.startswith(("image/", "audio/")):
        return guess
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EdgeKitError(f"{path.name} is no photo, sound, text or array that is known", hint=FILES) from error
    if not data:
        raise EdgeKitError(f"{path.name} is empty", hint=FILES)
    return "text/plain; charset=utf-8"


def encoded_body(given: Sequence[Given]) -> Body | None:
    """The body where something goes as it is; None where all inputs are arrays."""
    encoded = [one for one in given if one.kind not in ARRAYS]
    if not encoded:
        return None
    if len(given) > 1 or encoded[0].name is not None:
        raise EdgeKitError(
            f"{encoded[0].words} is sent as it is, and nothing can go beside it",
            hint="give it alone and without a name, or all inputs as arrays: NAME=x.npy",
        )
    return Body({"Content-Type": encoded[0].kind}, encoded[0].data)


def tensor_body(given: Sequence[Given], metadata: Mapping[str, Any], top: int | None) -> Body:
    """A binary v2 request; with `top`, the outputs come as their best classes."""
    feeds = _feeds(given, [_spec(one) for one in metadata["inputs"]])
    data = {name: to_bytes(value) for name, value in feeds.items()}
    inputs = [
        {
            "name": name,
            "shape": list(value.shape),
            "datatype": datatype_of(value),
            "parameters": {"binary_data_size": len(data[name])},
        }
        for name, value in feeds.items()
    ]
    head: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if top is not None:
        best = {"classification": top, "binary_data": False}
        head["outputs"] = [{"name": one["name"], "parameters": best} for one in metadata["outputs"]]
    text = json.dumps(head).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    return Body(headers, b"".join([text, *data.values()]))


def _feeds(given: Sequence[Given], specs: Sequence[TensorSpec]) -> Feeds:
    by_name = {spec.name: spec for spec in specs}
    takes = f"the model takes {', '.join(map(str, specs))}"
    feeds: Feeds = {}
    for one in given:
        for own, value in _arrays(one).items():
            name = one.name or own or (specs[0].name if len(specs) == 1 else "")
            if name not in by_name:
                what = f"no such input: {name}" if name else f"{one.words} is for one of {len(specs)} inputs"
                raise EdgeKitError(f"{what}{nearest(name, list(by_name))}", hint=f"{takes}; say NAME=x.npy")
            if name in feeds:
                raise EdgeKitError(f"input {name} is given twice", hint="give each input once")
            try:
                feeds[name] = fitted(value, by_name[name])
            except BadRequest as error:
                raise BadRequest(error.what, hint=error.hint or takes) from error
    if missing := [name for name in by_name if name not in feeds]:
        raise EdgeKitError(f"missing input {', '.join(missing)}", hint=takes)
    return feeds


def _arrays(one: Given) -> Feeds:
    """The arrays of a .npz by name, or of a .npy under the empty name. Never unpickles."""
    try:
        loaded = np.load(io.BytesIO(one.data), allow_pickle=False)
        return {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise EdgeKitError(f"{one.words} does not read as numpy arrays", hint="write it with numpy.save") from error


def _spec(raw: Mapping[str, Any]) -> TensorSpec:
    if raw["datatype"] not in DATATYPES or raw["datatype"] == "BF16":
        raise EdgeKitError(f"input {raw['name']} is {raw['datatype']}, which numpy has not", hint="use another client")
    shape = tuple(None if size < 0 else int(size) for size in raw["shape"])
    return TensorSpec(str(raw["name"]), DATATYPES[raw["datatype"]], shape)


def nearest(word: str, known: Sequence[str]) -> str:
    """ ", did you mean ...?" where something is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5) if word else []
    return f", did you mean {near[0]}?" if near else ""

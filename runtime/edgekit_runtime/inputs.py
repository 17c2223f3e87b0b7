"""What a person gives as `--input`: a photo, a sound, a text, a .npy, a .npz or NAME=FILE, as the model takes them.

Refuses a name the model does not have, numbers that would change in its types, and pickled arrays."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekit_runtime.errors import BadRequest, NotFound
from edgekit_runtime.preprocess import Preprocess, apply
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

WORDS = {"image": "photo", "audio": "sound", "text": "text"}
SUFFIXES = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    "audio": (".wav", ".wave"),
    "text": (".txt",),
}
"""What kind of preprocessing a file is for, by its ending."""


def read_inputs(given: Sequence[str], specs: Sequence[TensorSpec], preprocess: Preprocess | None) -> Feeds:
    """The feeds that the `--input` values in `given` name.

    Raises:
        BadRequest: a file or a name does not fit the model.
        NotFound: there is no such file.
    """
    feeds: Feeds = {}
    for text in given:
        for name, value in _read(text, specs, preprocess).items():
            if name in feeds:
                raise BadRequest(f"input {name} is given twice", hint="give each input once")
            feeds[name] = value
    by_name = {spec.name: spec for spec in specs}
    if extra := sorted(feeds.keys() - by_name.keys()):
        raise BadRequest(f"no such input: {', '.join(extra)}", hint=_takes(specs))
    if missing := [spec.name for spec in specs if spec.name not in feeds]:
        raise BadRequest(f"missing input {', '.join(missing)}", hint=_takes(specs))
    return {name: fitted(value, by_name[name]) for name, value in feeds.items()}


def fitted(value: Array, spec: TensorSpec) -> Array:
    """`value` in the type of `spec`, with the batch axis it may lack.

    Raises:
        BadRequest: that would change numbers (beyond a float's own rounding), or the shape does not fit.
    """
    if not spec.accepts(value.shape) and spec.shape and spec.shape[0] in (None, 1) and spec.accepts((1, *value.shape)):
        value = value[None]
    value = np.ascontiguousarray(_cast(value, spec)).reshape(value.shape)
    spec.check(value)
    return value


def _read(text: str, specs: Sequence[TensorSpec], preprocess: Preprocess | None) -> Feeds:
    name, path = None, Path(text)
    if "=" in text and not path.exists():
        name, _, rest = text.rpartition("=")
        path = Path(rest)
    if not path.is_file():
        raise NotFound(f"no file {path}", hint="give --input photo.jpg, sound.wav, text.txt, x.npy, x.npz or NAME=FILE")
    ending = path.suffix.lower()
    if ending == ".npz":
        if name is not None:
            raise BadRequest(f"{path.name} holds arrays with their own names", hint=f"give --input {path}")
        return _arrays(path)
    if ending == ".npy":
        return {name or _only(specs): _arrays(path)[""]}
    for kind, suffixes in SUFFIXES.items():
        if ending in suffixes:
            _check_kind(kind, name, specs, preprocess)
            assert preprocess is not None
            return apply(preprocess, path)
    raise BadRequest(
        f"{path.name} is neither a photo, a sound or a text nor .npy nor .npz",
        hint="give a .jpg, .png, .wav or .txt, or save the tensor with numpy.save",
    )


def _check_kind(kind: str, name: str | None, specs: Sequence[TensorSpec], preprocess: Preprocess | None) -> None:
    """Raise unless the bundle turns files of this kind into the input `name`, where one is said."""
    word = WORDS[kind]
    if preprocess is None:
        raise BadRequest(
            f"the bundle does not say how to turn a {word} into {', '.join(spec.name for spec in specs)}",
            hint="build it with --preprocess, or give the tensor as .npy",
        )
    if preprocess.kind != kind:
        wanted = WORDS[preprocess.kind]
        raise BadRequest(f"the bundle takes a {wanted}, not a {word}", hint=f"give a {wanted}, or the tensor as .npy")
    if name not in (None, preprocess.input):
        raise BadRequest(f"{word}s go to the input {preprocess.input}, not {name}", hint=f"give {name}=FILE.npy")


def _arrays(path: Path) -> Feeds:
    """The arrays of a .npz by name, or of a .npy under the empty name. Never unpickles."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise BadRequest(f"{path.name} does not read as numpy arrays: {str(error).splitlines()[0]}") from error


def _only(specs: Sequence[TensorSpec]) -> str:
    if len(specs) != 1:
        raise BadRequest(f"the model takes {len(specs)} inputs", hint="give each as NAME=FILE.npy, or all in one .npz")
    return specs[0].name


def _cast(value: Array, spec: TensorSpec) -> Array:
    """Floats may be rounded to other floats; everything else must come back the same."""
    wanted = np.dtype(spec.dtype)
    if value.dtype == wanted and value.dtype.isnative:
        return value
    refusal = BadRequest(f"{spec.name}: expected {spec.dtype}, got {value.dtype.name}", hint="convert the array first")
    if wanted.kind == "O" and value.dtype.kind in "US":
        return value.astype(str).astype(object)
    if wanted.kind not in "fiub" or value.dtype.kind not in "fiub":
        raise refusal
    with np.errstate(all="ignore"):
        cast = value.astype(wanted)
        if value.dtype.kind == wanted.kind == "f":
            same = np.array_equal(np.isfinite(cast), np.isfinite(value))
        else:
            same = np.array_equal(cast.astype(value.dtype), value) and bool(np.all((cast < 0) == (value < 0)))
    if not same:
        raise BadRequest(
            f"{spec.name}: {value.dtype.name} values that {spec.dtype} cannot hold", hint="convert the array first"
        )
    return cast


def _takes(specs: Sequence[TensorSpec]) -> str:
    return f"the model takes {', '.join(map(str, specs))}"

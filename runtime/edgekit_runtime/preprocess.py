"""From a photo to the tensor a model was trained on, as the manifest says: the same code in evaluation and on device.

Refuses unknown or impossible settings, files that are no image, and images too large to decode."""

import difflib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.tensors import Array, Feeds

Source = bytes | Path | str | Array
"""An image: encoded bytes, a file, or uint8 pixels (height, width[, channels]) in RGB order."""

CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
LAYOUTS = {"NCHW": (2, 0, 1), "CHW": (2, 0, 1), "NHWC": (0, 1, 2), "HWC": (0, 1, 2), "NHW": (0, 1), "HW": (0, 1)}
DTYPES = ("float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_SIDE = 16384
MAX_PIXELS = 89_478_485
"""Pillow's own warning level, here an error."""

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the input named `input`: `(pixels * scale - mean) / std`, pixels from 0 to 255.

    `resize` is the shorter side or (height, width); `crop` a centre crop. `mean` and `std` hold one
    number or one per channel.
    """

    kind: str
    input: str
    channels: str = "RGB"
    resize: Size | None = None
    interpolation: str = "bilinear"
    crop: Size | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "NCHW"
    dtype: str = "float32"


def parse_preprocess(raw: Mapping[str, Any]) -> Preprocess:
    """The preprocessing that `raw` (decoded TOML or JSON) declares.

    Raises:
        EdgeKitError: a setting is missing, unknown, of the wrong type or impossible.
    """
    if not isinstance(raw, Mapping):
        raise EdgeKitError(
            "the preprocessing is not a table of settings", hint='write kind = "image", input = "x", ...'
        )
    known = [field.name for field in fields(Preprocess)]
    for key in raw:
        if key not in known:
            raise EdgeKitError(f"preprocessing has no setting {key!r}", hint=_guess(str(key), known))
    for key in ("kind", "input"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise EdgeKitError(
                f"preprocessing lacks {key}", hint='write kind = "image" and input = "NAME OF THE INPUT"'
            )
    read = {key: READERS[key](key, value) for key, value in raw.items() if value is not None}
    wanted = Preprocess(**read)
    _check_together(wanted)
    return wanted


def to_json(wanted: Preprocess) -> dict[str, Any]:
    """The JSON object that `parse_preprocess` reads back."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(wanted).items()
        if value is not None
    }


def apply(preprocess: Preprocess, image: Source) -> Feeds:
    """The input tensor of one image, with a batch of one where the layout has an N.

    Raises:
        BadRequest: it is no image, too large to decode, or too small for the crop.
        EdgeKitError: Pillow is needed and not installed.
    """
    return {preprocess.input: KINDS[preprocess.kind](preprocess, image)}


def _image(wanted: Preprocess, source: Source) -> Array:
    pixels = _pixels(wanted, source)
    if wanted.crop is not None:
        pixels = _cropped(pixels, wanted.crop)
    if wanted.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = np.array(wanted.mean, np.float32), np.array(wanted.std, np.float32)
    values = (pixels.astype(np.float32) * np.float32(wanted.scale) - mean) / std
    if np.issubdtype(np.dtype(wanted.dtype), np.integer):
        limits = np.iinfo(wanted.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    if "C" not in wanted.layout:
        values = values[:, :, 0]
    values = np.ascontiguousarray(values.transpose(LAYOUTS[wanted.layout]), dtype=wanted.dtype)
    return values[None] if "N" in wanted.layout else values


def _pixels(wanted: Preprocess, source: Source) -> Array:
    """uint8 (height, width, channels), RGB or gray, resized."""
    count = CHANNELS[wanted.channels]
    if isinstance(source, np.ndarray):
        source = _plain_pixels(source)
        if wanted.resize is None and (source.shape[2] == count or source.shape[2] == 1):
            return np.broadcast_to(source, (*source.shape[:2], count))
    pillow = _pillow()
    image = _decoded(pillow, source).convert("L" if count == 1 else "RGB")
    if wanted.resize is not None:
        size = _resized_size(image.height, image.width, wanted.resize)
        how = getattr(pillow.Resampling, wanted.interpolation.upper())
        image = image.resize((size[1], size[0]), how)
    return np.asarray(image).reshape(image.height, image.width, count)


def _plain_pixels(source: Array) -> Array:
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or 0 in source.shape:
        raise BadRequest(
            f"an image must be uint8 (height, width, channels), got {source.dtype.name}{list(source.shape)}"
        )
    pixels = source if source.ndim == 3 else source[:, :, None]
    if pixels.shape[2] not in (1, 3, 4):
        raise BadRequest(f"an image has 1, 3 or 4 channels in its last axis, got {pixels.shape[2]}")
    return pixels[:, :, :3]


def _decoded(pillow: Any, source: Source) -> Any:
    """A Pillow image, upright, in a mode that converts to RGB and L without loss of meaning."""
    if isinstance(source, np.ndarray):
        return pillow.fromarray(np.ascontiguousarray(source[:, :, 0] if source.shape[2] == 1 else source))
    from PIL import ImageOps

    name = "the image" if isinstance(source, bytes) else Path(source).name
    try:
        image = pillow.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise pillow.DecompressionBombError
        image = ImageOps.exif_transpose(image)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise BadRequest(f"{name} has more than {MAX_PIXELS} pixels", hint="scale it down first") from error
    except FileNotFoundError as error:
        raise BadRequest(f"no image at {source!s}", hint="give the path of a photo") from error
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error and more
        raise BadRequest(f"{name} is not an image that can be read", hint=f"send {', '.join(FORMATS)}") from error
    if image.mode.startswith("I"):  # 16-bit gray: the high byte, as Pillow does for 16-bit colour
        return pillow.fromarray((np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("F", "LAB"):
        raise BadRequest(f"{name} holds {image.mode} pixels", hint="save it as RGB, or give the tensor as .npy")
    return image.convert("RGBA") if image.mode in ("P", "PA") else image


def _resized_size(height: int, width: int, wanted: Size) -> tuple[int, int]:
    """As torchvision rounds: the longer side is cut down to a whole pixel."""
    if not isinstance(wanted, int):
        return wanted
    short, long = min(height, width), max(height, width)
    longer = int(wanted * long / short)
    if wanted * longer > MAX_PIXELS:
        raise BadRequest(f"an image of {height}x{width} pixels is too long to resize to {wanted}", hint="crop it first")
    return (wanted, longer) if height <= width else (longer, wanted)


def _cropped(pixels: Array, wanted: Size) -> Array:
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise BadRequest(
            f"an image of {pixels.shape[0]}x{pixels.shape[1]} pixels is smaller than the crop {height}x{width}",
            hint="send a larger image, or set resize in the preprocessing",
        )
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise EdgeKitError(
            "reading an image needs Pillow, which is not installed",
            hint="install edgekit-runtime with its [image] extra: pip install './runtime[image]'",
        ) from error
    return Image


KINDS: dict[str, Callable[[Preprocess, Source], Array]] = {"image": _image}
"""What can be preprocessed. Another kind is a line here and a function from its source to a tensor."""


def _one_of(known: Any) -> Callable[[str, Any], str]:
    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise EdgeKitError(f"preprocessing {key} = {value!r} is not known", hint=_guess(str(value), list(known)))
        return value

    return read


def _text(key: str, value: Any) -> str:
    return str(value)


def _size(key: str, value: Any) -> Size:
    sides = value if isinstance(value, list | tuple) else [value]
    fit = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side <= MAX_SIDE for side in sides)
    if not fit or (sides is value and len(sides) != 2):
        raise EdgeKitError(
            f"preprocessing {key} = {value!r} is not a size", hint=f"write {key} = 224 or {key} = [height, width]"
        )
    return (sides[0], sides[1]) if sides is value else sides[0]


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EdgeKitError(f"preprocessing {key} = {value!r} is not a number", hint=f"write for example {key} = 1.0")
    return float(value)


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    return tuple(_number(key, item) for item in (value if isinstance(value, list | tuple) else [value]))


READERS: dict[str, Callable[[str, Any], Any]] = {
    "kind": _one_of(KINDS),
    "input": _text,
    "channels": _one_of(CHANNELS),
    "resize": _size,
    "interpolation": _one_of(INTERPOLATIONS),
    "crop": _size,
    "scale": _number,
    "mean": _numbers,
    "std": _numbers,
    "layout": _one_of(LAYOUTS),
    "dtype": _one_of(DTYPES),
}


def _check_together(wanted: Preprocess) -> None:
    count = CHANNELS[wanted.channels]
    for key, values in (("mean", wanted.mean), ("std", wanted.std)):
        if len(values) not in (1, count):
            raise EdgeKitError(
                f"preprocessing {key} has {len(values)} numbers for {count} channels", hint=f"give 1 or {count}"
            )
    if wanted.scale == 0 or 0 in wanted.std:
        raise EdgeKitError("preprocessing scale and std cannot be 0", hint="leave them out for 1.0")
    if "C" not in wanted.layout and count != 1:
        raise EdgeKitError(
            f"layout {wanted.layout} has no channel axis", hint='set channels = "GRAY" or layout = "NCHW"'
        )
    if wanted.crop is not None and wanted.resize is not None:
        crop = (wanted.crop, wanted.crop) if isinstance(wanted.crop, int) else wanted.crop
        resize = (wanted.resize, wanted.resize) if isinstance(wanted.resize, int) else wanted.resize
        over = min(crop) > min(resize) if isinstance(wanted.resize, int) else crop[0] > resize[0] or crop[1] > resize[1]
        if over:
            raise EdgeKitError(
                f"crop {wanted.crop} is larger than resize {wanted.resize}", hint="make resize at least the crop"
            )


def _guess(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5) or [k for k in known if k.lower() == word.lower()]
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"

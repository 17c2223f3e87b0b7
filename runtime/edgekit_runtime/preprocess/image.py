"""From a photo to a tensor: decoded, upright, resized, cropped, in the channels and numbers that the model takes.

Refuses files that are no image, images too large to decode, and those smaller than the crop."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest, EdgeKitError, NotOffered
from edgekit_runtime.preprocess.kinds import Photo, Size, Source
from edgekit_runtime.preprocess.settings import (
    REALS,
    Reader,
    check_normal,
    in_dtype,
    number,
    numbers,
    one_of,
    read_table,
    text,
)  # fmt: skip
from edgekit_runtime.tensors import Array, Feeds

CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
LAYOUTS = {"NCHW": (2, 0, 1), "CHW": (2, 0, 1), "NHWC": (0, 1, 2), "HWC": (0, 1, 2), "NHW": (0, 1), "HW": (0, 1)}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_SIDE = 16384
MAX_PIXELS = 89_478_485
"""Pillow's own warning level, here an error."""


def read(raw: Mapping[str, Any], folder: Path | None) -> Photo:
    """The settings of a table; no file is named by them."""
    wanted = Photo(**read_table(raw, READERS))
    _check_together(wanted)
    return wanted


def feeds(wanted: Photo, source: Source) -> Feeds:
    """The tensor of one image.

    Raises:
        BadRequest: it is no image, too large to decode, or too small for the crop.
        NotOffered: Pillow is needed and not installed.
    """
    pixels = _pixels(wanted, source)
    if wanted.crop is not None:
        pixels = _cropped(pixels, wanted.crop)
    if wanted.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = np.array(wanted.mean, np.float32), np.array(wanted.std, np.float32)
    values = (pixels.astype(np.float32) * np.float32(wanted.scale) - mean) / std
    if "C" not in wanted.layout:
        values = values[:, :, 0]
    values = in_dtype(values.transpose(LAYOUTS[wanted.layout]), wanted.dtype)
    return {wanted.input: values[None] if "N" in wanted.layout else values}


def _pixels(wanted: Photo, source: Source) -> Array:
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
        raise NotOffered(
            "reading an image needs Pillow, which is not installed",
            hint="install edgekit-runtime with its [image] extra: pip install './runtime[image]'",
        ) from error
    return Image


def _size(key: str, value: Any) -> Size:
    sides = value if isinstance(value, list | tuple) else [value]
    fit = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side <= MAX_SIDE for side in sides)
    if not fit or (sides is value and len(sides) != 2):
        raise EdgeKitError(
            f"preprocessing {key} = {value!r} is not a size", hint=f"write {key} = 224 or {key} = [height, width]"
        )
    return (sides[0], sides[1]) if sides is value else sides[0]


READERS: dict[str, Reader] = {
    "input": text,
    "channels": one_of(CHANNELS),
    "resize": _size,
    "interpolation": one_of(INTERPOLATIONS),
    "crop": _size,
    "scale": number,
    "mean": numbers,
    "std": numbers,
    "layout": one_of(LAYOUTS),
    "dtype": one_of(REALS),
}


def _check_together(wanted: Photo) -> None:
    count = CHANNELS[wanted.channels]
    check_normal(wanted.scale, wanted.mean, wanted.std, count, "channels")
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

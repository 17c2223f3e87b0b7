"""Pictures as people and hashes see them: from a file, or from the tensor that a model takes.

Refuses nothing: what is no picture is None."""

import warnings
from pathlib import Path

import numpy as np
from edgekit_runtime.tensors import Array
from PIL import Image, ImageOps

LEAST_SIDE = 16
"""Pixels; a tensor whose sides are shorter is not taken for a picture."""
CHANNELS = (1, 3, 4)


def pixels_of(feed: Array) -> Array | None:
    """The (height, width, channels) of a batch of one, [1, C, H, W] or [1, H, W, C]; None where it is no picture."""
    if feed.ndim != 4 or feed.shape[0] != 1 or feed.dtype.kind not in "fiu":
        return None
    if feed.shape[1] in CHANNELS and min(feed.shape[2:]) >= LEAST_SIDE:
        return np.asarray(feed[0].transpose(1, 2, 0))
    if feed.shape[3] in CHANNELS and min(feed.shape[1:3]) >= LEAST_SIDE:
        return np.asarray(feed[0])
    return None


def stretched(pixels: Array) -> Image.Image:
    """Numbers of any range as a picture: the smallest black, the largest white. A fourth channel is left out."""
    values = pixels[:, :, :3].astype(np.float32)
    low, high = values.min(), values.max()
    return from_bytes((values - low) * (255 / (high - low) if high > low else 0))


def from_bytes(pixels: Array) -> Image.Image:
    """Numbers from 0 to 255, (height, width, 1 or 3), as a grey or an RGB picture; what is beyond is cut off."""
    whole = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return Image.fromarray(whole[:, :, 0] if whole.shape[2] == 1 else whole)


def opened(path: Path, side: int) -> Image.Image | None:
    """The picture in a file, upright, grey or RGB; its sides may be as short as `side` already. None if unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.draft(image.mode, (side, side))  # lets the JPEG decoder scale: several times faster
                upright = ImageOps.exif_transpose(image)
                return upright if upright.mode in ("L", "RGB") else upright.convert("RGB")
    except Exception:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error and more
        return None

"""What a person can look at of a sample: a picture, a curve, a few numbers.

Refuses nothing: what cannot be shown is None."""

import io

import numpy as np
from edgekit_runtime.preprocess import Photo, Preprocess
from edgekit_runtime.tensors import Array
from PIL import Image

from edgekit.dataset import Dataset, Wanted
from edgekit.pictures import from_bytes, opened, pixels_of, stretched

SIDE = 96
"""The longest side of a picture, in pixels; a smaller one stays as it is."""
POINTS = 200
"""Numbers of a channel of a series."""
LEAST_POINTS, MOST_CHANNELS = 16, 8
LEAST_ROW = 100
"""Numbers in [1, n] from which a row is taken for a curve: rows of tables are shorter."""
RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))
"""Ranges that pixels usually come in; other numbers are stretched from their smallest to their largest."""


def picture_of(data: Dataset, index: int, wanted: Wanted) -> bytes | None:
    """A PNG of sample `index`, its longest side at most 96, grey or RGB; None where it is no picture."""
    image = opened(data.files[index], SIDE) if data.files else _picture_in(data, index, wanted.preprocess)
    if image is None:
        return None
    image.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return written.getvalue()


def series_of(data: Dataset, index: int) -> list[list[float]] | None:
    """The channels of sample `index`, each at most 200 numbers; None where no input is a series.

    A series is [1, time], [1, time, channels] or [1, channels, time] of real numbers; of several, the longest. A
    long one is told by the extremes of 100 stretches in turn, so that no peak is lost.
    """
    found = [channels for feed in data.feeds(index).values() if (channels := _channels(feed)) is not None]
    if not found:
        return None
    return [[float(f"{number:.4g}") for number in _thinned(channel)] for channel in max(found, key=lambda c: c.size)]


def values_of(data: Dataset, index: int) -> dict[str, str]:
    """For each input the first of its numbers, its type and its size, as in `3, 1, 4, ... (int64, 16 numbers)`."""
    return {name: _told(feed) for name, feed in data.feeds(index).items()}


def _picture_in(data: Dataset, index: int, preprocess: Preprocess | None) -> Image.Image | None:
    """The first input that is a picture, as it was before it was preprocessed where that is known."""
    for name, feed in data.feeds(index).items():
        pixels = pixels_of(feed)
        if pixels is None:
            continue
        if isinstance(preprocess, Photo) and preprocess.input == name:
            return _unprocessed(pixels, preprocess)
        ranged = pixels[:, :, :3].astype(np.float32)
        for low, high in RANGES:
            if low <= ranged.min() and ranged.max() <= high:
                return from_bytes((ranged - low) * (255 / (high - low)))
        return stretched(ranged)
    return None


def _unprocessed(pixels: Array, preprocess: Photo) -> Image.Image:
    """The pixels from 0 to 255 that `preprocess` made these numbers of."""
    mean, std = np.array(preprocess.mean, np.float32), np.array(preprocess.std, np.float32)
    found = (pixels.astype(np.float32) * std + mean) / np.float32(preprocess.scale)
    return from_bytes(found[:, :, ::-1] if preprocess.channels == "BGR" else found)


def _channels(feed: Array) -> Array | None:
    """[channels, time] of a series; None where it is none."""
    if feed.dtype.kind != "f" or feed.ndim not in (2, 3) or feed.shape[0] != 1:
        return None
    if feed.ndim == 2:
        return feed if feed.shape[1] >= LEAST_ROW else None
    channels = feed[0] if feed.shape[1] < feed.shape[2] else feed[0].T
    return channels if channels.shape[1] >= LEAST_POINTS and 0 < channels.shape[0] <= MOST_CHANNELS else None


def _thinned(channel: Array) -> Array:
    if len(channel) <= POINTS:
        return channel
    pieces = np.array_split(channel.astype(np.float64), POINTS // 2)
    return np.array([extreme for piece in pieces for extreme in (piece.min(), piece.max())])


def _told(feed: Array) -> str:
    numbers = feed.reshape(-1)
    first = ", ".join(f"{number:.3g}" if feed.dtype.kind == "f" else str(number) for number in numbers[:8])
    if numbers.size == 1:
        return first
    return f"{first}{', ...' * (numbers.size > 8)} ({feed.dtype.name}, {numbers.size:,} numbers)"

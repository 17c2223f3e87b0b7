"""The logarithm of a mel spectrogram, as librosa, torchaudio and TensorFlow make it.

Refuses a sound that is too short for one frame, and more numbers than fit into memory."""

from functools import lru_cache

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.preprocess.kinds import LogMel
from edgekit_runtime.preprocess.wav import MAX_VALUES
from edgekit_runtime.tensors import Array

BLOCK = 2**20
"""Samples of frames that are transformed together."""


def log_mel(values: Array, wanted: LogMel, rate: int) -> Array:
    """(n_mels, frames) of float32 `values` (time) at `rate`.

    Raises:
        BadRequest: too short, or too long.
    """
    count = wanted.count(len(values))
    if count < 1:
        raise BadRequest(f"a sound of {len(values)} samples is too short", hint="send a longer one")
    if count * wanted.n_mels > MAX_VALUES:
        raise BadRequest(f"a sound of {len(values)} samples is too long", hint="send a shorter piece")
    if wanted.frames == "centre":
        values = np.pad(values, wanted.fft // 2, mode="reflect")
    window, bands = _window(wanted), bank(wanted, rate)
    frames = np.lib.stride_tricks.sliding_window_view(values, len(window))[:: wanted.hop][:count]
    found = np.empty((wanted.n_mels, count), np.float32)
    step = max(1, BLOCK // wanted.fft)
    for start in range(0, count, step):
        spectrum = np.abs(np.fft.rfft(frames[start : start + step] * window, n=wanted.fft))
        found[:, start : start + step] = (spectrum**wanted.power @ bands.T).T
    return _logarithm(found, wanted)


def bank(wanted: LogMel, rate: int) -> Array:
    """(n_mels, fft / 2 + 1): the triangular filters."""
    return _bank(wanted.n_mels, wanted.fft, wanted.mel, wanted.norm, (wanted.f_min, wanted.f_max or rate / 2, rate))


@lru_cache(maxsize=8)
def _bank(count: int, fft: int, scale: str, norm: str, span: tuple[float, float, int]) -> Array:
    low, high, rate = span
    to_mel, to_hertz = SCALES[scale]
    edges = to_hertz(np.linspace(to_mel(low), to_mel(high), count + 2))
    bins = np.linspace(0, rate / 2, fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    found: Array = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        found *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return found


def _window(wanted: LogMel) -> Array:
    """Hann's, periodic; in the middle of `fft` where frames stand around their time."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(wanted.window) / wanted.window)
    if wanted.frames == "whole":
        return window
    before = (wanted.fft - wanted.window) // 2
    return np.pad(window, (before, wanted.fft - wanted.window - before))


def _logarithm(values: Array, wanted: LogMel) -> Array:
    values = np.maximum(values, np.float32(wanted.floor)) + np.float32(wanted.offset)
    found = np.log(values) if wanted.log == "ln" else np.log10(values)
    if wanted.log == "db":
        found *= np.float32(10)
    return found if wanted.top is None else np.maximum(found, found.max() - np.float32(wanted.top))


def _htk(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _htk_back(mels: Array) -> Array:
    return np.asarray(700 * (10 ** (mels / 2595) - 1))


def _slaney(hertz: float) -> float:
    """Even below 1 kHz, logarithmic above."""
    return hertz * 3 / 200 if hertz < 1000 else float(15 + np.log(hertz / 1000) * (27 / np.log(6.4)))


def _slaney_back(mels: Array) -> Array:
    return np.where(mels < 15, mels * (200 / 3), 1000 * np.exp((np.maximum(mels, 15) - 15) * (np.log(6.4) / 27)))


SCALES = {"htk": (_htk, _htk_back), "slaney": (_slaney, _slaney_back)}

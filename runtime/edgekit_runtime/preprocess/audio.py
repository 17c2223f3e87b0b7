"""From a recording to a tensor: one channel at the model's rate, so many samples, or a log-mel spectrogram of them.

Refuses what is no wav, a channel that is not there, and sounds too long or too short."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.preprocess.files import encoded
from edgekit_runtime.preprocess.kinds import LogMel, Sound, Source
from edgekit_runtime.preprocess.mel import SCALES, log_mel
from edgekit_runtime.preprocess.resampling import resampled
from edgekit_runtime.preprocess.settings import (
    REALS,
    Reader,
    check_normal,
    in_dtype,
    number,
    numbers,
    one_of,
    positive,
    read_table,
    text,
    whole,
)  # fmt: skip
from edgekit_runtime.preprocess.wav import LEAST_RATE, MAX_VALUES, MOST_RATE, Recording, read_wav
from edgekit_runtime.tensors import Array, Feeds

MAX_BYTES = 8 * MAX_VALUES + 2**16
SAMPLES = ("T", "NT", "NCT", "NTC", "CT", "TC")
FEATURES = ("FT", "TF", "NFT", "NTF", "NCFT", "NCTF", "NFTC", "NTFC")
"""The layouts of samples and of features: N and C have the size 1, F are the bands."""
READERS: dict[str, Reader] = {
    "input": text,
    "rate": whole(LEAST_RATE, MOST_RATE),
    "channel": whole(0, 2**16),
    "samples": whole(1, MAX_VALUES),
    "align": one_of(("start", "centre", "end")),
    "scale": number,
    "features": one_of(("log-mel",)),
    "mean": numbers,
    "std": numbers,
    "layout": one_of((*SAMPLES, *FEATURES)),
    "dtype": one_of(REALS),
    "n_mels": whole(1, 4096),
    "fft": whole(2, 2**16),
    "window": whole(1, 2**16),
    "hop": whole(1, 2**16),
    "mel": one_of(SCALES),
    "norm": one_of(("none", "slaney")),
    "f_min": number,
    "f_max": positive,
    "power": positive,
    "frames": one_of(("centre", "whole")),
    "log": one_of(("ln", "log10", "db")),
    "floor": positive,
    "offset": number,
    "top": positive,
}


def read(raw: Mapping[str, Any], folder: Path | None) -> Sound:
    """The settings of a table; no file is named by them."""
    found = read_table(raw, READERS)
    if "rate" not in found:
        raise EdgeKitError("preprocessing lacks rate", hint="write for example rate = 16000")
    mel = {field.name: found.pop(field.name) for field in fields(LogMel) if field.name in found}
    if mel and "features" not in found:
        raise EdgeKitError(f"preprocessing {next(iter(mel))} is for features", hint='write features = "log-mel" too')
    if "features" in found:
        found |= {"features": LogMel(**mel), "layout": found.get("layout", "NFT")}
    wanted = Sound(**found)
    _check_together(wanted)
    return wanted


def _check_together(wanted: Sound) -> None:
    mel = wanted.features
    check_normal(wanted.scale, wanted.mean, wanted.std, mel.n_mels if mel else 1, "bands" if mel else "channel")
    layouts = FEATURES if mel else SAMPLES
    if wanted.layout not in layouts:
        raise EdgeKitError(
            f"layout {wanted.layout} is not one of {'features' if mel else 'samples'}",
            hint=f"use one of {', '.join(layouts)}",
        )
    if mel is None:
        return
    if mel.window > mel.fft:
        raise EdgeKitError(f"window {mel.window} is longer than fft {mel.fft}", hint=f"write fft = {mel.window}")
    high = wanted.rate / 2 if mel.f_max is None else mel.f_max
    if not 0 <= mel.f_min < high <= wanted.rate / 2:
        raise EdgeKitError(
            f"bands from {mel.f_min:g} to {high:g} Hz do not fit a rate of {wanted.rate}",
            hint=f"set f_min and f_max within 0 and {wanted.rate / 2:g}",
        )
    if mel.floor + mel.offset <= 0:
        raise EdgeKitError(f"offset {mel.offset:g} leaves no logarithm", hint="set it above minus floor")
    if wanted.samples is not None and mel.count(wanted.samples) < 1:
        raise EdgeKitError(f"{wanted.samples} samples are too few for a frame", hint=f"write samples = {mel.fft}")


def feeds(wanted: Sound, source: Source) -> Feeds:
    """The tensor of one recording.

    Raises:
        BadRequest: it is no wav, or too long or short.
    """
    values = _channel(_recording(wanted, source), wanted)
    if wanted.samples is not None:
        values = _of_length(values, wanted.samples, wanted.align)
    with np.errstate(all="ignore"):  # floats beyond any sound overflow; what comes of it is looked at
        values = values * np.float32(wanted.scale)
        if wanted.features is not None:
            values = log_mel(values, wanted.features, wanted.rate)
        spread = (-1, *[1] * (values.ndim - 1))
        mean, std = np.array(wanted.mean, np.float32), np.array(wanted.std, np.float32)
        values = (values - mean.reshape(spread)) / std.reshape(spread)
        if not np.isfinite(values).all():
            raise BadRequest("the sound holds numbers beyond all measure", hint="send samples from -1 to 1")
        values = in_dtype(_laid_out(values, wanted.layout), wanted.dtype)
    return {wanted.input: values}


def _recording(wanted: Sound, source: Source) -> Recording:
    if not isinstance(source, np.ndarray):
        return read_wav(*encoded(source if isinstance(source, bytes) else Path(source), MAX_BYTES, "sound"))
    if source.dtype.kind != "f" or source.ndim not in (1, 2) or 0 in source.shape:
        raise BadRequest(f"a sound must be floats (time[, channels]), got {source.dtype.name}{list(source.shape)}")
    return Recording(wanted.rate, source.astype(np.float32).reshape(len(source), -1))


def _channel(recording: Recording, wanted: Sound) -> Array:
    """(time), one channel at the rate that is wanted."""
    count, channels = recording.values.shape
    if wanted.channel is not None and wanted.channel >= channels:
        raise BadRequest(
            f"the sound has {channels} channel(s), the model hears number {wanted.channel}, counted from 0",
            hint="record with more channels",
        )
    if count * wanted.rate > MAX_VALUES * recording.rate:
        raise BadRequest(f"a sound of {count / recording.rate:.0f} seconds is too long", hint="send a shorter piece")
    if wanted.channel is None:
        values = recording.values.mean(axis=1) if channels > 1 else recording.values[:, 0]
    else:
        values = recording.values[:, wanted.channel]
    return resampled(values, recording.rate, wanted.rate)


def _of_length(values: Array, count: int, align: str) -> Array:
    """`count` samples: the rest is cut off, or zeros are put in its place, on the other side of `align`."""
    over = abs(len(values) - count)
    before = {"start": 0, "centre": over // 2, "end": over}[align]
    if len(values) >= count:
        return values[before : before + count]
    return np.pad(values, (before, over - before))


def _laid_out(values: Array, layout: str) -> Array:
    axes = "T" if values.ndim == 1 else "FT"
    kept = [letter for letter in layout if letter in axes]
    values = values.transpose([axes.index(letter) for letter in kept])
    return values.reshape([values.shape[kept.index(letter)] if letter in kept else 1 for letter in layout])

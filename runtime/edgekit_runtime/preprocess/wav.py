"""A wav file as numbers: PCM of 8 to 32 bits, floats of 32 and 64, any channels, plain and extensible headers.

Refuses compressed sound, headers that lie, what is cut off, what holds no sound, and more than fits into memory."""

import struct
from dataclasses import dataclass

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.tensors import Array

MAX_VALUES = 2**24
"""Numbers in a recording, all channels together: almost six minutes at 48 kHz, 64 MiB as floats."""
LEAST_RATE, MOST_RATE = 100, 768_000
MAX_CHUNKS = 1000
STREAMED = 0xFFFFFFFF
"""The size that a recorder writes into a pipe, where it cannot know it: up to the end."""
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID = bytes.fromhex("000000001000800000aa00389b71")
"""How the sub-format of an extensible header ends, behind the number of the format."""
WIDTHS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
NAMES = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "ADPCM", 49: "GSM", 80: "MPEG", 85: "MP3"}
CONVERT = "convert it: ffmpeg -i sound.wav -c:a pcm_s16le plain.wav"


@dataclass(frozen=True)
class Recording:
    """`values` are float32 (time, channels), from -1 to 1; floats of a file may go beyond."""

    rate: int
    values: Array


@dataclass(frozen=True)
class _Form:
    """What the chunk `fmt ` says."""

    coding: int
    channels: int
    rate: int
    bits: int


def read_wav(data: bytes, name: str) -> Recording:
    """The recording in `data`; `name` stands in messages.

    Raises:
        BadRequest: it is no wav, one of a kind that is not read, damaged, empty or too long.
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise BadRequest(f"{name} is not a wav file", hint=CONVERT)
    form, place = None, 12
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            break
        label, size = struct.unpack_from("<4sI", data, place)
        start = place + 8
        streamed = label == b"data" and size == STREAMED
        end = len(data) if streamed else start + size
        if end > len(data):
            raise BadRequest(
                f"{name} is cut off: {size} bytes are announced, {len(data) - start} are there", hint="send it whole"
            )
        if label == b"fmt ":
            form = _form(data[start:end], name)
        elif label == b"data":
            if form is None:
                raise BadRequest(f"{name} does not say the form of its samples before them", hint=CONVERT)
            return Recording(form.rate, _values(memoryview(data)[start:end], form, streamed, name))
        place = end + size % 2
    raise BadRequest(f"{name} holds no samples", hint=CONVERT)


def _form(chunk: bytes, name: str) -> _Form:
    if len(chunk) < 16:
        raise BadRequest(f"{name} has a header of {len(chunk)} bytes", hint=CONVERT)
    coding, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", chunk)
    if coding == EXTENSIBLE:
        if len(chunk) < 40 or chunk[26:40] != GUID:
            raise BadRequest(f"{name} has an extensible header that is not known", hint=CONVERT)
        coding = struct.unpack_from("<H", chunk, 24)[0]
    if coding not in WIDTHS or bits not in WIDTHS[coding]:
        words = NAMES.get(coding, f"of format {coding}") if coding not in WIDTHS else f"of {bits} bits a sample"
        raise BadRequest(f"{name} holds sound {words}, which is not read", hint=CONVERT)
    if not channels or block != channels * bits // 8:
        raise BadRequest(f"{name} has {channels} channels of {bits} bits in blocks of {block} bytes", hint=CONVERT)
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise BadRequest(f"{name} has {rate} samples a second", hint=f"send {LEAST_RATE} to {MOST_RATE}")
    return _Form(coding, channels, rate, bits)


def _values(samples: memoryview, form: _Form, streamed: bool, name: str) -> Array:
    """float32 (time, channels)."""
    block = form.channels * form.bits // 8
    count, rest = divmod(len(samples), block)
    if rest and not streamed:
        raise BadRequest(f"{name} is cut off within a sample", hint="send it whole")
    if not count:
        raise BadRequest(f"{name} holds no sound", hint="send at least one sample")
    if count * form.channels > MAX_VALUES:
        raise BadRequest(
            f"{name} holds {count * form.channels} samples, more than {MAX_VALUES}", hint="send a shorter piece"
        )
    values = _numbers(samples[: count * block], form)
    if form.coding == FLOAT and not np.isfinite(values).all():
        raise BadRequest(f"{name} holds NaN or infinity", hint=CONVERT)
    return values.reshape(count, form.channels)


def _numbers(samples: memoryview, form: _Form) -> Array:
    if form.coding == FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.frombuffer(samples, f"<f{form.bits // 8}").astype(np.float32)
    if form.bits == 8:
        return (np.frombuffer(samples, np.uint8).astype(np.float32) - 128) / 128
    if form.bits == 24:
        wide = np.zeros((len(samples) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(samples, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    return np.frombuffer(samples, f"<i{form.bits // 8}").astype(np.float32) / np.float32(2 ** (form.bits - 1))

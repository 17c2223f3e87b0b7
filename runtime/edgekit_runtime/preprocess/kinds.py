"""What encoded inputs there are, as values: how a photo, a sound or a text becomes the tensors of a model.

Refuses nothing: `parse_preprocess` made them, and looked at every setting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekit_runtime.tensors import Array

Source = bytes | Path | str | Array
"""What is given: encoded bytes, a file, or values: pixels (height, width[, channels]) of uint8 in RGB order, or
samples (time[, channels]) from -1 to 1 at the rate that is wanted. A `str` names a file, but for a text it is the
text."""

Size = int | tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """How an image becomes the input named `input`: `(pixels * scale - mean) / std`, pixels from 0 to 255.

    `resize` is the shorter side or (height, width); `crop` a centre crop. `mean` and `std` hold one
    number or one per channel.
    """

    kind: Literal["image"] = "image"
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

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the tensors that are made."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """The logarithm of a mel spectrogram: log(max(mel, floor) + offset), at most `top` below its largest value.

    `frames` = "centre": each around its time, the sound mirrored at its ends, the window in the middle of `fft`
    (librosa, torch); "whole": only those that lie within the sound, `window` samples followed by zeros (TensorFlow).
    `norm` = "slaney" divides each filter by its width.
    """

    n_mels: int = 64
    fft: int = 512
    window: int = 400
    hop: int = 160
    mel: str = "htk"
    norm: str = "none"
    f_min: float = 0.0
    f_max: float | None = None
    power: float = 2.0
    frames: str = "centre"
    log: str = "ln"
    floor: float = 1e-10
    offset: float = 0.0
    top: float | None = None

    def count(self, samples: int) -> int:
        """How many frames so many samples have; below 1 where they are too few."""
        if self.frames == "centre":
            return 1 + samples // self.hop if samples > self.fft // 2 else 0
        return 1 + (samples - self.window) // self.hop


@dataclass(frozen=True, kw_only=True)
class Sound:
    """How a recording becomes the input named `input`: one channel at `rate`, `(samples * scale - mean) / std`.

    Samples are from -1 to 1. `channel` is one of the recording's, None their mean. With `samples` there are so
    many, cut off or filled up with zeros as `align` says. With `features`, `mean` and `std` are for those.
    """

    kind: Literal["audio"] = "audio"
    input: str
    rate: int
    channel: int | None = None
    samples: int | None = None
    align: str = "start"
    scale: float = 1.0
    features: LogMel | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "NT"
    dtype: str = "float32"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the tensors that are made."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class Text:
    """How a text becomes the input named `input`: as it is, or as numbers, and the inputs `mask` and `types`.

    `tokenizer` "wordpiece" is BERT's, with the file `vocab`, whose lines are `words`; "characters" numbers those of
    `alphabet` from `first` on, "bytes" those of UTF-8. At most `max_length` numbers, with `pad` always so many.
    """

    kind: Literal["text"] = "text"
    input: str
    tokenizer: str = "none"
    vocab: str | None = None
    alphabet: str | None = None
    lower: bool = False
    max_length: int = 512
    pad: bool = False
    first: int = 0
    pad_id: int = 0
    unknown_id: int | None = None
    mask: str | None = None
    types: str | None = None
    layout: str = "NT"
    dtype: str = "int64"
    words: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the tensors that are made."""
        return tuple(name for name in (self.input, self.mask, self.types) if name is not None)


Preprocess = Photo | Sound | Text

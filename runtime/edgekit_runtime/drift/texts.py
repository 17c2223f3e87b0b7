"""Looks at one text, as numbers of tokens or as it is: how long, how much unknown, which tokens, how many different.

Refuses nothing: a text without a token gives 0 throughout."""

from collections.abc import Sequence

import numpy as np

from edgekit_runtime.drift.looking import Look, mean_std
from edgekit_runtime.preprocess.kinds import Text
from edgekit_runtime.preprocess.wordpiece import PAD, UNKNOWN
from edgekit_runtime.tensors import Array

MOST_TOKENS = 4096
MOST_CHARACTERS = 65536
WORDS = ("length", "not_ascii", "digits", "capitals")


def tokens(text: Text | None) -> Look:
    """At numbers of tokens; padding is what stands at the end, 0 where no vocabulary is known."""
    pad, unknown = 0, None
    if text is not None:
        wordpiece = text.tokenizer == "wordpiece"
        pad = text.words.get(PAD, 0) if wordpiece else text.pad_id
        unknown = text.words.get(UNKNOWN) if wordpiece else text.unknown_id

    def see(row: Array) -> Sequence[float]:
        flat = row.reshape(-1)
        real = np.flatnonzero(flat != pad)
        length = int(real[-1]) + 1 if real.size else 0
        if not length:
            return [0.0] * len(names)
        seen = flat[: min(length, MOST_TOKENS)].astype(np.float64)  # differences of unsigned numbers would wrap
        values = np.sort(seen)
        variety = (1 + int(np.count_nonzero(values[1:] != values[:-1]))) / len(values)
        steps = float(np.abs(seen[1:] - seen[:-1]).mean()) if len(seen) > 1 else 0.0
        found = [float(length), *mean_std(values), variety, steps]
        return found if unknown is None else [*found, int(np.count_nonzero(seen == unknown)) / len(seen)]

    names = ("length", "token_mean", "token_spread", "variety", "token_steps") + (
        () if unknown is None else ("unknown",)
    )
    return Look(names, see)


def raw() -> Look:
    """At texts that the model takes as they are: UTF-8 in bytes, or str."""

    def see(row: Array) -> Sequence[float]:
        text = row.reshape(-1)[0] if row.size else b""
        text = text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")
        if not text:
            return [0.0] * len(WORDS)
        seen = np.frombuffer(text[:MOST_CHARACTERS], np.uint8)
        counts = np.bincount(seen, minlength=256)
        parts = (counts[128:], counts[ord("0") : ord("9") + 1], counts[ord("A") : ord("Z") + 1])
        return [float(len(text)), *(int(part.sum()) / len(seen) for part in parts)]

    return Look(WORDS, see)

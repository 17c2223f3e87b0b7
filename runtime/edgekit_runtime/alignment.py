"""Which stretches of a file are like which of an older version of it. Pure: bytes in, runs out.

Refuses nothing: what is like nothing is a run that starts nowhere."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

NOWHERE = -1
WINDOW = 4096
"""How many bytes are aligned at a time."""
SWITCH = 256.0
"""How many bits another distance must save in a window to be worth a run of its own."""
LOST, REACH = 0.95, 14_000
"""A window that no distance makes this much smaller is looked for so many bytes further to both sides."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Run:
    """`length` bytes of the new file, which are like those of the older file from `start` on; NOWHERE: like none."""

    length: int
    start: int


def aligned(old: Bytes, new: Bytes) -> list[Run]:
    """Which stretches of `new` are like which of `old`.

    Window by window, the distance between the two is kept as long as none that a common word of eight bytes suggests
    leaves fewer bits of difference. Fine-tuning changes most bytes, but few places by more than a few bytes.
    """
    words = _Words(old)
    turns: list[tuple[int, int | None]] = []  # from where on in `new`, at which distance
    for begin in range(0, len(new), WINDOW):
        window, shift = new[begin : begin + WINDOW], turns[-1][1] if turns else 0
        best = _best(old, window, begin, shift, words)
        if not turns:
            turns.append((0, best))
        elif best != shift:
            first = max(begin - WINDOW, turns[-1][0])
            turns.append((_turn(old, new[first : begin + len(window)], first, (shift, best)) or begin, best))
    runs = []
    for (begin, distance), (end, _) in pairwise([*turns, (len(new), None)]):
        if end > begin:
            runs.append(Run(end - begin, NOWHERE if distance is None else begin + distance))
    return runs


class _Words:
    """Where the words of eight bytes of a file are, of those that are there once."""

    def __init__(self, content: Bytes) -> None:
        every = np.frombuffer(content[: len(content) // 8 * 8].tobytes(), "<u8")
        self._words, first, counts = np.unique(every, return_index=True, return_counts=True)
        self._words, self._places = self._words[counts == 1], first[counts == 1].astype(np.int64) * 8

    def shifts(self, window: Bytes, begin: int) -> list[int]:
        """The distances that most of the words in a window suggest."""
        if len(window) < 8 or not len(self._words):
            return []
        words = np.lib.stride_tricks.sliding_window_view(window, 8).copy().view("<u8")[:, 0]
        near = np.searchsorted(self._words, words).clip(max=len(self._words) - 1)
        found = np.flatnonzero(self._words[near] == words)
        distances, votes = np.unique(self._places[near[found]] - found - begin, return_counts=True)
        return [int(distance) for distance in distances[np.argsort(-votes, kind="stable")][:4]]


_TIMES_LOG = np.arange(WINDOW + 1) * np.log2(np.maximum(np.arange(WINDOW + 1), 1))
_SIZE = np.log2(1 + np.abs(np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)))


def _best(old: Bytes, window: Bytes, begin: int, shift: int | None, words: _Words) -> int | None:
    """The distance at which `window` differs least from `old`; None where it is better left as it is."""
    stay = _bits(_difference(old, window, begin, shift))
    if stay < len(window) / 8:
        return shift
    plain = _bits(window)
    best, least = shift, stay - SWITCH
    for look in (lambda: [None, 0, *words.shifts(window, begin)], lambda: _near(old, window, begin, shift or 0)):
        for other in look():
            bits = _bits(_difference(old, window, begin, other))
            if bits < least:
                best, least = other, bits
        if least < LOST * plain:
            break
    return best


def _near(old: Bytes, window: Bytes, begin: int, shift: int) -> list[int]:
    """The distance close to `shift` at which weights go up and down most as in `old`: no word need be the same."""
    first = max(begin + shift - REACH, 0)
    stretch = old[first : begin + shift + len(window) + REACH].view(np.int8).astype(np.float32)
    if len(stretch) < len(window):
        return []
    own = window.view(np.int8).astype(np.float32)
    size = 2 ** (len(stretch) - 1).bit_length()
    both = np.fft.rfft(stretch - stretch.mean(), size) * np.conj(np.fft.rfft(own - own.mean(), size))
    alike = np.fft.irfft(both, size)[: len(stretch) - len(window) + 1]
    return [first + int(np.argmax(alike)) - begin]


def _difference(old: Bytes, window: Bytes, begin: int, shift: int | None) -> Bytes | None:
    """`window` less the bytes of `old` at that distance; None where those do not exist."""
    if shift is None:
        return window
    start = begin + shift
    return window - old[start : start + len(window)] if 0 <= start <= len(old) - len(window) else None


def _bits(values: Bytes | None) -> float:
    """The entropy of all bytes."""
    if values is None:
        return float("inf")
    return float(_TIMES_LOG[len(values)] - _TIMES_LOG[np.bincount(values, minlength=256)].sum())


def _turn(old: Bytes, stretch: Bytes, begin: int, shifts: tuple[int | None, int | None]) -> int | None:
    """Where in `new` the one distance had best give way to the other; None where one of them does not reach."""
    before, after = (_difference(old, stretch, begin, shift) for shift in shifts)
    if None in shifts or before is None or after is None:
        return None
    gain = np.cumsum(_SIZE[after] - _SIZE[before])
    return begin + int(np.argmax(gain)) + 1

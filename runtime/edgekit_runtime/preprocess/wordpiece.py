"""BERT's tokenizer: words and punctuation, then the longest pieces of them that the vocabulary has.

Refuses a vocabulary that does not read. `[SEP]` written in a text is text, and never the token."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

CLS, SEP, UNKNOWN, PAD = "[CLS]", "[SEP]", "[UNK]", "[PAD]"
MAX_VOCAB = 32 * 2**20
LONGEST = 100
"""Characters of a word; a longer one is unknown."""
CHUNK = re.compile("[^ \t\n\r\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
ASCII_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])
IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def read_vocab(path: Path) -> dict[str, int]:
    """The tokens of a vocab.txt by their numbers: one a line, from 0.

    Raises:
        EdgeKitError: it is not there, does not read, or lacks the tokens that BERT adds.
    """
    try:
        if path.stat().st_size > MAX_VOCAB:
            raise EdgeKitError(f"{path.name} is too large for a vocabulary", hint="give BERT's vocab.txt")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise EdgeKitError(
            f"the vocabulary {path.name} does not read: {error}", hint="give BERT's vocab.txt, a token a line"
        ) from error
    words = {line.rstrip(): number for number, line in enumerate(lines if lines[-1] else lines[:-1])}
    if lacking := [token for token in (PAD, UNKNOWN, CLS, SEP) if token not in words]:
        raise EdgeKitError(f"{path.name} lacks {', '.join(lacking)}", hint="give BERT's vocab.txt, a token a line")
    return words


def tokens(text: str, words: Mapping[str, int], lower: bool) -> Iterator[int]:
    """The numbers of the pieces of `text`, without [CLS] and [SEP]; made as they are asked for."""
    for chunk in CHUNK.finditer(text):
        for word in _words(chunk[0], lower):
            yield from _pieces(word, words)


def _words(chunk: str, lower: bool) -> Iterator[str]:
    """What stands between white space, cut at punctuation; ideographs stand alone."""
    if chunk.isascii():
        yield from ASCII_WORD.findall((chunk.lower() if lower else chunk).translate(CONTROLS))
        return
    word: list[str] = []
    for char in chunk:
        for part in _folded(char, lower):
            if not _stands_alone(part):
                word.append(part)
                continue
            if word:
                yield "".join(word)
            word = []
            yield part
    if word:
        yield "".join(word)


@lru_cache(maxsize=4096)
def _folded(char: str, lower: bool) -> str:
    """Nothing for a control character; in lower case and without accents where that is wanted.

    Each character by itself: to put the marks of a whole text in order takes time that grows with its square.
    """
    if char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    if not lower:
        return char
    plain = [part for part in unicodedata.normalize("NFD", char) if unicodedata.category(part) != "Mn"]
    return "".join(part.lower() for part in plain)


@lru_cache(maxsize=4096)
def _stands_alone(char: str) -> bool:
    code = ord(char)
    if any(low <= code <= high for low, high in IDEOGRAPHS):
        return True
    return bool(ASCII_WORD.fullmatch(char) and not char.isalnum()) or unicodedata.category(char).startswith("P")


def _pieces(word: str, words: Mapping[str, int]) -> list[int]:
    """From the left, each time the longest piece that is there; unknown as a whole where there is none."""
    if len(word) > LONGEST:
        return [words[UNKNOWN]]
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            number = words.get(word[start:end] if start == 0 else "##" + word[start:end])
            if number is not None:
                found.append(number)
                break
        else:
            return [words[UNKNOWN]]
        start = end
    return found

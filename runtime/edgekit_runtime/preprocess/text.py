"""From a text to tensors: as it is, or as the numbers of its pieces, its characters or its bytes.

Refuses what is not UTF-8, what is too long, and a vocabulary that is not in the bundle."""

from collections.abc import Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.preprocess.files import encoded
from edgekit_runtime.preprocess.kinds import Source, Text
from edgekit_runtime.preprocess.settings import Reader, flag, one_of, read_table, text, whole
from edgekit_runtime.preprocess.wordpiece import CLS, PAD, SEP, read_vocab, tokens
from edgekit_runtime.tensors import Array, Feeds

MAX_BYTES = 2**20
LONGEST = 2**20
INTEGERS = {"int64": 2**63 - 1, "int32": 2**31 - 1, "int16": 2**15 - 1, "uint8": 255}
SHARED = ("kind", "input", "tokenizer", "layout")
NUMBERED = (*SHARED, "lower", "max_length", "pad", "mask", "types", "dtype")
TOKENIZERS = {
    "none": SHARED,
    "wordpiece": (*NUMBERED, "vocab"),
    "characters": (*NUMBERED, "alphabet", "first", "pad_id", "unknown_id"),
    "bytes": (*NUMBERED, "first", "pad_id"),
}
"""How texts are cut, and the settings that are for it."""
READERS: dict[str, Reader] = {
    "input": text,
    "tokenizer": one_of(TOKENIZERS),
    "vocab": text,
    "alphabet": text,
    "lower": flag,
    "max_length": whole(1, LONGEST),
    "pad": flag,
    "first": whole(0, 2**31),
    "pad_id": whole(0, 2**31),
    "unknown_id": whole(0, 2**31),
    "mask": text,
    "types": text,
    "layout": one_of(("NT", "T", "N")),
    "dtype": one_of(INTEGERS),
}


def read(raw: Mapping[str, Any], folder: Path | None) -> Text:
    """The settings of a table, with the words of the vocabulary that it names, which lies in `folder`."""
    found = read_table(raw, READERS)
    tokenizer = found.get("tokenizer", "none")
    defaults = {field.name: field.default for field in fields(Text)}
    for key, value in found.items():
        if key not in TOKENIZERS[tokenizer] and value != defaults[key]:
            raise EdgeKitError(
                f"preprocessing {key} is not for tokenizer = {tokenizer!r}",
                hint=f"leave it out, or use one of {', '.join(t for t in TOKENIZERS if key in TOKENIZERS[t])}",
            )
    for needed in {"wordpiece": ("vocab",), "characters": ("alphabet",)}.get(tokenizer, ()):
        if needed not in found:
            raise EdgeKitError(f"preprocessing lacks {needed}", hint=f"say it for tokenizer = {tokenizer!r}")
    wanted = Text(**found | {"words": _words(found, folder)})
    _check_together(wanted)
    return wanted


def _words(found: Mapping[str, Any], folder: Path | None) -> dict[str, int]:
    """What the tokenizer knows, by its number."""
    if found.get("tokenizer") == "characters":
        alphabet = found["alphabet"]
        if len(set(alphabet)) != len(alphabet):
            raise EdgeKitError("preprocessing alphabet has a character twice", hint="write each character once")
        return {char: found.get("first", 0) + number for number, char in enumerate(alphabet)}
    if found.get("tokenizer") != "wordpiece":
        return {}
    name = Path(found["vocab"])
    if folder is not None and (name.is_absolute() or ".." in name.parts):
        raise EdgeKitError("the vocabulary is not in the bundle", hint="build the bundle again")
    return read_vocab(name if folder is None else folder / name)


def _check_together(wanted: Text) -> None:
    if wanted.layout == "N" and wanted.tokenizer != "none":
        raise EdgeKitError("layout N is for texts as they are", hint='write layout = "NT"')
    if len(set(wanted.inputs)) != len(wanted.inputs):
        raise EdgeKitError("preprocessing names an input twice", hint="give input, mask and types names of their own")
    if wanted.tokenizer == "none":
        return
    if wanted.tokenizer == "wordpiece" and wanted.max_length < 3:
        raise EdgeKitError(f"max_length {wanted.max_length} has no room for a word", hint="write max_length = 128")
    largest = max(
        [
            wanted.pad_id,
            wanted.unknown_id or 0,
            *wanted.words.values(),
            wanted.first + 255 * (wanted.tokenizer == "bytes"),
        ]
    )
    if largest > INTEGERS[wanted.dtype]:
        raise EdgeKitError(f"dtype {wanted.dtype} cannot hold the number {largest}", hint='write dtype = "int32"')


def feeds(wanted: Text, source: Source) -> Feeds:
    """The tensors of one text.

    Raises:
        BadRequest: it is not UTF-8, too long, or nothing of it is known.
    """
    words = _text(source)
    if wanted.tokenizer == "none":
        return {wanted.input: np.full((1,) * len(wanted.layout), words, dtype=object)}
    numbers = _numbers(wanted, words)
    if not numbers and not wanted.pad:
        raise BadRequest("the text holds nothing that the model knows", hint="send a longer text")
    length = wanted.max_length if wanted.pad else len(numbers)
    made = {wanted.input: np.full(length, _pad_id(wanted), wanted.dtype)}
    made[wanted.input][: len(numbers)] = numbers
    if wanted.mask is not None:
        made[wanted.mask] = (np.arange(length) < len(numbers)).astype(wanted.dtype)
    if wanted.types is not None:
        made[wanted.types] = np.zeros(length, wanted.dtype)
    return {name: _laid_out(value, wanted.layout) for name, value in made.items()}


def _text(source: Source) -> str:
    """The text without the line break that ends a file of one line."""
    if isinstance(source, np.ndarray):
        raise BadRequest("a text must be text, got an array", hint="send UTF-8 text")
    name = "the text"
    if not isinstance(source, str):
        data, name = encoded(source, MAX_BYTES, "text")
        try:
            source = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRequest(f"{name} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
    if len(source) > MAX_BYTES:
        raise BadRequest(f"{name} has more than {MAX_BYTES} characters", hint="send a shorter one")
    return source.removesuffix("\n").removesuffix("\r")


def _numbers(wanted: Text, words: str) -> list[int]:
    if wanted.tokenizer == "wordpiece":
        found = islice(tokens(words, wanted.words, wanted.lower), wanted.max_length - 2)
        return [wanted.words[CLS], *found, wanted.words[SEP]]
    if wanted.lower:
        words = words.lower()
    if wanted.tokenizer == "bytes":
        return [wanted.first + byte for byte in words.encode("utf-8", "replace")[: wanted.max_length]]
    numbers = (wanted.words.get(char, wanted.unknown_id) for char in words)
    return list(islice((number for number in numbers if number is not None), wanted.max_length))


def _pad_id(wanted: Text) -> int:
    return wanted.words[PAD] if wanted.tokenizer == "wordpiece" else wanted.pad_id


def _laid_out(values: Array, layout: str) -> Array:
    return values[None] if layout == "NT" else values

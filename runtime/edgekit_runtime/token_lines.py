"""The lines of a file of tokens, and the file as it is: `NAME SCOPES SHA256HEX`, then maybe a comment from `#` on.

Refuses a line that does not read, by its number, and a file that others can write."""

import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError, NotFound

SCOPES = ("infer", "metrics", "admin")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_FILE = 2**20
HINT_NEW = "edgekit-runtime token new NAME --scope infer --file FILE"


@dataclass(frozen=True)
class Token:
    """A known token: what it is called, what it allows, the SHA-256 of its secret."""

    name: str
    scopes: frozenset[str]
    digest: bytes


def parse_tokens(text: str) -> tuple[Token, ...]:
    """The tokens that the lines of `text` describe.

    Raises:
        EdgeKitError: a line does not read; it is named by its number.
    """
    found: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 3:
            raise _bad(number, f"{len(words)} words, not NAME SCOPES SHA256")
        name, scopes, digest = words
        if not NAME.fullmatch(name):
            raise _bad(number, "the name is not a plain word")
        if not DIGEST.fullmatch(digest):
            raise _bad(number, "the third word is not a SHA-256 in 64 small hexadecimal digits")
        if name in found or any(token.digest == bytes.fromhex(digest) for token in found.values()):
            raise _bad(number, f"{name} is there twice")
        try:
            found[name] = Token(name, frozenset(ordered(scopes.split(","))), bytes.fromhex(digest))
        except EdgeKitError as error:
            raise _bad(number, error.what) from error
    return tuple(found.values())


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a file. Raises as `parse_tokens` does, or `NotFound` where there is no such file."""
    return read_file(path)[1]


def ordered(scopes: Collection[str]) -> list[str]:
    """The scopes in the order of `SCOPES`; raises `EdgeKitError` for one that is not there."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        named = ", ".join(repr(word[:40]) for word in unknown[:5]) or "given"
        raise EdgeKitError(f"no scope {named}", hint=f"use {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in scopes]


def _bad(number: int, why: str) -> EdgeKitError:
    return EdgeKitError(f"line {number}: {why}", hint=f"mend or remove the line; a new one comes from {HINT_NEW}")


def read_file(path: Path) -> tuple[str, tuple[Token, ...]]:
    """The file's text and its tokens; whatever is wrong with it is said with its path."""
    try:
        text = _text(path)
        return text, parse_tokens(text)
    except NotFound:
        raise
    except EdgeKitError as error:
        raise EdgeKitError(f"{path}: {error.what}", hint=error.hint) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise EdgeKitError("others could add tokens of their own to it", hint=f"chmod 640 {path}")
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(f"no file of tokens at {path}", hint=f"make one: {HINT_NEW}") from None
    except OSError as error:
        raise EdgeKitError(f"it does not read: {error.strerror}", hint="name a file of tokens") from error
    if len(raw) > MAX_FILE:
        raise EdgeKitError(f"it is larger than {MAX_FILE} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"line {raw[: error.start].count(10) + 1}"
        raise EdgeKitError(f"{where}: not UTF-8", hint="name a file that `edgekit-runtime token new` made") from error

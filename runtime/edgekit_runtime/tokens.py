"""Who may do what: tokens with scopes, kept in a file as hashes, one line each, read again when the file changes.

Refuses a request without a token that allows its scope, a file that others can write, and a line that does not read.

A token is 256 random bits: nobody can guess one from its hash, so a plain SHA-256 keeps it safe at rest. A slow,
salted hash is for passwords, which can be guessed; here it would only make each request slow. No scope implies
another."""

import hashlib
import logging
import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hmac import compare_digest
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError, Forbidden, NotFound, Unauthenticated
from edgekit_runtime.token_lines import HINT_NEW, NAME, Token, ordered, parse_tokens, read_file, read_tokens

__all__ = ["Tokens", "add_token", "list_tokens", "make_token", "parse_tokens", "read_tokens", "revoke_token"]

log = logging.getLogger("edgekit_runtime.tokens")

OPEN = "open"
"""The scope of what anyone may ask."""
PREFIX = "ek_"
"""Tokens begin with it, so that one that leaked into a log or a repository can be searched for."""
MAX_HEADER = 512
LOOK_AGAIN = 1.0
"""Seconds between two looks at the file's time stamp: how long a revoked token may still work."""


class Tokens:
    """The tokens of a file, as it is now.

    A file that no longer reads leaves the tokens as they were; one that is gone, or holds none, leaves none.

    Raises:
        EdgeKitError: the file does not read now, or holds no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)
        self._known = read_tokens(path)
        self._next_look = time.monotonic() + LOOK_AGAIN
        if not self._known:
            raise EdgeKitError(f"{path} holds no token", hint=f"make one: {HINT_NEW}")

    def allow(self, header: str | bytes | None, scope: str) -> None:
        """Nothing, where the `Authorization` header holds a token that allows `scope`.

        Raises:
            Unauthenticated: there is no token in it, or not one of ours.
            Forbidden: the token does not have this scope.
        """
        if scope == OPEN:
            return
        if time.monotonic() >= self._next_look:
            self._look()
        digest = hashlib.sha256(_secret(header)).digest()
        found = None
        for token in self._known:  # all of them, always: the time taken tells nothing
            if compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise Unauthenticated("this token is not known", hint="ask who runs this server for a token")
        if scope not in found.scopes:
            raise Forbidden(f"this token does not allow {scope}", hint=f"use a token with the scope {scope}")

    def _look(self) -> None:
        """Read the file again if it changed."""
        self._next_look = time.monotonic() + LOOK_AGAIN
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._known = read_tokens(self._path)
            log.info("the tokens were read again: %d", len(self._known))
        except NotFound:
            self._known = ()
            log.warning("the file of tokens is gone: no token is accepted")
        except EdgeKitError as error:
            log.error("the tokens stay as they were: %s", error.what)


def _secret(header: str | bytes | None) -> bytes:
    """What follows "Bearer", or the password of "Basic"."""
    if not header:
        raise Unauthenticated("a token is needed here", hint="send the header Authorization: Bearer TOKEN")
    raw = header.encode("utf-8", "replace") if isinstance(header, str) else header
    kind, _, secret = raw[: MAX_HEADER + 1].partition(b" ")
    if len(raw) <= MAX_HEADER and kind.lower() == b"basic":
        return _password(secret.strip())
    if len(raw) > MAX_HEADER or kind.lower() != b"bearer":
        raise Unauthenticated("the Authorization header is not a token", hint="send Authorization: Bearer TOKEN")
    return secret.strip()


def _password(pair: bytes) -> bytes:
    """Of a browser's name and password (RFC 7617)."""
    import base64

    try:
        return base64.b64decode(pair, validate=True).partition(b":")[2]
    except ValueError:
        raise Unauthenticated("the Authorization header is no Basic pair", hint="give the token as password") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def make_token(name: str, scopes: Collection[str]) -> tuple[str, str]:
    """A new secret, and the line that knows it again.

    Raises:
        EdgeKitError: the name is not a plain word, or a scope is not known.
    """
    import secrets

    if not NAME.fullmatch(name):
        raise EdgeKitError(f"{name!r} cannot name a token", hint="use letters, digits, . _ -")
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    since = time.strftime("%Y-%m-%d", time.gmtime())
    return secret, f"{name} {','.join(ordered(scopes))} {digest} # since {since}"


def add_token(path: Path, name: str, scopes: Collection[str]) -> str:
    """Make a token, add its line to the file (made where there is none, for its owner alone), give the secret.

    Raises:
        EdgeKitError: the name is taken, or the file does not read or cannot be written.
    """
    secret, line = make_token(name, scopes)
    with _changing(path) as (real, text, known):
        if any(token.name == name for token in known):
            again = f"edgekit-runtime token revoke {name} --file {path}"
            raise EdgeKitError(f"{path} has a token {name}", hint=f"choose another name, or first: {again}")
        _replace(real, text + ("\n" if text and not text.endswith("\n") else "") + line + "\n")
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Take the token's line out of the file.

    Raises:
        NotFound: there is no file, or no such token in it.
    """
    with _changing(path) as (real, text, known):
        names = [token.name for token in known]
        if name not in names:
            raise NotFound(f"{path} has no token {name}", hint=f"it has {', '.join(names) or 'none'}")
        kept = [line for line in text.splitlines() if line.split("#", 1)[0].split()[:1] != [name]]
        _replace(real, "".join(line + "\n" for line in kept))


def list_tokens(path: Path) -> str:
    """The tokens of a file for a person: name and scopes, a line each."""
    known = read_tokens(path)
    width = max((len(token.name) for token in known), default=0)
    return "\n".join(f"{token.name:<{width}}  {','.join(ordered(token.scopes))}" for token in known) or "no tokens"


@contextmanager
def _changing(path: Path) -> Iterator[tuple[Path, str, tuple[Token, ...]]]:
    """The file itself (not a link to it), its text and its tokens, while nobody else changes it."""
    import fcntl

    real = path.resolve()
    try:
        folder = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise EdgeKitError(f"{real.parent}: {error.strerror}", hint="name a file in a folder that exists") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            text, known = read_file(real)
        except NotFound:
            text, known = "", ()
        yield real, text, known
    except OSError as error:
        raise EdgeKitError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        os.close(folder)


def _replace(path: Path, text: str) -> None:
    """Whole or not at all; mode and owner stay as they were."""
    made = path.with_name(f".{path.name}.new")
    made.unlink(missing_ok=True)  # left by a power cut: nobody else is here, the folder is locked
    file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as opened:
            if path.exists():
                was = path.stat()
                os.fchmod(opened.fileno(), stat.S_IMODE(was.st_mode))
                if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(opened.fileno(), was.st_uid, was.st_gid)
            opened.write(text.encode())
            opened.flush()
            os.fsync(opened.fileno())
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""The digest of files: what a model's fingerprint is made of when a model is files.

Refuses a path that is missing or does not read; never holds a file in memory."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgekit_runtime.errors import NotFound


def digest(paths: Iterable[Path], *words: str) -> str:
    """The hex SHA-256 of `words` and of the names and bytes of `paths`, in the order given.

    Raises:
        NotFound: a file is missing or does not read.
    """
    total = hashlib.sha256()
    for word in words:
        total.update(f"word {len(word.encode())}\n{word}".encode())
    for path in paths:
        try:
            with path.open("rb") as file:
                total.update(f"file {path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        except OSError as error:
            raise NotFound(
                f"{path} does not read: {error.strerror}", hint="check the path and its permissions"
            ) from error
    return total.hexdigest()

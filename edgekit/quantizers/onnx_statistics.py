"""What calibration found, kept in a folder by name: whole or absent.

Refuses nothing: a file that does not read is made anew."""

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from edgekit_runtime.tensors import Array

Arrays = Mapping[str, Array]
"""Numbers by the name of the tensor that they are about."""


def kept(folder: Path | None, name: str, make: Callable[[], Arrays]) -> Arrays:
    """What `make` found, now or, where there is a folder to keep it in, before."""
    if folder is None:
        return make()
    path = folder / f"{name}.npz"
    found = _read(path)
    if found is None:
        found = make()
        _write(path, found)
    return found


def _read(path: Path) -> Arrays | None:
    try:
        with np.load(path) as stored:
            return {name: stored[str(i)] for i, name in enumerate(json.loads(str(stored["names"])))}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, found: Arrays) -> None:
    """Numbers instead of names as keys: a tensor's name may hold what a file in an archive may not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {str(i): value for i, value in enumerate(found.values())}
    arrays["names"] = np.array(json.dumps(list(found)))
    with NamedTemporaryFile(dir=path.parent, prefix=".making-", suffix=".npz", delete=False) as scratch:
        try:
            np.savez_compressed(scratch, **arrays)
            scratch.flush()
            os.fsync(scratch.fileno())
            os.replace(scratch.name, path)
        except BaseException:
            os.unlink(scratch.name)
            raise

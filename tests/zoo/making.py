"""Make an entry of the zoo once: in a process of its own, in a scratch folder, under a lock; then rename it into place.

Refuses to leave half an entry behind, and to take one that other code or other libraries made."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import importlib, pathlib, sys
getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(pathlib.Path(sys.argv[3]))
"""


def cache() -> Path:
    """Where the entries stay."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgekit-tests"


def made(maker: str, sources: Sequence[str], libraries: Sequence[str]) -> Path:
    """The folder that `maker` ("module:function" of `tests.zoo.makers`, given a folder) filled, now or before.

    An entry is known by the maker's name, the text of `sources` (files in this folder; the maker's
    module is always one) and the versions of `libraries`.
    """
    module, function = maker.split(":")
    digest = hashlib.sha256()
    for name in (f"makers/{module}.py", *sources):
        digest.update((Path(__file__).parent / name).read_bytes())
    for library in libraries:
        digest.update(f"{library}={metadata.version(library)}".encode())
    entry = cache() / f"{function}-{digest.hexdigest()[:12]}"
    if not entry.is_dir():
        entry.parent.mkdir(parents=True, exist_ok=True)
        with (entry.parent / f"{function}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not entry.is_dir():
                _make(f"tests.zoo.makers.{module}", function, entry)
    return entry


def _make(module: str, function: str, entry: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{function}-", dir=entry.parent))
    fresh = scratch / entry.name
    fresh.mkdir()
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    try:
        command = [sys.executable, "-c", RUN, module, function, str(fresh)]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **quiet}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{module}:{function} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        fresh.rename(entry)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

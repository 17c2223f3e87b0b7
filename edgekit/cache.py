"""The cache of steps: folders named by what went into them, whole or absent, bounded in size.

Refuses to serve a folder made by other inputs, options, tool versions or EdgeKit code."""

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import edgekit_runtime

from edgekit.isolated import default_cache

TOOLS = (
    "ai-edge-litert", "ai-edge-quantizer", "keras", "litert-torch", "nncf", "numpy", "onnx", "onnxruntime",
    "onnxscript", "openvino", "pillow", "scipy", "tensorflow-cpu", "tensorflow", "tf2onnx", "torch",
)  # fmt: skip
IN_USE = 3600.0
"""Seconds after its last use in which a folder is not removed to make room."""


@dataclass(frozen=True)
class Cache:
    """Folders under `root`, together at most about `limit` bytes. `fresh` makes every step anew."""

    root: Path
    limit: int = 10 * 2**30
    fresh: bool = False

    def folder(self, step: str, inputs: object, make: Callable[[Path], None]) -> Path:
        """The folder that `make` filled for these `inputs` (anything JSON can hold), made now or before."""
        found = self.find(step, inputs)
        if found is not None:
            return found
        home = self.root / "steps" / step / key(step, inputs)
        home.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=home.parent))
        try:
            make(scratch)
            _replace(scratch, home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return home

    def find(self, step: str, inputs: object) -> Path | None:
        """The folder made for these `inputs` before; None where there is none."""
        home = self.root / "steps" / step / key(step, inputs)
        if self.fresh or not home.is_dir():
            return None
        os.utime(home)
        return home

    def entries(self) -> list[tuple[str, Path, int, float]]:
        """(step, folder, bytes, time of last use) of everything kept, oldest first."""
        found = [
            (home.parent.name, home, size_of(home), home.stat().st_mtime)
            for home in self.root.glob("steps/*/*")
            if not home.name.startswith(".")
        ]
        return sorted(found, key=lambda entry: entry[3])

    def trim(self) -> int:
        """Remove the longest unused folders until the limit holds; the bytes that went."""
        for scratch in self.root.glob("steps/*/.making-*"):  # what a killed build left
            if time.time() - scratch.stat().st_mtime > IN_USE:
                shutil.rmtree(scratch, ignore_errors=True)
        entries = self.entries()
        excess, gone = sum(entry[2] for entry in entries) - self.limit, 0
        for _, home, size, used in entries:
            if gone >= excess or time.time() - used < IN_USE:
                break
            shutil.rmtree(home, ignore_errors=True)
            gone += size
        return gone

    def clear(self) -> int:
        """Remove every step kept; the bytes that went."""
        size = size_of(self.root / "steps")
        shutil.rmtree(self.root / "steps", ignore_errors=True)
        return size


def user_cache(root: str | None = None, fresh: bool = False) -> Cache:
    """The cache at `root`, else where the user's caches are."""
    return Cache(Path(root) if root else default_cache(), fresh=fresh)


def key(step: str, inputs: object) -> str:
    """The name of the folder for `inputs` of `step`, with the tools and the code that would make it."""
    text = json.dumps([step, inputs, versions(), _own_code()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@once
def versions() -> dict[str, str]:
    """The versions of the tools that are installed here."""
    found = {}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@once
def _own_code() -> str:
    """A digest of EdgeKit's own sources: what one version made, another may make differently."""
    hasher = hashlib.sha256()
    for package in (Path(__file__).parent, Path(edgekit_runtime.__file__).parent):
        for path in sorted([*package.rglob("*.py"), *package.rglob("*.txt")]):
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _replace(scratch: Path, home: Path) -> None:
    """Put `scratch` at `home`; what another process put there meanwhile is as good."""
    scratch.chmod(0o755)
    if home.is_dir():
        shutil.rmtree(home, ignore_errors=True)
    try:
        scratch.rename(home)
    except OSError:
        if not home.is_dir():
            raise

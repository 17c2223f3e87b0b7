"""The table of sources: each is a module with `fingerprint(origin)` and `read(origin)`, found by what the user typed.

Refuses a model that no source knows, saying what it is and what would be read."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from edgekit_runtime.errors import EdgeKitError

from edgekit.extras import needs
from edgekit.model import Model, Origin

SOURCES = {
    ".onnx": "edgekit.sources.onnx",
    ".pt2": "edgekit.sources.torch_exported",
    ".pt": "edgekit.sources.torchscript",
    ".pth": "edgekit.sources.torchscript",
    ".ts": "edgekit.sources.torchscript",
    ".jit": "edgekit.sources.torchscript",
    ".keras": "edgekit.sources.keras",
    ".h5": "edgekit.sources.keras",
    ".tflite": "edgekit.sources.tflite",
    "folder": "edgekit.sources.saved_model",
    "module:factory": "edgekit.sources.torch_factory",
}
"""What a model is known by -> the module that reads it."""

HALVES = {
    ".safetensors": "give the code too: edgekit build package.module:factory --weights {path}",
    ".py": "say which function makes the model: {path}:FUNCTION",
    ".pb": "give the SavedModel's folder, the one that holds saved_model.pb and variables/",
}
"""Suffixes of what is a part of a model -> what to give instead."""

SHAPELESS = ("module:factory", ".pt", ".pth", ".ts", ".jit")
"""The kinds that may not know the shapes of their inputs: --shape or the data gives them."""


def fingerprint(origin: Origin) -> str:
    """A hex digest of everything the model is made of; does as little work as that takes."""
    digest: str = _source(origin).fingerprint(origin)
    return digest


def read(origin: Origin) -> Model:
    """Read the model the user typed.

    Raises:
        EdgeKitError: it is missing, damaged, unsafe to read, or of no known kind.
    """
    model: Model = _source(origin).read(origin)
    return model


def kind(origin: Origin) -> str:
    """The key of `SOURCES` that this model is read by."""
    if ":" in origin.model and not Path(origin.model).exists():
        return "module:factory"
    path = origin.path
    if not path.exists():
        raise EdgeKitError(f"no model at {path}", hint="give a file, a SavedModel folder, or package.module:factory")
    known = "folder" if path.is_dir() else path.suffix.lower()
    if known not in SOURCES:
        raise EdgeKitError(
            f"{path}: {known or 'a file without a suffix'} is not a model that EdgeKit reads",
            hint=HALVES.get(known, f"give one of {', '.join(SOURCES)}").format(path=path),
        )
    return known


def _source(origin: Origin) -> ModuleType:
    name = SOURCES[kind(origin)]
    with needs(f"reading {origin.model}"):
        return import_module(name)

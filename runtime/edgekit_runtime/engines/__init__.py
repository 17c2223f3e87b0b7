"""The table of engines: each is a module with `open_model(path, options)` and `read_specs(path)`; one that is able
to tell where operators run has `placement(path, options)` too.

Refuses an engine that is not in the table or not installed, with two different hints."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from edgekit_runtime.engines.options import EngineOptions, options_json, parse_options
from edgekit_runtime.engines.placed import Placement
from edgekit_runtime.errors import NotFound, Unsupported
from edgekit_runtime.tensors import Runner, TensorSpec

__all__ = [
    "ENGINES",
    "EngineOptions",
    "Placement",
    "Specs",
    "engine_module",
    "open_model",
    "options_json",
    "parse_options",
    "placement",
    "read_specs",
]

ENGINES = {
    "onnx": "edgekit_runtime.engines.onnx",
    "openvino": "edgekit_runtime.engines.openvino",
    "tflite": "edgekit_runtime.engines.tflite",
}

Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
"""What a file takes and what it gives, as the file itself says."""


def open_model(engine: str, path: Path, options: EngineOptions | None = None) -> Runner:
    """Open the artifact at `path` and return a function from named arrays to named arrays.

    Raises:
        NotFound: the engine is unknown or not installed here.
        Unsupported: the engine cannot run this file.
    """
    opened: Callable[[Path, EngineOptions], Runner] = engine_module(engine).open_model
    return opened(path, options or EngineOptions())


def read_specs(engine: str, path: Path) -> Specs:
    """The artifact's own inputs and outputs. Raises as `open_model` does."""
    read: Callable[[Path], Specs] = engine_module(engine).read_specs
    return read(path)


def placement(engine: str, path: Path, options: EngineOptions) -> Placement | None:
    """Where the artifact's operators run: how many on the device of `options`, and which kinds are left on the CPU.

    None for the CPU, and where the engine cannot tell. Opens the artifact once more. Raises as `open_model` does.
    """
    if options.device == "cpu":
        return None
    tell: Callable[[Path, EngineOptions], Placement | None] | None = getattr(engine_module(engine), "placement", None)
    return None if tell is None else tell(path, options)


def engine_module(engine: str) -> ModuleType:
    """The module of an engine, imported. Raises `NotFound` as `open_model` does."""
    if engine not in ENGINES:
        raise NotFound(f"unknown engine {engine!r}", hint=f"use one of {', '.join(ENGINES)}")
    try:
        return import_module(ENGINES[engine])
    except ModuleNotFoundError as error:
        raise NotFound(
            f"engine {engine!r} is not installed here (no module {error.name!r})",
            hint=f"install edgekit-runtime with its [{engine}] extra, from the wheel or the checkout: "
            f"pip install './runtime[{engine}]'",
        ) from error
    except ImportError as error:
        raise Unsupported(
            f"engine {engine!r} is installed but does not start here: {str(error).splitlines()[0]}",
            hint="install the wheel made for this machine and this Python",
        ) from error

"""The table of engines: each is a module with `open_model(path, options)` and `read_specs(path)`.

Refuses an engine that is not in the table or not installed, with two different hints."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from edgekit_runtime.errors import NotFound, Unsupported
from edgekit_runtime.tensors import Runner, TensorSpec

ENGINES = {
    "onnx": "edgekit_runtime.engines.onnx",
    "openvino": "edgekit_runtime.engines.openvino",
    "tflite": "edgekit_runtime.engines.tflite",
}

Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
"""What a file takes and what it gives, as the file itself says."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is to run: `threads` of its own, on which `device` ("cpu", "cuda", "gpu", "npu",
    "auto"), at which `precision` its float arithmetic runs ("float32", "float16", "bfloat16"). `spin` lets ONNX
    Runtime's idle threads wait awake: faster with several threads, and a whole machine's power for it."""

    threads: int = 1
    device: str = "cpu"
    precision: str = "float32"
    spin: bool = False


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

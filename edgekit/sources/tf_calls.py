"""TensorFlow and Keras without their noise: imported when needed, silent while they work, their pages cut to one line.

Refuses a Keras that runs on another backend than TensorFlow; the environment and file descriptors are put back."""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgekit_runtime.errors import EdgeKitError

from edgekit.quiet import quiet

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow"}
"""What TensorFlow and Keras read while they are imported. oneDNN's rounding would make the reference
depend on the CPU it is computed on."""


def tensorflow() -> Any:
    """The module tensorflow, imported without a word."""
    return _quiet_import("tensorflow")


def keras() -> Any:
    """The module keras, on TensorFlow.

    Raises:
        EdgeKitError: this process already uses Keras on another backend.
    """
    tensorflow()
    module = _quiet_import("keras")
    if module.backend.backend() != "tensorflow":
        raise EdgeKitError(
            f"Keras runs on {module.backend.backend()} here, and EdgeKit reads Keras models on tensorflow",
            hint="set KERAS_BACKEND=tensorflow before anything imports keras",
        )
    return module


def _quiet_import(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    with _environment(QUIET), quiet():
        return importlib.import_module(name)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while; one that the user has set stays, but for Keras's backend."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(
        {name: value for name, value in values.items() if before[name] is None or name == "KERAS_BACKEND"}
    )
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

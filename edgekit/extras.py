"""What to install when a framework is missing: module name -> the extra of `edgekit-toolchain` that brings it.

Refuses nothing; turns a ModuleNotFoundError into an error that a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager

from edgekit_runtime.errors import EdgeKitError

EXTRAS = {
    "torch": "torch",
    "onnxscript": "torch",
    "safetensors": "torch",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "tf2onnx": "tensorflow",
    "h5py": "tensorflow",
    "onnxruntime": "onnx",
    "onnx": "onnx",
    "openvino": "openvino",
    "nncf": "openvino",
    "ai_edge_litert": "litert",
    "ai_edge_quantizer": "litert",
    "litert_torch": "litert-torch",
}


@contextmanager
def needs(doing: str) -> Iterator[None]:
    """Say which extra to install if `doing` (a phrase such as "reading m.keras") meets a missing framework."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").split(".")[0]
        if module not in EXTRAS:
            raise
        raise EdgeKitError(
            f"{doing} needs {module}, which is not installed",
            hint=f"in the checkout of EdgeKit: pip install '.[{EXTRAS[module]}]'",
        ) from error

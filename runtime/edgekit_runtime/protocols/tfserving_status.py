"""What TensorFlow Serving tells of a model beside its answers: states of its versions, and its signature. Pure.

Refuses nothing itself; its texts for what is not served are its own, as clients know them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.protocols.tfserving import DEFAULT, Signature
from edgekit_runtime.tensors import TensorSpec

STATES = {"LOADING": "LOADING", "READY": "AVAILABLE", "UNLOADING": "UNLOADING", "UNAVAILABLE": "END"}
"""From the service's words to TensorFlow Serving's."""
DTYPES = {
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "int32": "DT_INT32",
    "uint8": "DT_UINT8",
    "int16": "DT_INT16",
    "int8": "DT_INT8",
    "object": "DT_STRING",
    "int64": "DT_INT64",
    "bool": "DT_BOOL",
    "uint16": "DT_UINT16",
    "float16": "DT_HALF",
    "uint32": "DT_UINT32",
    "uint64": "DT_UINT64",
}
PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


@dataclass(frozen=True)
class Version:
    """One version: its number, its state in TensorFlow Serving's words, and why it does not run."""

    number: int
    state: str
    reason: str = ""


def status(versions: Sequence[Version]) -> dict[str, Any]:
    """What GET /v1/models/NAME answers; 64-bit numbers are text, as protobuf writes them in JSON."""
    return {
        "model_version_status": [
            {
                "version": str(version.number),
                "state": version.state,
                "status": {"error_code": "UNKNOWN" if version.reason else "OK", "error_message": version.reason},
            }
            for version in versions
        ]
    }


def metadata(name: str, number: int, signature: Signature) -> dict[str, Any]:
    """What GET /v1/models/NAME/metadata answers."""
    described = {
        "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in signature.outputs},
        "method_name": PREDICT,
        "defaults": {},
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(number)},
        "metadata": {"signature_def": {"signature_def": {DEFAULT: described}}},
    }


def unserved(name: str, version: str | None = None) -> str:
    """What it says where a model, or that version of it, is not served."""
    asked = f"Latest({name[:100]})" if version is None else f"Specific({name[:100]}, {version[:100]})"
    return f"Servable not found for request: {asked}"


def sizes(spec: TensorSpec) -> list[int]:
    """The shape with -1 for a free size."""
    return [-1 if size is None else size for size in spec.shape]


def _tensor_info(spec: TensorSpec) -> Mapping[str, Any]:
    return {
        "dtype": DTYPES[spec.dtype],
        "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in sizes(spec)],
            "unknown_rank": False,
        },
        "name": f"{spec.name}:0",
    }

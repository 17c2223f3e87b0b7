"""Bytes of the Open Inference Protocol v2 to an array and back, as little of it as a peer without a protocol needs.

Refuses nothing, checks nothing."""

import json
from typing import Any

import numpy as np


def read(body: bytes, head_length: int | None) -> tuple[np.ndarray, str]:
    """The one input, in JSON (`head_length` None) or binary behind so many bytes of JSON; and the request's id."""
    head = json.loads(body if head_length is None else body[:head_length])
    tensor = head["inputs"][0]
    if head_length is None:
        x = np.array(tensor["data"], np.float32)
    else:
        x = np.frombuffer(body, np.float32, offset=head_length)
    return x.reshape(tensor["shape"]), head.get("id", "")


def write(y: np.ndarray, name: str, given: str, binary: bool) -> tuple[bytes, int | None]:
    """The body of an answer, and how much of it is JSON (None: all)."""
    out: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": y.shape}
    told = {"model_name": "model", "model_version": "1", "id": given, "outputs": [out]}
    if not binary:
        out["data"] = y.ravel().tolist()
        return json.dumps(told, separators=(",", ":")).encode(), None
    out["parameters"] = {"binary_data_size": y.nbytes}
    text = json.dumps(told, separators=(",", ":")).encode()
    return text + y.tobytes(), len(text)

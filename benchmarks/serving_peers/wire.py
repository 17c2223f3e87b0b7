"""Requests as prepared bytes and replies as arrays, in each form that is measured. Not EdgeKit's own code, on purpose.

Refuses a reply that does not read: it raises whatever its decoder raises."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from edgekit_runtime.tensors import Array

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Form:
    """(model, input, array) -> a request; a reply's body -> an array; the path of the call where it is gRPC."""

    title: str
    request: Callable[[str, str, Array], bytes]
    answer: Callable[[bytes], Array]
    method: str | None = None


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def _tensor(name: str, x: Array) -> dict[str, Any]:
    return {"name": name, "shape": list(x.shape), "datatype": "FP32"}


def _json_request(model: str, name: str, x: Array) -> bytes:
    """Numbers of four digits, as a hand or a rounding client writes them."""
    tensor = {**_tensor(name, x), "data": _digits(x)}
    return _post(
        f"/v2/models/{model}/infer",
        json.dumps({"id": "1", "inputs": [tensor]}).encode(),
        "Content-Type: application/json",
    )


def _digits(x: Array) -> list[float]:
    return [round(value, 4) for value in x.ravel().tolist()]


def _json_answer(body: bytes) -> Array:
    (tensor,) = json.loads(body)["outputs"]
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])


def _binary_request(model: str, name: str, x: Array) -> bytes:
    raw = x.astype("<f4").tobytes()
    tensor = {**_tensor(name, x), "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"id": "1", "parameters": {"binary_data_output": True}, "inputs": [tensor]}).encode()
    headers = ("Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {len(head)}")
    return _post(f"/v2/models/{model}/infer", head + raw, *headers)


def _binary_answer(body: bytes) -> Array:
    head, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    (tensor,) = head["outputs"]
    return np.frombuffer(body, "<f4", offset=end).reshape(tensor["shape"])


def _bentoml_request(model: str, name: str, x: Array) -> bytes:
    rounded = np.array(_digits(x)).reshape(x.shape).tolist()
    return _post("/infer", json.dumps({"x": rounded}).encode(), "Content-Type: application/json")


def _bentoml_answer(body: bytes) -> Array:
    return np.array(json.loads(body), np.float32)


def _grpc_request(model: str, name: str, x: Array) -> bytes:
    """A ModelInferRequest with raw_input_contents."""
    shape = b"".join(_varint(n) for n in x.shape)
    tensor = _field(1, name.encode()) + _field(2, b"FP32") + _field(3, shape)
    raw = x.astype("<f4").tobytes()
    return _field(1, model.encode()) + _field(3, b"1") + _field(5, tensor) + _field(7, raw)


def _grpc_answer(body: bytes) -> Array:
    """The one output of a ModelInferResponse: raw, or as fp32_contents."""
    reply = list(_fields(body))
    (tensor,) = [dict(_fields(value)) for number, value in reply if number == 5]
    contents = dict(_fields(tensor.get(5, b"")))
    raw = next((value for number, value in reply if number == 6), contents.get(6, b""))
    return np.frombuffer(raw, "<f4").reshape(list(_varints(tensor[3])))


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message that has no others."""
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        size, place = _read_varint(message, place)
        if key & 7 != 2:
            raise ValueError(f"wire type {key & 7}")
        yield key >> 3, message[place : place + size]
        place += size


def _varints(packed: bytes) -> Iterator[int]:
    place = 0
    while place < len(packed):
        value, place = _read_varint(packed, place)
        yield value


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place


FORMS = {
    "binary": Form("binary", _binary_request, _binary_answer),
    "json": Form("JSON", _json_request, _json_answer),
    "grpc": Form("gRPC", _grpc_request, _grpc_answer, INFER),
    "bentoml": Form("JSON", _bentoml_request, _bentoml_answer),
}

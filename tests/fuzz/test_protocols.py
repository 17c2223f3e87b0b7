"""The Open Inference Protocol over HTTP and TorchServe's bodies; and that what a reader remembers changes nothing."""

import json
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.limits import Limits
from edgekit_runtime.preprocess import apply, parse_preprocess
from edgekit_runtime.protocols import torchserve_bodies, v2
from edgekit_runtime.protocols.torchserve_bodies import Takes
from edgekit_runtime.tensors import TensorSpec, check_feeds
from hypothesis import strategies as st

from tests.fuzz.making import changed, damaged, fuzz, only_ours, texts
from tests.fuzz.test_parsers import FORM, INPUTS, OUTPUTS, outputs, photos

pytestmark = pytest.mark.slow

WORDS = [
    "inputs",
    "outputs",
    "name",
    "shape",
    "datatype",
    "data",
    "parameters",
    "binary_data_size",
    "binary_data",
    "id",
]
WORDS += ["x", "s", "n", "y", "t", "FP32", "BYTES", "INT8", "BF16", "classification", "binary_data_output", "timeout"]
WORDS += ["shared_memory_region", "sequence_id"]
ONE = (TensorSpec("x", "float32", (None, 2)),)


def request() -> dict[str, Any]:
    """A good request for INPUTS."""
    return {
        "id": "1",
        "parameters": {"binary_data_output": False, "timeout": 1000},
        "inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1.5, 2]]},
            {"name": "s", "shape": [1], "datatype": "BYTES", "data": ["w"]},
            {"name": "n", "shape": [1], "datatype": "INT8", "data": [3]},
        ],
        "outputs": [{"name": "y", "parameters": {"classification": 1}}, {"name": "t"}],
    }


def answered(body: bytes, length: int | None, known: v2.Model) -> Any:
    """The feeds and the reply, or the error; what it must not be goes on up."""
    try:
        feeds, call = v2.read_request(body, length, known, Limits())
        check_feeds(list(known.inputs.values()), feeds)
        text, size = v2.write_response(known, call, outputs())
    except EdgeKitError as error:
        return type(error).__name__, error.what
    json.loads(text[:size])
    return {name: (value.dtype.name, value.shape, value.tolist()) for name, value in feeds.items()}, text, size


def alike(one: Any, other: Any) -> bool:
    """The same, where a NaN is itself."""
    return repr(one) == repr(other)


def test_json_requests_read_the_same_cold_and_warm() -> None:
    warm = v2.model("m", "1", (INPUTS, OUTPUTS))

    def check(body: bytes) -> None:
        cold = answered(body, None, v2.model("m", "1", (INPUTS, OUTPUTS)))
        assert alike(answered(body, None, warm), cold)
        assert alike(answered(body, None, warm), cold)

    fuzz(texts(request(), WORDS), check)


def test_requests_of_one_input_read_the_same_cold_and_warm() -> None:
    """These are remembered by what they say around their numbers."""
    warm = v2.model("m", "1", (ONE, OUTPUTS))
    good = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, -3e2, 0]}]}
    v2.read_request(json.dumps(good).encode(), None, warm)

    def check(body: bytes) -> None:
        cold = answered(body, None, v2.model("m", "1", (ONE, OUTPUTS)))
        assert alike(answered(body, None, warm), cold)
        assert alike(answered(body, None, warm), cold)

    lists = st.lists(st.sampled_from(NUMBERS), min_size=3, max_size=5).map(
        lambda data: json.dumps(good).replace("[1, 2.5, -300.0, 0]", f"[{', '.join(data)}]").encode()
    )
    fuzz(st.one_of(lists, texts(good, WORDS), damaged([json.dumps(good).encode()], 2)), check)


NUMBERS = ["1", "-0", "1.5", "1e5", "1E-3", "NaN", "-Infinity", "01", "1.", ".5", "+1", "- 1", "1e", "0x1", "1_0"]
NUMBERS += ["true", "null", '"1"', "[1]", "[1, 2]", "9" * 400, "1e999", " ", "1 2", "\u0661", "\\u0031", "nan", "inf"]


@pytest.mark.parametrize("twist", ["length", "json", "bytes"])
def test_binary_requests_read_the_same_cold_and_warm(twist: str) -> None:
    good = {
        "inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "s", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
            {"name": "n", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}},
        ],
        "parameters": {"binary_data_output": True},
    }
    text, tensors = json.dumps(good).encode(), np.ones(2, np.float32).tobytes() + b"\x01\0\0\0w" + b"\x03"
    warm = v2.model("m", "1", (INPUTS, OUTPUTS))

    def check(given: tuple[bytes, int]) -> None:
        body, length = given
        cold = answered(body, length, v2.model("m", "1", (INPUTS, OUTPUTS)))
        assert alike(answered(body, length, warm), cold)
        assert alike(answered(body, length, warm), cold)

    check((text + tensors, len(text)))
    if twist == "length":
        near = st.sampled_from([len(text) + n for n in (-2, -1, 1, 2, 14, 15)])
        lengths = st.one_of(st.integers(-3, len(text) + 20), near, st.sampled_from([0, 2**31, 2**63]))
        fuzz(lengths.map(lambda length: (text + tensors, length)), check)
    elif twist == "json":
        bodies = changed(good, WORDS).map(lambda value: json.dumps(value).encode())
        fuzz(bodies.map(lambda body: (body + tensors, len(body))), check)
    else:
        fuzz(damaged([tensors], 3).map(lambda rest: (text + rest, len(text))), check)


def test_raw_bodies() -> None:
    for specs in (ONE, INPUTS[1:2], (TensorSpec("n", "int8", (2, None)),), (TensorSpec("b", "bool", (None,)),)):
        known = v2.model("m", "1", (specs, OUTPUTS))
        fuzz(st.binary(max_size=40), lambda body, known=known: answered(body, 0, known))


def test_torchserves_bodies() -> None:
    wanted = parse_preprocess({"kind": "image", "input": "x", "resize": [2, 2]})
    takes = Takes((TensorSpec("x", "float32", (None, 3, 2, 2)),), "image", "x", lambda data: apply(wanted, data))
    x = np.zeros((1, 3, 2, 2)).tolist()
    form = FORM.replace(b"PNG", photos()[0])
    bodies = st.one_of(
        texts({"instances": x}, ["instances", "inputs", "data", "body", "b64", "x"]),
        damaged([form, *photos()], 2),
        damaged([b"data=abc%20def&x=1"], 2),
    )
    kinds = ["application/json", "multipart/form-data; boundary=b", "image/png", "", "text/plain", "x" * 300, "a+json"]
    kinds += ["application/x-www-form-urlencoded", "application/octet-stream", "multipart/form-data"]

    def check(given: tuple[bytes, str]) -> None:
        sent = only_ours(lambda: torchserve_bodies.read(given[0], given[1].encode(), takes, Limits()))
        feeds = None if sent is None else only_ours(lambda: sent.feeds(takes))
        if callable(feeds):
            feeds = only_ours(feeds)
        if feeds is not None:
            only_ours(lambda: check_feeds(takes.inputs, feeds))

    fuzz(st.tuples(bodies, st.sampled_from(kinds)), check)

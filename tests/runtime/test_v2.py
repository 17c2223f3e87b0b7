"""The Open Inference Protocol v2 as bytes: what is read, what is written, what is refused."""

import contextlib
import json
import struct

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.protocols.v2 import Reply, Request, Wanted, metadata, read_request, write_response
from edgekit_runtime.protocols.v2_tensors import DATATYPES
from edgekit_runtime.tensors import TensorSpec
from hypothesis import given, settings
from hypothesis import strategies as st

X = TensorSpec("x", "float32", (None, 2))
Y = TensorSpec("y", "float32", (None, 2))
VALUE = np.array([[1.5, -2.0], [3.0, 4.25]], np.float32)
REPLY = Reply("m", "1", ("cat", "dog"))


def body(*inputs, **more):
    return json.dumps({"inputs": list(inputs), **more}).encode()


def tensor(**changes):
    made = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.5, -2.0, 3.0, 4.25]} | changes
    return {key: value for key, value in made.items() if value is not None}


def binary(value, **changes):
    raw = value.astype(value.dtype.newbyteorder("<")).tobytes()
    head = body(tensor(data=None, parameters={"binary_data_size": len(raw)}, **changes))
    return head + raw, len(head)


def read(text, length=None, specs=(X,)):
    return read_request(text, length, specs, [Y])


@pytest.mark.parametrize("data", [[1.5, -2.0, 3.0, 4.25], [[1.5, -2.0], [3, 4.25]]])
def test_json_data_may_be_flat_or_nested(data):
    assert np.array_equal(read(body(tensor(data=data))).feeds["x"], VALUE)


def test_binary_data_is_read_without_a_copy_of_its_meaning():
    assert np.array_equal(read(*binary(VALUE)).feeds["x"], VALUE)


def test_a_raw_body_is_the_one_input_and_its_free_size_follows():
    request = read(VALUE.tobytes(), 0)
    assert np.array_equal(request.feeds["x"], VALUE)
    assert request.outputs == (Wanted("y", binary=True),)


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
@pytest.mark.parametrize("as_binary", [True, False])
def test_every_datatype_goes_in_and_out_unchanged(datatype, as_binary):
    dtype = np.dtype(DATATYPES[datatype])
    low, high = (0, 1) if dtype.kind in "bf" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    value = np.array([[low, high], [1, 0]]).astype(dtype)
    spec, out = TensorSpec("x", dtype.name, (None, 2)), TensorSpec("y", dtype.name, (None, 2))
    if as_binary:
        text, length = binary(value, datatype=datatype)
    else:
        text, length = body(tensor(datatype=datatype, data=value.tolist())), None
    feeds = read_request(text, length, [spec], [out]).feeds
    assert feeds["x"].dtype == dtype
    assert np.array_equal(feeds["x"], value)
    text, length = write_response(REPLY, Request(feeds, (Wanted("y", as_binary),)), {"y": feeds["x"]})
    head = json.loads(text[:length])["outputs"][0]
    assert (head["datatype"], head["shape"]) == (datatype, [2, 2])
    if as_binary:
        assert head["parameters"] == {"binary_data_size": value.nbytes}
        assert text[length:] == value.tobytes()
    else:
        assert length is None
        assert np.array_equal(np.array(head["data"], dtype).reshape(2, 2), value)


def test_strings_go_both_ways():
    spec = TensorSpec("x", "object", (2,))
    words = ["", "grün\n"]
    packed = b"".join(struct.pack("<I", len(w.encode())) + w.encode() for w in words)
    head = body(tensor(shape=[2], datatype="BYTES", data=None, parameters={"binary_data_size": len(packed)}))
    as_json = body(tensor(shape=[2], datatype="BYTES", data=words))
    for text, length in ((head + packed, len(head)), (as_json, None)):
        value = read(text, length, [spec]).feeds["x"]
        assert value.tolist() == words
        reply, n = write_response(REPLY, Request({}, (Wanted("y", binary=True), Wanted("z"))), {"y": value, "z": value})
        assert reply[n:] == packed
        assert json.loads(reply[:n])["outputs"][1]["data"] == words
    assert read(b"\x01raw", 0, [TensorSpec("x", "object", (None,))]).feeds["x"].tolist() == ["\x01raw"]


@pytest.mark.parametrize("lie", [b"\x05\0\0\0abc", b"\x01\0", b"\xff\xff\xff\xffa", b"\x01\0\0\0\xff", b"\0\0\0\0" * 3])
def test_strings_whose_lengths_lie_are_refused(lie):
    head = body(tensor(shape=[2], datatype="BYTES", data=None, parameters={"binary_data_size": len(lie)}))
    with pytest.raises(BadRequest):
        read(head + lie, len(head), [TensorSpec("x", "object", (2,))])


def test_empty_tensors_are_tensors():
    empty = np.zeros((0, 2), np.float32)
    for text, length in (binary(empty, shape=[0, 2]), (body(tensor(shape=[0, 2], data=[])), None), (b"", 0)):
        assert read(text, length).feeds["x"].shape == (0, 2)
    text, length = write_response(REPLY, Request({}, (Wanted("y", binary=True),)), {"y": empty})
    assert json.loads(text[:length])["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_nan_and_infinity_are_read_and_written_as_triton_does():
    text = body(tensor(data=[float("nan"), float("inf"), float("-inf"), 0]))
    assert b"NaN" in text
    value = read(text).feeds["x"]
    assert np.array_equal(value, np.array([[np.nan, np.inf], [-np.inf, 0]], np.float32), equal_nan=True)
    assert b"[NaN,Infinity,-Infinity,0.0]" in write_response(REPLY, Request({}, (Wanted("y"),)), {"y": value})[0]


def test_a_request_without_outputs_wants_all_as_it_says():
    assert read(body(tensor())).outputs == (Wanted("y"),)
    assert read(body(tensor(), parameters={"binary_data_output": True})).outputs == (Wanted("y", binary=True),)


def test_an_outputs_own_wish_wins():
    asked = [{"name": "y", "parameters": {"binary_data": False}}]
    assert read(body(tensor(), outputs=asked, parameters={"binary_data_output": True})).outputs == (Wanted("y"),)


def test_the_id_comes_back_and_the_model_is_named():
    request = read(body(tensor(), id="seven"))
    head = json.loads(write_response(REPLY, request, {"y": VALUE})[0])
    assert (head["id"], head["model_name"], head["model_version"]) == ("seven", "m", "1")


def test_an_output_that_lies_turned_in_memory_is_written_in_its_own_order():
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    text, length = write_response(REPLY, Request({}, (Wanted("y", binary=True),)), {"y": turned})
    assert np.frombuffer(text[length:], np.float32).tolist() == [0, 3, 1, 4, 2, 5]


def test_classification_names_the_best():
    asked = [{"name": "y", "parameters": {"classification": 1}}]
    request = read(body(tensor(), outputs=asked))
    head = json.loads(write_response(REPLY, request, {"y": VALUE})[0])["outputs"][0]
    assert (head["datatype"], head["shape"], head["data"]) == ("BYTES", [2, 1], ["1.500000:0:cat", "4.250000:1:dog"])


def test_metadata_says_minus_one_for_a_free_size():
    told = metadata("m", ["1", "2"], "edgekit_onnx", ([X], [Y]))
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert told["versions"] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"1" * 5000, "not JSON"),
        (b'{"inputs": [], "inputs": []}', "twice"),
        (b'{"inputs": {}}', "list of objects"),
        (b'{"inputs": [1]}', "list of objects"),
        (b'{"inputs": [{"name": 1}]}', "list of objects"),
        (body(tensor(), tensor()), "twice"),
        (body(tensor(name="z")), "no input 'z'"),
        (body(tensor(), id=5), "id must be"),
        (body(tensor(), id="x" * 1001), "id must be"),
        (body(tensor(), parameters=[]), "parameters must"),
        (body(tensor(), parameters={"sequence_id": 3}), "sequences"),
        (body(tensor(), parameters={"binary_data_output": 1}), "true or false"),
        (body(tensor(), outputs=[{"name": "z"}]), "no output 'z'"),
        (body(tensor(), outputs=[{"name": "y"}, {"name": "y"}]), "twice"),
        (body(tensor(), outputs=[{"name": "y", "parameters": {"classification": -1}}]), "not supported"),
        (body(tensor(shape=None)), "list of sizes"),
        (body(tensor(shape=[-1, 2])), "list of sizes"),
        (body(tensor(shape=[2.0, 2])), "list of sizes"),
        (body(tensor(shape=[True, 2])), "list of sizes"),
        (body(tensor(shape=[1] * 17)), "list of sizes"),
        (body(tensor(shape=[2**62, 2**62])), "too many"),
        (body(tensor(shape=[0, 2**62])), "too many"),
        (body(tensor(shape=[4, 1])), "does not fit"),
        (body(tensor(datatype="FP64")), "expected FP32, got FP64"),
        (body(tensor(datatype="BF16")), "no datatype"),
        (body(tensor(datatype=None)), "no datatype"),
        (body(tensor(data=None)), "either data or"),
        (body(tensor(parameters={"binary_data_size": 16})), "either data or"),
        (body(tensor(data=None, parameters={"binary_data_size": 16})), "bytes left after"),
        (body(tensor(data=None, parameters={"binary_data_size": -1})), "bytes left after"),
        (body(tensor(data=None, parameters={"shared_memory_region": "r"})), "shared memory"),
        (body(tensor(data=1.0)), "must be a list"),
        (body(tensor(data=[1, 2, 3])), "3 values"),
        (body(tensor(data=[1, 2, 3, "4"])), "not FP32"),
        (body(tensor(data=[1, 2, 3, None])), "not FP32"),
        (body(tensor(data=[1, 2, 3, True])), "not FP32"),
        (body(tensor(data=[[1, 2], [3]])), "nested, but not as"),
        (body(tensor(data=[[1], [2], [3], [4]])), "nested, but not as"),
        (body(tensor(data=[[[1], 2], [3, 4]])), "not FP32"),
        (body(tensor(data=[1, [2], 3, 4])), "not FP32"),
        (body(tensor(data=[10**400, 0, 0, 0])), "does not fit FP32"),
    ],
)
def test_a_request_that_contradicts_itself_or_the_model_is_refused(text, words):
    with pytest.raises(BadRequest, match=words):
        read(text)


@pytest.mark.parametrize("data", [[300, 0], [-1, 0], [1.0, 2], [2**63, 2**64]])
def test_numbers_that_the_integer_type_cannot_hold_are_refused(data):
    with pytest.raises(BadRequest):
        read(body(tensor(shape=[1, 2], datatype="UINT8", data=data)), None, [TensorSpec("x", "uint8", (None, 2))])


@pytest.mark.parametrize("length", [-1, 10**9])
def test_a_header_length_outside_the_body_is_refused(length):
    with pytest.raises(BadRequest, match="not within"):
        read(body(tensor()), length)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_size_that_is_not_the_tensors_is_refused(size):
    raw = b"\0" * size
    head = body(tensor(data=None, parameters={"binary_data_size": size}))
    with pytest.raises(BadRequest, match="is 16 bytes"):
        read(head + raw, len(head))


def test_bytes_left_over_are_refused():
    text, length = binary(VALUE)
    with pytest.raises(BadRequest, match="1 bytes are left over"):
        read(text + b"!", length)


@pytest.mark.parametrize("raw", [b"\0" * 7, b"\0" * 9])
def test_a_raw_body_of_half_a_row_is_refused(raw):
    with pytest.raises(BadRequest):
        read(raw, 0)


def test_a_raw_body_for_two_inputs_or_two_free_sizes_is_refused():
    for specs in ([X, Y], [TensorSpec("x", "float32", (None, None))]):
        with pytest.raises(BadRequest, match="raw body"):
            read(b"\0" * 8, 0, specs)


def test_a_bool_byte_that_is_neither_is_refused():
    head = body(tensor(shape=[1, 2], datatype="BOOL", data=None, parameters={"binary_data_size": 2}))
    with pytest.raises(BadRequest, match="0 or 1"):
        read(head + b"\x01\x02", len(head), [TensorSpec("x", "bool", (None, 2))])


def test_json_too_wide_to_decode_is_refused_before_it_is():
    with pytest.raises(BadRequest, match="too many values"):
        read(b'{"inputs":[' + b"[],[]," * 1_500_000 + b"[]]}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "shape", "data"]), inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(
    JSON.map(lambda v: {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": v}]})
    | st.fixed_dictionaries({"name": JSON, "shape": JSON, "datatype": JSON, "data": JSON, "parameters": JSON}).map(
        lambda t: {"inputs": [t | {"name": "x"}]}
    )
    | JSON
)
def test_any_json_is_read_or_refused(raw):
    with contextlib.suppress(BadRequest):
        assert read(json.dumps(raw).encode()).feeds.keys() <= {"x"}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-5, 250))
def test_any_bytes_are_read_or_refused(text, length):
    with contextlib.suppress(BadRequest):
        read(text, length)

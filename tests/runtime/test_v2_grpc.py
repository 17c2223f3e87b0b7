"""The Open Inference Protocol v2 as gRPC messages: what is read, what is written, what is refused."""

import contextlib

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.messages import classes
from edgekit_runtime.protocols.v2_grpc import CONTENTS, Request, Wanted, model, read_request, write_response
from edgekit_runtime.protocols.v2_tensors import DATATYPES, NAMES
from edgekit_runtime.tensors import TensorSpec
from hypothesis import given, settings
from hypothesis import strategies as st

KNOWN = classes("inference")
REQUEST, REPLY = KNOWN["inference.ModelInferRequest"], KNOWN["inference.ModelInferResponse"]
X = TensorSpec("x", "float32", (None, 2))
Y = TensorSpec("y", "float32", (None, 2))
MODEL = model("m", "1", ((X,), (Y,)), ("cat", "dog"))
VALUE = np.array([[1.5, -2.0], [3.0, 4.25]], np.float32)


def message(*inputs, raw=(), **more):
    return REQUEST(model_name="m", inputs=inputs or [tensor()], raw_input_contents=raw, **more)


def tensor(**changes):
    return {"name": "x", "datatype": "FP32", "shape": [2, 2]} | changes


def typed(field="fp32_contents", values=(1.5, -2.0, 3.0, 4.25), **changes):
    return tensor(contents={field: values}, **changes)


def read(sent, specs=(X,), outputs=(Y,)):
    return read_request(sent, model("m", "1", (specs, outputs)))


def number(value, kind="int64_param"):
    return {kind: value}


def test_a_raw_tensor_is_read():
    got = read(message(raw=[VALUE.tobytes()], id="7"))
    np.testing.assert_array_equal(got.feeds["x"], VALUE)
    assert (got.id, got.outputs, got.timeout) == ("7", (Wanted("y"),), None)


SAMPLES = {
    "BOOL": [True, False],
    "FP32": [1.5, -0.0],
    "FP64": [1e300, -2.5],
    "BYTES": ["a", "ü€"],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT64": [0, 2**64 - 1],
}


@pytest.mark.parametrize("datatype", CONTENTS)
def test_every_type_is_read_from_its_own_field_and_from_bytes(datatype):
    dtype = np.dtype(DATATYPES[datatype])
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    values = SAMPLES.get(datatype) or [int(limits.min), int(limits.max)]
    spec = TensorSpec("x", dtype.name, (2,))
    held = [value.encode() for value in values] if datatype == "BYTES" else values
    sent = message(typed(CONTENTS[datatype], held, datatype=datatype, shape=[2]))
    got = read(sent, [spec]).feeds["x"]
    assert got.dtype == dtype
    assert got.tolist() == values
    reply = write_response(REPLY, MODEL, Request({}, (Wanted("x"),)), {"x": got})
    raw = message(tensor(datatype=datatype, shape=[2]), raw=reply.raw_output_contents)
    assert read(raw, [spec]).feeds["x"].tolist() == values


def test_half_precision_is_read_raw_only():
    spec, value = TensorSpec("x", "float16", (2,)), np.array([0.5, -2], np.float16)
    sent = message(tensor(datatype="FP16", shape=[2]), raw=[value.tobytes()])
    np.testing.assert_array_equal(read(sent, [spec]).feeds["x"], value)
    with pytest.raises(BadRequest, match="FP16 has no typed contents"):
        read(message(typed(datatype="FP16", shape=[2], values=[1, 2])), [spec])


def test_tensors_without_elements_are_read():
    empty = [tensor(shape=[0, 2])]
    assert read(message(*empty)).feeds["x"].shape == (0, 2)
    assert read(message(*empty, raw=[b""])).feeds["x"].shape == (0, 2)


def test_bfloat16_is_refused_by_name():
    with pytest.raises(BadRequest, match="BF16"):
        read(message(tensor(datatype="BF16"), raw=[b"12345678"]))


LIES = {
    "no such input": message(tensor(name="z")),
    "given twice": message(tensor(), tensor(), raw=[VALUE.tobytes()] * 2),
    "missing input x": REQUEST(),
    "2 raw_input_contents for 1 inputs": message(raw=[VALUE.tobytes()] * 2),
    "1 raw_input_contents for 0 inputs": REQUEST(raw_input_contents=[b""]),
    "contents beside raw_input_contents": message(typed(), raw=[VALUE.tobytes()]),
    "is 16 bytes, got 15": message(raw=[VALUE.tobytes()[:-1]]),
    "is 16 bytes, got 17": message(raw=[VALUE.tobytes() + b"1"]),
    "negative size": message(tensor(shape=[-1, 2])),
    "does not fit": message(tensor(shape=[2, 3])),
    "a shape of 17 sizes": message(tensor(shape=[1] * 17)),
    "too many elements": message(tensor(shape=[2**62, 2])),
    "0 values are not of shape": message(tensor()),
    "3 values are not of shape": message(typed(values=[1, 2, 3])),
    "belong in fp32_contents alone, got fp64_contents": message(typed("fp64_contents")),
    "alone, got fp32_contents, fp64_contents": message(
        tensor(contents={"fp32_contents": [1] * 4, "fp64_contents": [1]})
    ),
    "expected FP32, got FP64": message(typed("fp64_contents", datatype="FP64")),
    "no datatype 'FP7'": message(tensor(datatype="FP7")),
    "no datatype ''": message(tensor(datatype="")),
    "there is no shared memory": message(tensor(parameters={"shared_memory_region": {"string_param": "r"}})),
    "no output 'z'": message(typed(), outputs=[{"name": "z"}]),
    "asked for twice": message(typed(), outputs=[{"name": "y"}, {"name": "y"}]),
    "y: there is no shared memory": message(
        typed(), outputs=[{"name": "y", "parameters": {"shared_memory_region": {"string_param": "r"}}}]
    ),
    "classification must be a number": message(
        typed(), outputs=[{"name": "y", "parameters": {"classification": {"string_param": "2"}}}]
    ),
    "the parameter classification": message(
        typed(), outputs=[{"name": "y", "parameters": {"classification": {"bool_param": True}}}]
    ),
    "sequences are not supported": message(typed(), parameters={"sequence_id": {"string_param": "a"}}),
    "timeout must be a number": message(typed(), parameters={"timeout": {"int64_param": -1}}),
    "id must be a string of at most": message(typed(), id="i" * 1001),
}


@pytest.mark.parametrize("words", LIES)
def test_a_message_that_lies_is_refused(words):
    with pytest.raises(BadRequest) as caught:
        read(LIES[words])
    assert words in caught.value.what


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [("INT8", "int_contents", 128), ("UINT8", "uint_contents", 256), ("INT16", "int_contents", -32769)],
)
def test_a_value_that_its_type_cannot_hold_is_refused(datatype, field, value):
    spec = TensorSpec("x", DATATYPES[datatype], (1,))
    with pytest.raises(BadRequest, match=f"does not fit {datatype}"):
        read(message(typed(field, [value], datatype=datatype, shape=[1])), [spec])


@pytest.mark.parametrize("raw", [b"\1\0\0\0", b"\xff\xff\xff\xffa", b"\1\0\0"])
def test_strings_that_lie_about_their_length_are_refused(raw):
    with pytest.raises(BadRequest):
        read(message(tensor(datatype="BYTES", shape=[1]), raw=[raw]), [TensorSpec("x", "object", (1,))])


def test_strings_that_are_no_text_stay_bytes():
    spec = TensorSpec("x", "object", (2,))
    sent = message(typed("bytes_contents", [b"\xff", b"a"], datatype="BYTES", shape=[2]))
    assert read(sent, [spec]).feeds["x"].tolist() == [b"\xff", "a"]
    sent = message(tensor(datatype="BYTES", shape=[2]), raw=[b"\1\0\0\0\xff\1\0\0\0a"])
    assert read(sent, [spec]).feeds["x"].tolist() == [b"\xff", "a"]


def test_the_timeout_counts_microseconds():
    assert read(message(typed(), parameters={"timeout": {"int64_param": 2_500_000}})).timeout == 2.5
    assert read(message(typed(), parameters={"timeout": {"uint64_param": 1}})).timeout == 1e-6
    assert read(message(typed(), parameters={"timeout": {"int64_param": 0}})).timeout is None
    assert read(message(typed(), parameters={"timeout": {"uint64_param": 2**64 - 1}})).timeout == 86_400


def test_other_parameters_are_let_be():
    more = {"priority": {"uint64_param": 1}, "mine": {"double_param": 0.5}, "sequence_id": {"int64_param": 0}, "no": {}}
    assert read(message(typed(parameters={"mine": {"bool_param": True}}), parameters=more)).feeds["x"].shape == (2, 2)


def test_outputs_are_written_raw_in_the_order_that_was_asked_for():
    outputs = {"y": VALUE, "s": np.array(["a", "ü"], object), "e": np.empty((0, 3), np.int64)}
    request = Request({}, (Wanted("s"), Wanted("e"), Wanted("y")), "9")
    reply = write_response(REPLY, model("m", "3", ((), ())), request, outputs)
    assert (reply.model_name, reply.model_version, reply.id) == ("m", "3", "9")
    told = [(one.name, one.datatype, list(one.shape)) for one in reply.outputs]
    assert told == [("s", "BYTES", [2]), ("e", "INT64", [0, 3]), ("y", "FP32", [2, 2])]
    assert list(reply.raw_output_contents) == [b"\1\0\0\0a\2\0\0\0\xc3\xbc", b"", VALUE.tobytes()]
    assert not any(one.HasField("contents") for one in reply.outputs)


def test_classification_gives_the_best_with_their_labels():
    sent = message(typed(), outputs=[{"name": "y", "parameters": {"classification": {"int64_param": 1}}}])
    reply = write_response(REPLY, MODEL, read(sent), {"y": VALUE})
    assert (reply.outputs[0].datatype, list(reply.outputs[0].shape)) == ("BYTES", [2, 1])
    assert reply.raw_output_contents[0] == b"\x0e\0\0\x001.500000:0:cat\x0e\0\0\x004.250000:1:dog"


def test_classification_of_words_is_refused():
    request = Request({}, (Wanted("y", 1),))
    with pytest.raises(BadRequest, match="needs an output of numbers"):
        write_response(REPLY, MODEL, request, {"y": np.array(["a"], object)})


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_message_is_read_or_refused_and_nothing_else(data):
    name = st.sampled_from(["x", "y", ""])
    sizes = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 4), max_size=4)
    datatype = st.sampled_from([*NAMES.values(), "BF16", ""])
    values = st.fixed_dictionaries(
        {},
        optional={
            "fp32_contents": st.lists(st.floats(width=32), max_size=4),
            "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
            "bytes_contents": st.lists(st.binary(max_size=3), max_size=4),
        },
    )
    one = st.fixed_dictionaries({"name": name, "datatype": datatype, "shape": sizes}, optional={"contents": values})
    sent = REQUEST(
        inputs=data.draw(st.lists(one, max_size=3)),
        raw_input_contents=data.draw(st.lists(st.binary(max_size=17), max_size=2)),
    )
    spec = TensorSpec("x", data.draw(st.sampled_from(sorted(NAMES.keys() - {"bfloat16"}))), (None, 2))
    with contextlib.suppress(BadRequest):
        spec.check(read(sent, [spec]).feeds["x"])

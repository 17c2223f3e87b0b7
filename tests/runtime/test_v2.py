"""The Open Inference Protocol v2 as bytes: what is read, what is written, what is refused."""

import contextlib
import json
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, Exceeded
from edgekit_runtime.protocols.v2 import Call, Wanted, model, read_request, write_response
from edgekit_runtime.protocols.v2_tensors import DATATYPES, best, from_list, to_bytes, to_json
from edgekit_runtime.tensors import TensorSpec
from hypothesis import given, settings
from hypothesis import strategies as st

X = TensorSpec("x", "float32", (None, 2))
Y = TensorSpec("y", "float32", (None, 2))
VALUE = np.array([[1.5, -2.0], [3.0, 4.25]], np.float32)
PLAIN = [name for name in DATATYPES if name not in ("BYTES", "BF16")]


def known(specs=(X,), outputs=(Y,)):
    return model("m", "1", (specs, outputs), ("cat", "dog"))


def reply(outputs, *wanted, **said):
    """The reply to a call for these outputs; the rest of the call in `said`."""
    specs = [TensorSpec(name, "float32", ()) for name in outputs]
    return write_response(known(outputs=specs), Call(outputs=wanted, **said), outputs)


@dataclass
class Read:
    feeds: dict
    call: Call

    @property
    def outputs(self):
        return self.call.outputs


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
    return Read(*read_request(text, length, known(specs)))


@pytest.mark.parametrize("data", [[1.5, -2.0, 3.0, 4.25], [[1.5, -2.0], [3, 4.25]]])
def test_json_data_may_be_flat_or_nested(data):
    assert np.array_equal(read(body(tensor(data=data))).feeds["x"], VALUE)


def test_binary_data_is_read_without_a_copy_of_its_meaning():
    assert np.array_equal(read(*binary(VALUE)).feeds["x"], VALUE)


def test_a_raw_body_is_the_one_input_and_its_free_size_follows():
    request = read(VALUE.tobytes(), 0)
    assert np.array_equal(request.feeds["x"], VALUE)
    assert request.outputs == (Wanted("y", binary=True),)


@pytest.mark.parametrize("datatype", PLAIN)
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
    feeds, _ = read_request(text, length, known([spec], [out]))
    assert feeds["x"].dtype == dtype
    assert np.array_equal(feeds["x"], value)
    text, length = reply({"y": feeds["x"]}, Wanted("y", as_binary))
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
        text, n = reply({"y": value, "z": value}, Wanted("y", binary=True), Wanted("z"))
        assert text[n:] == packed
        assert json.loads(text[:n])["outputs"][1]["data"] == words
    assert read(b"\x01raw", 0, [TensorSpec("x", "object", (None,))]).feeds["x"].tolist() == ["\x01raw"]


@pytest.mark.parametrize("lie", [b"\x05\0\0\0abc", b"\x01\0", b"\xff\xff\xff\xffa", b"\0\0\0\0" * 3])
def test_strings_whose_lengths_lie_are_refused(lie):
    head = body(tensor(shape=[2], datatype="BYTES", data=None, parameters={"binary_data_size": len(lie)}))
    with pytest.raises(BadRequest):
        read(head + lie, len(head), [TensorSpec("x", "object", (2,))])


def test_empty_tensors_are_tensors():
    empty = np.zeros((0, 2), np.float32)
    for text, length in (binary(empty, shape=[0, 2]), (body(tensor(shape=[0, 2], data=[])), None), (b"", 0)):
        assert read(text, length).feeds["x"].shape == (0, 2)
    text, length = reply({"y": empty}, Wanted("y", binary=True))
    assert json.loads(text[:length])["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_nan_and_infinity_are_read_and_written_as_triton_does():
    text = body(tensor(data=[float("nan"), float("inf"), float("-inf"), 0]))
    assert b"NaN" in text
    value = read(text).feeds["x"]
    assert np.array_equal(value, np.array([[np.nan, np.inf], [-np.inf, 0]], np.float32), equal_nan=True)
    assert b"[NaN,Infinity,-Infinity,0.0]" in reply({"y": value}, Wanted("y"))[0]


def test_a_request_without_outputs_wants_all_as_it_says():
    assert read(body(tensor())).outputs == (Wanted("y"),)
    assert read(body(tensor(), parameters={"binary_data_output": True})).outputs == (Wanted("y", binary=True),)


def test_an_outputs_own_wish_wins():
    asked = [{"name": "y", "parameters": {"binary_data": False}}]
    assert read(body(tensor(), outputs=asked, parameters={"binary_data_output": True})).outputs == (Wanted("y"),)


def test_the_id_comes_back_and_the_model_is_named():
    call = read(body(tensor(), id="seven")).call
    head = json.loads(write_response(known(), call, {"y": VALUE})[0])
    assert (head["id"], head["model_name"], head["model_version"]) == ("seven", "m", "1")


def test_an_output_that_lies_turned_in_memory_is_written_in_its_own_order():
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    text, length = reply({"y": turned}, Wanted("y", binary=True))
    assert np.frombuffer(text[length:], np.float32).tolist() == [0, 3, 1, 4, 2, 5]


def test_classification_names_the_best():
    asked = [{"name": "y", "parameters": {"classification": 1}}]
    call = read(body(tensor(), outputs=asked)).call
    head = json.loads(write_response(known(), call, {"y": VALUE})[0])["outputs"][0]
    assert (head["datatype"], head["shape"], head["data"]) == ("BYTES", [2, 1], ["1.500000:0:cat", "4.250000:1:dog"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"1" * 5000, "JSON"),
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
        (body(tensor(), outputs=[{"name": "y", "parameters": {"classification": -1}}]), "number of classes"),
        (body(tensor(shape=None)), "list of sizes"),
        (body(tensor(shape=[-1, 2])), "list of sizes"),
        (body(tensor(shape=[2.0, 2])), "list of sizes"),
        (body(tensor(shape=[True, 2])), "list of sizes"),
        (body(tensor(shape=[1] * 17)), "list of sizes"),
        (body(tensor(shape=[2**62, 2**62])), "too many"),
        (body(tensor(shape=[0, 2**62])), "too many"),
        (body(tensor(shape=[4, 1])), "does not fit"),
        (body(tensor(datatype="FP64")), "expected FP32, got FP64"),
        (body(tensor(datatype="BF16")), "expected FP32, got BF16"),
        (body(tensor(datatype=None)), "no datatype"),
        (body(tensor(data=None)), "either data or"),
        (body(tensor(parameters={"binary_data_size": 16})), "either data or"),
        (body(tensor(data=None, parameters={"binary_data_size": 16})), "bytes left after"),
        (body(tensor(data=None, parameters={"binary_data_size": -1})), "number of bytes"),
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
    with pytest.raises((BadRequest, Exceeded), match=words):
        read(text)


@pytest.mark.parametrize("shape", [(100, 2), (1, 200), (200,)])
@pytest.mark.parametrize("nested", [True, False])
def test_long_data_is_as_short_data_is(shape, nested):
    value = np.random.default_rng(0).random(shape, np.float32)
    spec = TensorSpec("x", "float32", shape)
    data = value.tolist() if nested else value.ravel().tolist()
    assert np.array_equal(read(body(tensor(shape=list(shape), data=data)), None, [spec]).feeds["x"], value)
    for wrong in (data[:-1], [*data, 1.0], [*data, "1"], [data, data], [*data, True], [*data, None]):
        with pytest.raises(BadRequest):
            read(body(tensor(shape=list(shape), data=wrong)), None, [spec])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", "int32"])
def test_long_integers_are_exact_or_refused(dtype):
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    spec, say = TensorSpec("x", dtype, (100,)), {"shape": [100], "datatype": dtype.upper()}
    good = [low, high, *[1] * 98]
    assert read(body(tensor(data=good, **say)), None, [spec]).feeds["x"].tolist() == good
    for wrong in ([low - 1], [high + 1], [1.0], [1e3], [True], [None]):
        with pytest.raises(BadRequest):
            read(body(tensor(data=[*good[:99], *wrong], **say)), None, [spec])


def test_long_booleans_are_booleans_and_numbers_are_none():
    spec, say = TensorSpec("x", "bool", (100,)), {"shape": [100], "datatype": "BOOL"}
    assert read(body(tensor(data=[True, False] * 50, **say)), None, [spec]).feeds["x"].tolist() == [True, False] * 50
    with pytest.raises(BadRequest, match="not BOOL"):
        read(body(tensor(data=[1, 0] * 50, **say)), None, [spec])


def test_elements_that_are_no_text_pass_unchanged_and_never_break_a_json_reply():
    spec = TensorSpec("x", "object", (1, None))
    packed = b"\x02\0\0\0\xff\xfe\x02\0\0\0ok"
    head = body(tensor(shape=[1, 2], datatype="BYTES", data=None, parameters={"binary_data_size": len(packed)}))
    value = read(head + packed, len(head), [spec]).feeds["x"]
    assert value.tolist() == [[b"\xff\xfe", "ok"]]
    assert to_bytes(value) == packed
    assert json.loads(to_json(value)) == ["\ufffd\ufffd", "ok"]


@pytest.mark.parametrize("shape", [(None,), (1,), (None, None), (None, 1), ()])
def test_a_raw_body_of_bytes_is_one_element_without_a_length(shape):
    value = read(b"\x01raw\xff", 0, [TensorSpec("x", "object", shape)]).feeds["x"]
    assert value.shape == (1,) * len(shape)
    assert value.ravel().tolist() == [b"\x01raw\xff"]


def test_a_raw_body_for_two_elements_is_refused():
    with pytest.raises(BadRequest):
        read(b"raw", 0, [TensorSpec("x", "object", (2,))])


def test_bfloat16_goes_as_bytes_alone():
    kind = pytest.importorskip("ml_dtypes").bfloat16
    spec, value = TensorSpec("x", "bfloat16", (2,)), np.array([1.5, -2], kind)
    say = {"shape": [2], "datatype": "BF16"}
    head = body(tensor(data=None, parameters={"binary_data_size": 4}, **say), parameters={"binary_data_output": True})
    both = known([spec], [TensorSpec("y", "bfloat16", (2,))])
    feeds, call = read_request(head + value.tobytes(), len(head), both)
    assert np.array_equal(feeds["x"], value)
    text, length = write_response(both, call, {"y": feeds["x"]})
    assert text[length:] == value.tobytes()
    with pytest.raises(BadRequest, match="has no JSON"):
        read_request(body(tensor(data=[1, 2], **say), parameters={"binary_data_output": True}), None, both)
    with pytest.raises(BadRequest, match="has no JSON"):
        read_request(body(tensor(data=None, parameters={"binary_data_size": 4}, **say)), None, both)


def test_a_head_that_came_before_is_read_the_same_and_does_not_pile_up():
    one = known()
    for times in range(300):
        text, length = binary(VALUE + times)
        feeds, call = read_request(text, length, one)
        assert np.array_equal(feeds["x"], VALUE + times)
        assert call.outputs == (Wanted("y"),)
        head = body(tensor(data=None, parameters={"binary_data_size": 16}), id=str(times))
        assert read_request(head + VALUE.tobytes(), len(head), one)[1].id == str(times)
    assert 1 <= len(one.calls) <= 64
    with pytest.raises(BadRequest, match="bytes left"):
        read_request(text[:-1], length, one)
    with pytest.raises(BadRequest, match="left over"):
        read_request(text + b"!", length, one)


@pytest.mark.parametrize(
    "said", [{"sequence_id": 7}, {"sequence_id": "a"}, {"sequence_start": True}, {"sequence_end": True}]
)
def test_sequences_are_refused(said):
    with pytest.raises(BadRequest, match="sequences"):
        read(body(tensor(), parameters=said))


def test_parameters_that_change_nothing_are_ignored():
    said = {"priority": 1, "headers": {}, "triton_x": 1, "sequence_id": 0, "sequence_end": False, "mine": [1]}
    assert read(body(tensor(parameters={"own": 1}), parameters=said)).outputs == (Wanted("y"),)


@pytest.mark.parametrize(("said", "seconds"), [(None, None), (0, None), (1500, 0.0015), (60_000_000, 60.0)])
def test_a_timeout_is_in_microseconds(said, seconds):
    assert read(body(tensor(), parameters={"timeout": said})).call.timeout == seconds


@pytest.mark.parametrize("said", [-1, 1.5, "1", True, 10**400, 2**64])
def test_a_timeout_that_is_none_is_refused(said):
    with pytest.raises(BadRequest, match="microseconds"):
        read(body(tensor(), parameters={"timeout": said}))


def test_a_missing_input_is_named():
    with pytest.raises(BadRequest, match="missing input x"):
        read(body())


@pytest.mark.parametrize(
    ("value", "classes", "want"),
    [
        (np.array([[3, 1, 2]], np.float32), 9, [["3.000000:0", "2.000000:2", "1.000000:1"]]),
        (np.array([3, 9, 9, 1], np.uint8), 3, ["9:1", "9:2", "3:0"]),
        (np.array([-(2**63), 2**63 - 1, 2**63 - 2], np.int64), 2, [f"{2**63 - 1}:1", f"{2**63 - 2}:2"]),
        (np.array(5.5, np.float64), 2, ["5.500000:0"]),
        (np.array([np.nan, 1], np.float16), 2, ["1.000000:1", "nan:0"]),
    ],
)
def test_classification_takes_any_numbers_and_any_count(value, classes, want):
    assert best(value, classes, ()).tolist() == want


def test_classification_goes_as_bytes_too():
    text, length = reply({"y": VALUE}, Wanted("y", binary=True, classes=1))
    assert text[length:] == b"\x0e\0\0\x001.500000:0:cat\x0e\0\0\x004.250000:1:dog"


def test_an_array_of_half_floats_goes_as_json_both_ways():
    value = from_list([0.1, 65504, 1e9], "FP16", (3,), "x")
    assert value.dtype == np.float16
    assert np.isinf(value[2])
    assert json.loads(to_json(value[:2])) == pytest.approx([0.1, 65504], rel=1e-3)


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


@pytest.mark.slow
def test_json_too_wide_to_decode_is_refused_before_it_is():
    with pytest.raises(Exceeded, match="more than"):
        read(b'{"inputs":[' + b"[],[]," * 2_800_000 + b"[]]}")


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
    with contextlib.suppress(BadRequest, Exceeded):
        assert read(json.dumps(raw).encode()).feeds.keys() <= {"x"}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-5, 250))
def test_any_bytes_are_read_or_refused(text, length):
    with contextlib.suppress(BadRequest, Exceeded):
        read(text, length)


def again(*texts):
    """What a model reads of several texts, one after the other."""
    known = model("m", "1", ((TensorSpec("x", "float32", (None, 100)),), (TensorSpec("y", "float32", (None, 4)),)))
    return [read_request(text, None, known) for text in texts], known


def hundred(*values, more="", name="x"):
    data = json.dumps([*values, *range(100 - len(values))])
    return f'{{"inputs":[{{"name":"{name}","shape":[1,100],"datatype":"FP32","data":{data}}}]{more}}}'.encode()


def test_a_json_request_like_an_earlier_one_is_read_by_its_numbers_alone():
    read, known = again(hundred(1.5), hundred(2.5), hundred(3, more=',"id":"b"'), hundred(4, more=',"id":"b"'))
    assert [(feeds["x"][0, 0], call.id) for feeds, call in read] == [(1.5, None), (2.5, None), (3, "b"), (4, "b")]
    assert len(known.calls) == 2


@pytest.mark.parametrize(
    "bad",
    [
        hundred().replace(b"[0, 1", b"[true, 1"),
        hundred().replace(b"[0, 1", b"[null, 1"),
        hundred().replace(b"[0, 1", b'["0", 1'),
        hundred().replace(b"[0, 1", b"[0, [1]"),
        hundred().replace(b"[0, 1", b"[0,, 1"),
        hundred().replace(b"[0, 1", b"[0 1"),
        hundred().replace(b"[0, 1", b"[0, 1, 1"),
        hundred().replace(b"[0, 1", b"[0, 01"),
        hundred().replace(b"[0, 1", b'[0, {"a": 1}'),
    ],
)
def test_a_bad_list_is_refused_behind_a_good_one_as_it_is_alone(bad):
    for texts in ((bad,), (hundred(), bad)):
        with pytest.raises(BadRequest):
            again(*texts)


def test_only_a_text_that_cannot_mislead_is_kept():
    decoy = json.dumps(list(range(100)))
    _, known = again(hundred(more=f',"parameters":{{"data":{decoy}}}'), hundred(more=',"id":"\\u0041"'))
    assert known.calls == {}

"""TensorFlow Serving's REST bodies: rows and columns, base64, examples; what is read, written and refused."""

import base64
import contextlib
import json

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError, Exceeded
from edgekit_runtime.protocols import tfserving_values
from edgekit_runtime.protocols.tfserving import Signature, read_predict
from edgekit_runtime.protocols.tfserving_examples import read_classify, read_regress
from edgekit_runtime.protocols.tfserving_status import DTYPES, Version, metadata, status, unserved
from edgekit_runtime.protocols.tfserving_values import Encoded
from edgekit_runtime.tensors import TensorSpec
from hypothesis import given, settings
from hypothesis import strategies as st

X = TensorSpec("x", "float32", (None, 2))
Y = TensorSpec("y", "float32", (None, 2))
ONE = Signature((X,), (Y,))
TWO = Signature(
    (TensorSpec("signal", "float32", (None, 3)), TensorSpec("tag", "object", (None,))),
    (Y, TensorSpec("words_bytes", "object", (None,))),
)


def taking(dtype, *shape):
    return Signature((TensorSpec("x", dtype, shape),), (Y,))


def feeds(body, signature=ONE):
    return read_predict(json.dumps(body).encode(), signature).feeds


def reply(body, outputs, signature=ONE):
    return json.loads(read_predict(json.dumps(body).encode(), signature).write(outputs).body)


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


ROW = {"instances": [[1, 2.5]]}
COLUMN = {"inputs": [[1, 2.5]]}
ANSWER = {"y": np.array([[3.5, 4]], np.float32)}


def test_a_row_is_a_list_of_instances_and_is_answered_with_predictions():
    found = feeds({"instances": [[1, 2.5], [-3, 4e-2]]})
    assert found["x"].dtype == np.float32
    assert np.array_equal(found["x"], np.array([[1, 2.5], [-3, 0.04]], np.float32))
    assert reply(ROW, ANSWER) == {"predictions": [[3.5, 4.0]]}


def test_a_column_is_the_whole_tensor_and_is_answered_with_outputs():
    assert np.array_equal(feeds(COLUMN)["x"], [[1, 2.5]])
    assert reply(COLUMN, ANSWER) == {"outputs": [[3.5, 4.0]]}


@pytest.mark.parametrize("body", [{"instances": [{"x": [1, 2.5]}]}, {"inputs": {"x": [[1, 2.5]]}}])
def test_a_single_input_may_be_named(body):
    assert np.array_equal(feeds(body)["x"], [[1, 2.5]])


def test_several_inputs_are_named_in_each_row_and_several_outputs_are_objects():
    body = {"instances": [{"signal": [1, 2, 3], "tag": "foo"}, {"tag": "bar", "signal": [4, 5, 6]}]}
    found = feeds(body, TWO)
    assert np.array_equal(found["signal"], [[1, 2, 3], [4, 5, 6]])
    assert found["tag"].tolist() == ["foo", "bar"]
    outputs = {"y": np.array([[1, 2], [3, 4]], np.float32), "words_bytes": np.array([b"\xff", "a"], object)}
    assert reply(body, outputs, TWO) == {
        "predictions": [{"y": [1.0, 2.0], "words_bytes": b64(b"\xff")}, {"y": [3.0, 4.0], "words_bytes": b64(b"a")}]
    }


def test_several_inputs_are_named_once_as_columns():
    body = {"inputs": {"signal": [[1, 2, 3]], "tag": ["foo"]}}
    assert feeds(body, TWO)["tag"].tolist() == ["foo"]
    outputs = {"y": np.zeros((1, 2), np.float32), "words_bytes": np.array(["x", "y", "z"], object)}
    assert reply(body, outputs, TWO)["outputs"]["words_bytes"] == [b64(b"x"), b64(b"y"), b64(b"z")]


def test_outputs_of_different_batches_need_the_column_form():
    body = {"instances": [{"signal": [1, 2, 3], "tag": "foo"}]}
    outputs = {"y": np.zeros((1, 2), np.float32), "words_bytes": np.array(["x", "y"], object)}
    with pytest.raises(BadRequest, match=r"no common batch size: y \[1\], words_bytes \[2\]"):
        reply(body, outputs, TWO)
    with pytest.raises(BadRequest, match="no common batch size"):
        reply(ROW, {"y": np.array(1, np.float32)})


def test_a_scalar_goes_in_and_out_as_a_column():
    signature = Signature((TensorSpec("x", "int64", ()),), (TensorSpec("y", "float32", ()),))
    assert feeds({"inputs": 7}, signature)["x"] == 7
    assert reply({"inputs": 7}, {"y": np.array(0.5, np.float32)}, signature) == {"outputs": 0.5}


def test_scalar_instances_make_a_vector():
    assert feeds({"instances": [1.0, 2, 5.0]}, taking("float32", None))["x"].tolist() == [1, 2, 5]


@pytest.mark.parametrize("count", [1, 70, 784])
def test_long_lists_mean_what_short_ones_mean(count):
    value = (np.arange(3 * count, dtype=np.float32) / 7).reshape(3, count)
    for body in ({"instances": value.tolist()}, {"inputs": value.tolist()}, {"inputs": {"x": value.tolist()}}):
        assert np.array_equal(feeds(body, taking("float32", None, count))["x"], value)
    named = {"instances": [{"x": row} for row in value.tolist()]}
    assert np.array_equal(feeds(named, taking("float32", None, count))["x"], value)
    mixed = {"instances": [{"x": value[0].tolist()}, {"x": [1] * count}]}
    assert np.array_equal(feeds(mixed, taking("float32", None, count))["x"], [value[0], np.ones(count)])


def test_a_large_nested_tensor_comes_through_whole():
    value = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    assert np.array_equal(feeds({"instances": value.tolist()}, taking("float32", None, 3, 64, 64))["x"], value)


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "object"])
def test_every_type_goes_in_and_out_unchanged(name):
    dtype = np.dtype(name)
    low, high = (0, 1) if dtype.kind in "bf" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    value = np.array([[low, high], [1, 0]], dtype)
    signature = Signature((TensorSpec("x", name, (None, 2)),), (TensorSpec("y", name, (None, 2)),))
    found = feeds({"instances": value.tolist()}, signature)["x"]
    assert found.dtype == dtype
    assert np.array_equal(found, value)
    written = reply({"inputs": value.tolist()}, {"y": found}, signature)["outputs"]
    assert np.array_equal(np.array(written, dtype), value)


def test_nan_and_infinity_are_tokens_both_ways():
    asked = read_predict(b'{"instances": [[NaN, -Infinity], [Infinity, 1]]}', ONE)
    assert np.array_equal(asked.feeds["x"], [[np.nan, -np.inf], [np.inf, 1]], equal_nan=True)
    text = asked.write({"y": np.array([[np.nan, np.inf], [-np.inf, 1]], np.float32)}).body
    assert text.replace(b" ", b"") == b'{"predictions":[[NaN,Infinity],[-Infinity,1.0]]}'


def test_base64_is_text_for_a_string_input():
    asked = feeds({"instances": ["plain", b64("grün".encode())]}, taking("object", None))
    assert asked["x"].tolist() == ["plain", "grün"]
    with pytest.raises(BadRequest, match="not UTF-8"):
        feeds({"instances": [b64(b"\xff\x00")]}, taking("object", None))


@pytest.mark.parametrize("bad", ["!", "YQ=Y", "é"])
def test_what_is_not_base64_is_refused(bad):
    with pytest.raises(BadRequest, match="base64"):
        feeds({"instances": [{"b64": bad}]}, taking("object", None))


def photos(shape=(None, 2), decode=lambda data: np.full((1, 2), data[0], np.float32)):
    encoded = Encoded("x", "image", lambda data: {"x": decode(data)})
    return Signature((TensorSpec("x", "float32", shape),), (Y,), encoded=encoded)


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(b"\x01"), b64(b"\x02")]},
        {"instances": [{"x": b64(b"\x01")}, {"x": b64(b"\x02")}]},
        {"inputs": [b64(b"\x01"), b64(b"\x02")]},
        {"inputs": {"x": [b64(b"\x01"), b64(b"\x02")]}},
    ],
)
def test_photos_are_decoded_later_and_become_one_batch(body):
    later = feeds(body, photos())
    assert callable(later)
    assert later()["x"].tolist() == [[1, 1], [2, 2]]


def test_one_photo_may_be_a_column_and_tensors_are_still_taken():
    assert feeds({"inputs": b64(b"\x05")}, photos())()["x"].tolist() == [[5, 5]]
    assert feeds(ROW, photos())["x"].tolist() == [[1, 2.5]]


def test_photos_without_a_batch_axis_are_stacked():
    signature = photos(decode=lambda data: np.full(2, data[0], np.float32))
    assert feeds({"instances": [b64(b"\x01"), b64(b"\x02")]}, signature)()["x"].tolist() == [[1, 1], [2, 2]]


def test_photos_that_do_not_fit_each_other_are_refused():
    signature = photos((None, None), lambda data: np.zeros((1, data[0]), np.float32))
    with pytest.raises(BadRequest, match="different sizes"):
        feeds({"instances": [b64(b"\x01"), b64(b"\x02")]}, signature)()
    with pytest.raises(BadRequest, match="some samples"):
        feeds({"instances": [b64(b"\x01"), [1, 2]]}, photos())
    unbatched = photos((2, 2), lambda data: np.zeros((2, 2), np.float32))
    with pytest.raises(BadRequest, match="one sample at once"):
        feeds({"instances": [b64(b"\x01"), b64(b"\x02")]}, unbatched)()


IDS = Signature((TensorSpec("ids", "int64", (None, None)), TensorSpec("mask", "int64", (None, None))), (Y,))
TEXT = Signature(
    IDS.inputs,
    (Y,),
    encoded=Encoded(
        "ids", "text", lambda data: {"ids": np.array([list(data)]), "mask": np.ones((1, len(data)), np.int64)}
    ),
)


@pytest.mark.parametrize("sample", ["ab", b64(b"ab")])
@pytest.mark.parametrize("named", [True, False])
def test_a_text_becomes_all_the_inputs_that_its_preprocessing_makes(sample, named):
    row = {"ids": sample} if named else sample
    for body in ({"instances": [row, row]}, {"inputs": {"ids": [sample, sample]} if named else [sample, sample]}):
        made = feeds(body, TEXT)()
        assert made["ids"].tolist() == [[97, 98], [97, 98]]
        assert made["mask"].tolist() == [[1, 1], [1, 1]]
    examples = json.dumps({"examples": [{"ids": sample}]}).encode()
    assert read_classify(examples, TEXT).feeds()["mask"].tolist() == [[1, 1]]


def test_what_preprocessing_does_not_make_must_be_sent():
    signature = Signature((*IDS.inputs, TensorSpec("more", "float32", (None,))), (Y,), encoded=TEXT.encoded)
    with pytest.raises(BadRequest, match="missing input more"):
        feeds({"instances": ["ab"]}, signature)()
    assert feeds({"instances": [{"ids": "ab", "more": 1}]}, signature)()["more"].tolist() == [1]
    with pytest.raises(BadRequest, match="missing named input mask"):
        feeds({"instances": [{"ids": [1, 2]}]}, TEXT)


def test_small_photos_that_become_very_much_are_refused_before_they_do(monkeypatch):
    monkeypatch.setattr(tfserving_values, "MOST_DECODED", 20)
    with pytest.raises(Exceeded, match="too many samples"):
        feeds({"instances": [b64(b"\x01")] * 3}, photos())()


REFUSED = [
    ({}, "either 'instances' or 'inputs'"),
    (ROW | COLUMN, "either 'instances' or 'inputs'"),
    ({"instances": []}, "no values"),
    ({"instances": 1}, "must be a list"),
    ({"instances": {"x": [[1, 2]]}}, "must be a list"),
    ({"instances": [[1, 2], [3]]}, "one size at each level"),
    ({"instances": [[1, [2]]]}, "expected numbers"),
    ({"instances": [[1, 2], 3]}, "one size at each level"),
    ({"instances": [[1, 2, 3]]}, "expected shape"),
    ({"instances": [[1, "2"]]}, "expected numbers"),
    ({"instances": [[1, True]]}, "expected numbers"),
    ({"instances": [[1, None]]}, "expected numbers"),
    ({"instances": [[1, {}]]}, "expected numbers"),
    ({"instances": [[1, 1e39]]}, "does not fit float32"),
    ({"instances": [[1, 10**400]]}, "does not fit float32|not JSON"),
    ({"instances": [{"z": [1, 2]}]}, "no such input: z"),
    ({"instances": [{"x": [1, 2], "z": 1}]}, "no such input: z"),
    ({"instances": [{"x": [1, 2]}, [1, 2]]}, "item 1 .* keys x"),
    ({"instances": [{"x": [1, 2]}, {}]}, "item 1 .* keys x"),
    ({"instances": [{}]}, "missing named input x"),
    ({"instances": [b64(b"abc")]}, "expected numbers"),
    ({"inputs": {}}, "missing named input x"),
    ({"inputs": {"z": [[1, 2]]}}, "no such input: z"),
    ({"inputs": {"x": [[1, 2]], "z": 1}}, "no such input: z"),
    ({"inputs": "abc"}, "expected numbers"),
    ({"inputs": []}, "expected shape"),
    (ROW | {"signature_name": "other"}, 'Serving signature name: "other" not found in signature def'),
    (ROW | {"signature_name": 100}, "not found in signature def"),
    ([1], "not a JSON object"),
]


@pytest.mark.parametrize(("body", "words"), REFUSED)
def test_what_does_not_fit_is_refused_with_its_reason(body, words):
    with pytest.raises(BadRequest, match=words):
        feeds(body)


@pytest.mark.parametrize("value", [1.5, 1.0, 256, -1, True, "1"])
def test_an_integer_input_takes_integers_that_it_can_hold(value):
    for width in (1, 100):
        with pytest.raises(BadRequest, match=r"whole numbers|does not fit"):
            feeds({"instances": [[value] + [1] * (width - 1)]}, taking("uint8", None, width))


def test_a_named_long_list_of_floats_is_no_integer_input():
    with pytest.raises(BadRequest, match="whole numbers"):
        feeds({"inputs": {"x": [1.0] * 100}}, taking("int32", None))
    with pytest.raises(BadRequest, match="does not fit"):
        feeds({"inputs": {"x": [1000] * 100}}, taking("int8", None))
    with pytest.raises(BadRequest, match="strings"):
        feeds({"inputs": {"x": [1] * 100}}, taking("object", None))


def test_the_largest_integers_stay_exact_beside_small_ones():
    body = {"instances": [{"x": [2**64 - 1] * 80}, {"x": [1] * 80}]}
    found = feeds(body, taking("uint64", None, 80))["x"]
    assert found[:, 0].tolist() == [2**64 - 1, 1]


def test_several_inputs_must_be_named():
    for body in ({"instances": [[1, 2, 3]]}, {"inputs": [[1, 2, 3]]}):
        with pytest.raises(BadRequest, match="takes 2 inputs: name each"):
            feeds(body, TWO)


@pytest.mark.parametrize("name", ["serving_default", ""])
def test_the_default_signature_may_be_named(name):
    assert feeds(ROW | {"signature_name": name})["x"].tolist() == [[1, 2.5]]


LABELLED = Signature((X,), (TensorSpec("id", "int64", (None,)), Y), ("cat", "dog"))
SCORES = {"id": np.array([1, 0]), "y": np.array([[0.25, 0.75], [1, 0]], np.float32)}


def classified(body, outputs=SCORES, signature=LABELLED):
    return json.loads(read_classify(json.dumps(body).encode(), signature).write(outputs).body)


def test_classify_answers_label_and_score_of_each_class_for_each_example():
    body = {"examples": [{"x": [1, 2]}, {"x": [3, 4.5]}]}
    assert read_classify(json.dumps(body).encode(), LABELLED).feeds["x"].tolist() == [[1, 2], [3, 4.5]]
    assert classified(body) == {"results": [[["cat", 0.25], ["dog", 0.75]], [["cat", 1.0], ["dog", 0.0]]]}


def test_a_class_without_a_label_has_an_empty_one_and_one_from_the_model_has_that():
    body = {"examples": [{"x": [1, 2]}]}
    assert classified(body, {"y": np.array([[0.5, 0.5]], np.float32)}, ONE) == {"results": [[["", 0.5], ["", 0.5]]]}
    told = Signature((X,), (TensorSpec("words", "object", (None, 2)), Y))
    outputs = {"words": np.array([["a", b"b"]], object), "y": np.array([[0.5, 0.25]], np.float32)}
    assert classified(body, outputs, told) == {"results": [[["a", 0.5], ["b", 0.25]]]}


def test_regress_answers_one_value_for_each_example():
    signature = Signature((TensorSpec("x", "float32", (None, 1)),), (TensorSpec("y", "float32", (None, 1)),))
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": [2]}]}
    asked = read_regress(json.dumps(body).encode(), signature)
    assert asked.feeds["x"].tolist() == [[1], [2]]
    assert json.loads(asked.write({"y": np.array([[3.5], [4]], np.float32)}).body) == {"results": [3.5, 4.0]}


def test_the_context_is_shared_by_all_examples():
    signature = Signature((X, TensorSpec("tag", "object", (None,))), (Y,))
    body = {"context": {"tag": "all"}, "examples": [{"x": [1, 2]}, {"x": [3, 4]}]}
    assert read_classify(json.dumps(body).encode(), signature).feeds["tag"].tolist() == ["all", "all"]


def test_the_only_feature_is_the_only_input_whatever_its_name():
    body = {"examples": [{"input_1": [1, 2]}, {"": [3, 4]}]}
    assert read_regress(json.dumps(body).encode(), ONE).feeds["x"].tolist() == [[1, 2], [3, 4]]


def test_features_are_shaped_as_the_input_and_booleans_count_as_integers():
    signature = Signature((TensorSpec("x", "int32", (None, 2, None)),), (Y,))
    body = {"examples": [{"x": [1, True, 3, 4, 5, False]}]}
    assert read_classify(json.dumps(body).encode(), signature).feeds["x"].tolist() == [[[1, 1, 3], [4, 5, 0]]]


def test_photos_are_features_too():
    body = {"examples": [{"x": b64(b"\x01")}, {"x": [b64(b"\x02")]}]}
    assert read_classify(json.dumps(body).encode(), photos()).feeds()["x"].tolist() == [[1, 1], [2, 2]]


EXAMPLES_REFUSED = [
    ({}, "must be a list"),
    ({"examples": {}}, "must be a list"),
    ({"examples": []}, "no examples"),
    ({"examples": [1]}, "not a JSON object"),
    ({"examples": [{}]}, "lacks the feature x"),
    ({"examples": [{"a": 1, "b": 2}]}, "lacks the feature x"),
    ({"examples": [{"x": [1, 2]}, {"x": [1]}]}, "different number"),
    ({"examples": [{"x": [1, 2, 3]}]}, "has 3 values"),
    ({"examples": [{"x": []}]}, "has 0 values"),
    ({"examples": [{"x": [[1, 2]]}]}, "flat list"),
    ({"examples": [{"x": [1, None]}]}, "flat list"),
    ({"examples": [{"x": [1, "a"]}]}, "expected numbers"),
    ({"examples": [{"x": [1, 2]}], "context": {"x": [1, 2]}}, "both in the context"),
    ({"examples": [{"x": [1, 2]}], "context": [1]}, "not a JSON object"),
    ({"examples": [{"x": [1, 2]}], "signature_name": "other"}, "No signature was found with the name: other"),
    ({"examples": [{"x": [1, 2]}], "signature_name": 5}, "must be text"),
]


@pytest.mark.parametrize(("body", "words"), EXAMPLES_REFUSED)
def test_examples_that_do_not_fit_are_refused_with_the_reason(body, words):
    with pytest.raises(BadRequest) as caught:
        read_classify(json.dumps(body).encode(), ONE)
    assert words in f"{caught.value.what} {caught.value.hint}"


def test_a_model_that_gives_no_scores_or_values_cannot_classify_or_regress():
    text = json.dumps({"examples": [{"x": [1, 2]}]}).encode()
    with pytest.raises(BadRequest, match="scores"):
        read_classify(text, ONE).write({"y": np.zeros(2, np.float32)})
    with pytest.raises(BadRequest, match="values"):
        read_regress(text, ONE).write({"y": np.zeros((1, 2), np.float32)})


def test_the_status_is_told_as_tensorflow_serving_tells_it():
    assert status([Version(123, "AVAILABLE")]) == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_the_metadata_has_the_signature_as_tensorflow_serving_writes_it():
    told = metadata("half_plus_three", 123, Signature((X,), (Y,)))
    assert told["model_spec"] == {"name": "half_plus_three", "signature_name": "", "version": "123"}
    found = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert found["method_name"] == "tensorflow/serving/predict"
    assert found["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": False},
        "name": "x:0",
    }


def test_what_is_not_served_is_named_as_tensorflow_serving_names_it():
    assert unserved("half") == "Servable not found for request: Latest(half)"
    assert unserved("half", "3") == "Servable not found for request: Specific(half, 3)"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "b64", "tag", "signal"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), VALUES),
    st.sampled_from([ONE, TWO, photos(), TEXT, taking("int8", None, 2), taking("object", None, None), taking("bool")]),
)
def test_any_json_is_read_or_refused(raw, signature):
    text = json.dumps(raw).encode()
    for read in (read_predict, read_classify, read_regress):
        with contextlib.suppress(EdgeKitError):
            found = read(text, signature).feeds
            if not callable(found):
                assert all(spec.accepts(found[spec.name].shape) for spec in signature.inputs)

"""TensorFlow Serving's gRPC: our messages against the real ones, tensors both ways, and its own stubs as the client."""

import asyncio
import contextlib

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError, Exceeded, Forbidden, NotFound, NotOffered
from edgekit_runtime.messages import classes
from edgekit_runtime.protocols import tfserving_grpc as protocol
from edgekit_runtime.protocols import tfserving_tensors as tensors
from edgekit_runtime.protocols.tfserving import Signature
from edgekit_runtime.protocols.tfserving_status import DTYPES, Version
from edgekit_runtime.protocols.tfserving_values import Encoded
from edgekit_runtime.rpc import Context
from edgekit_runtime.rpc.tfserving import METHODS
from edgekit_runtime.served import Served
from edgekit_runtime.service import Entry, Service
from edgekit_runtime.tensors import TensorSpec
from hypothesis import given, settings
from hypothesis import strategies as st

X, Y = TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "float32", (None, 2))
ONE = Signature((X,), (Y,), ("cat", "dog"))
OURS = classes("tensorflow_serving")
NUMBERS = {
    name: index
    for index, name in enumerate(
        OURS["tensorflow.TensorProto"].DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name
    )
}


def tensor(spec, shape, **values):
    made = OURS["tensorflow.TensorProto"](dtype=NUMBERS[DTYPES[spec.dtype]], **values)
    made.tensor_shape.SetInParent()
    for size in shape:
        made.tensor_shape.dim.add().size = size
    return made


def spec(dtype, *shape):
    return TensorSpec("x", dtype, shape)


@pytest.mark.parametrize("name", list(DTYPES))
@pytest.mark.parametrize("typed", [True, False])
def test_every_type_goes_in_and_out_unchanged(name, typed):
    dtype = np.dtype(name)
    if name == "object":
        value = np.array([["a", "grün"], ["", "c"]], object)
    else:
        low, high = (0, 1) if dtype.kind in "bf" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        value = np.array([[low, high], [1, 0]], dtype)
    sent = OURS["tensorflow.TensorProto"]()
    tensors.fill_tensor(sent, value)
    if typed and name != "object":
        sent.ClearField("tensor_content")
        bits = value.view(np.uint16) if name == "float16" else value
        getattr(sent, tensors.FIELDS[DTYPES[name]]).extend(bits.ravel().tolist())
    found = tensors.array(OURS["tensorflow.TensorProto"].FromString(sent.SerializeToString()), spec(name, None, 2))
    assert found.dtype == dtype
    assert np.array_equal(found, value)


def test_the_last_value_fills_the_rest_and_none_at_all_are_zeros():
    x = spec("float32", None, 2)
    assert tensors.array(tensor(x, (2, 2), float_val=[7]), x).tolist() == [[7, 7], [7, 7]]
    assert tensors.array(tensor(x, (2, 2), float_val=[1, 2, 3]), x).tolist() == [[1, 2], [3, 3]]
    assert tensors.array(tensor(x, (2, 2)), x).tolist() == [[0, 0], [0, 0]]
    text = spec("object", None)
    assert tensors.array(tensor(text, (3,), string_val=[b"a", b"b"]), text).tolist() == ["a", "b", "b"]


def test_an_empty_batch_and_a_scalar_have_their_shape():
    assert tensors.array(tensor(X, (0, 2)), X).shape == (0, 2)
    assert tensors.array(tensor(X, (), float_val=[5]), spec("float32")).shape == ()


def test_one_value_that_stands_for_very_many_is_refused_before_it_is_repeated():
    wide = spec("float32", None, None)
    with pytest.raises(Exceeded, match="1 values for"):
        tensors.array(tensor(wide, (2**31, 2**31), float_val=[1]), wide)


INT = spec("int8", None)
TENSORS_REFUSED = [
    (tensor(spec("float64", None), (1, 2), double_val=[1, 2]), X, "expected DT_FLOAT, got DT_DOUBLE"),
    (OURS["tensorflow.TensorProto"](dtype=33), X, "expected DT_FLOAT, got 33"),
    (tensor(X, (2,), float_val=[1, 2]), X, "does not fit"),
    (tensor(X, (-1, 2), float_val=[1, 2]), X, "does not fit"),
    (tensor(X, (1, 3), float_val=[1, 2, 3]), X, "does not fit"),
    (tensor(X, (1, 2), float_val=[1, 2, 3]), X, "3 values are not of shape"),
    (tensor(X, (1, 2), tensor_content=b"1234567"), X, "7 bytes of tensor_content"),
    (tensor(INT, (1,), int_val=[128]), INT, "does not fit int8"),
    (tensor(spec("bool", 1), (1,), tensor_content=b"\2"), spec("bool", 1), "neither 0 nor 1"),
    (tensor(spec("object", 1), (1,), tensor_content=b"\1a"), spec("object", 1), "strings in tensor_content"),
    (tensor(spec("object", 1), (1,), string_val=[b"\xff"]), spec("object", 1), "not UTF-8"),
    (tensor(spec("float16", 1), (1,), half_val=[70000]), spec("float16", 1), "does not fit"),
]


@pytest.mark.parametrize(("sent", "wanted", "words"), TENSORS_REFUSED)
def test_a_tensor_that_does_not_fit_is_refused_with_its_reason(sent, wanted, words):
    with pytest.raises(BadRequest, match=words):
        tensors.array(sent, wanted)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_tensor_or_refused(data):
    try:
        sent = OURS["tensorflow.TensorProto"].FromString(data)
    except Exception:  # protobuf's own refusal
        return
    for name in DTYPES:
        with contextlib.suppress(EdgeKitError):
            assert tensors.array(sent, spec(name, None)).ndim == 1


def predict_request(**inputs):
    made = OURS["tensorflow.serving.PredictRequest"]()
    for name, sent in inputs.items():
        made.inputs[name].CopyFrom(sent)
    return made


def test_photos_in_string_val_are_decoded_later():
    encoded = Encoded("x", "image", lambda data: {"x": np.full((1, 2), data[0], np.float32)})
    signature = Signature((X,), (Y,), encoded=encoded)
    text = tensor(spec("object", None), (2,), string_val=[b"\1", b"\2"])
    later = protocol.read_predict(predict_request(x=text), signature, ("m", 1)).feeds
    assert later()["x"].tolist() == [[1, 1], [2, 2]]


def half(version):
    """Half of each number, plus its version's number of dots."""
    return Served(
        "half",
        version,
        "fake",
        (X,),
        (Y,),
        lambda f: {"y": f["x"] / 2 + np.float32(version.count("."))},
        ("cat", "dog"),
    )


def called(name, request, *versions, service=None):
    method = next(method for method in METHODS if method.path.endswith(f"/{name}"))

    async def call():
        found = service or Service([half(version) for version in versions or ("1",)], {"old": ("half", "1")})
        return await method.answer(found, request, Context(5.0))

    assert isinstance(request, method.request)
    reply = asyncio.run(call())
    assert isinstance(reply, method.response)
    return reply


def ask(kind, name="half", **choice):
    made = OURS[f"tensorflow.serving.{kind}"]()
    made.model_spec.name = name
    if "version" in choice:
        made.model_spec.version.value = choice.pop("version")
    for key, value in choice.items():
        setattr(made.model_spec, key, value)
    return made


def predicted(*versions, **choice):
    request = ask("PredictRequest", **choice)
    request.inputs["x"].CopyFrom(tensor(X, (1, 2), float_val=[1, 2]))
    return called("Predict", request, *versions)


def test_predict_asks_the_newest_version_or_the_number_or_the_label():
    assert tensors.array(predicted("1", "1.0").outputs["y"], Y).tolist() == [[1.5, 2]]
    for choice in ({"version": 1}, {"version_label": "old"}):
        reply = predicted("1", "2", **choice)
        assert (reply.model_spec.name, reply.model_spec.version.value) == ("half", 1)
        assert reply.model_spec.signature_name == "serving_default"
    assert predicted("v1.0", "v1.1", version=2).model_spec.version.value == 2


WRONG = [
    ({"name": ""}, BadRequest, "ModelSpec has no name"),
    ({"name": "no"}, NotFound, r"Servable not found for request: Latest\(no\)"),
    ({"name": "no", "version": 3}, NotFound, r"Specific\(no, 3\)"),
    ({"version": 7}, NotFound, r"Specific\(half, 7\)"),
    ({"version_label": "new"}, BadRequest, "Unrecognized servable version label: new"),
    ({"signature_name": "other"}, BadRequest, 'Serving signature key "other" not found'),
]


@pytest.mark.parametrize(("choice", "kind", "words"), WRONG)
def test_what_is_not_served_is_refused_in_tensorflow_servings_words(choice, kind, words):
    with pytest.raises(kind, match=words):
        predicted(**choice)


def test_inputs_that_are_missing_or_too_many_are_named():
    request = ask("PredictRequest")
    request.inputs["z"].CopyFrom(tensor(X, (1, 2), float_val=[1, 2]))
    with pytest.raises(BadRequest, match=r"Sent extra: \{z\}. Missing but required: \{x\}"):
        called("Predict", request)


def test_an_output_filter_names_outputs_that_there_are_each_once():
    for names, words in ((["z"], "alias not found in signature: z"), (["y", "y"], "duplicate")):
        request = ask("PredictRequest")
        request.inputs["x"].CopyFrom(tensor(X, (1, 2), float_val=[1, 2]))
        request.output_filter.extend(names)
        with pytest.raises(BadRequest, match=words):
            called("Predict", request)


def test_an_input_without_examples_is_refused():
    with pytest.raises(BadRequest, match="Input is empty"):
        called("Classify", ask("ClassificationRequest"))
    with pytest.raises(BadRequest, match="no tasks"):
        called("MultiInference", OURS["tensorflow.serving.MultiInferenceRequest"]())


def test_metadata_is_the_signature_and_nothing_else():
    request = ask("GetModelMetadataRequest")
    with pytest.raises(BadRequest, match="at least one metadata_field"):
        called("GetModelMetadata", request)
    request.metadata_field.append("weights")
    with pytest.raises(BadRequest, match="weights is not supported"):
        called("GetModelMetadata", request)


def test_a_status_has_a_state_for_each_version():
    told = protocol.status([Version(2, "LOADING"), Version(1, "END", "it does not open")]).model_version_status
    assert [(one.version, one.state, one.status.error_code) for one in told] == [(2, 20, 0), (1, 50, 2)]


class Repository(Service):
    """A service that writes down what it is asked to load and unload."""

    def __init__(self, *names):
        super().__init__([half("1")])
        self.done = []

    async def load(self, name):
        self.done.append(("load", name))

    async def unload(self, name):
        self.done.append(("unload", name))

    def index(self):
        return [Entry("half", "1", "READY")]


def reload_request(*names, **more):
    made = OURS["tensorflow.serving.ReloadConfigRequest"]()
    made.config.model_config_list.SetInParent()
    for name in names:
        made.config.model_config_list.config.add(name=name, **more)
    return made


def reloaded(request):
    async def call():
        service = Repository()
        await next(m for m in METHODS if m.path.endswith("/HandleReloadConfigRequest")).answer(
            service, request, Context()
        )
        return service.done

    return asyncio.run(call())


def test_a_new_configuration_loads_what_it_names_and_unloads_the_rest():
    assert reloaded(reload_request("other")) == [("load", "other"), ("unload", "half")]
    assert reloaded(reload_request("half", "other")) == [("load", "half"), ("load", "other")]
    assert reloaded(reload_request()) == [("unload", "half")]


def test_a_path_in_a_configuration_is_refused_before_anything_is_done():
    with pytest.raises(Forbidden, match="base_path is never taken"):
        reloaded(reload_request("other", base_path="/etc"))
    with pytest.raises(NotOffered):
        reloaded(reload_request("other", version_labels={"a": 1}))
    with pytest.raises(BadRequest, match="name"):
        reloaded(reload_request("other", "other"))
    with pytest.raises(BadRequest, match="not supported"):
        reloaded(OURS["tensorflow.serving.ReloadConfigRequest"]())


def test_a_configuration_is_not_taken_where_loading_is_switched_off():
    with pytest.raises(Forbidden):
        called("HandleReloadConfigRequest", reload_request("half"))


def test_only_reloading_is_for_the_admin():
    assert [m.path for m in METHODS if m.scope == "admin"] == [
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    ]
    assert {m.scope for m in METHODS} == {"infer", "admin"}

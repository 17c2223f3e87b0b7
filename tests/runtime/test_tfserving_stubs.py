"""TensorFlow Serving's own messages and stubs, unmodified, against ours: field by field, call by call."""

import asyncio
import os
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from edgekit_runtime.counters import Counters
from edgekit_runtime.grpc import start
from edgekit_runtime.lane import Lane
from edgekit_runtime.messages import classes
from edgekit_runtime.rpc.tfserving import METHODS
from edgekit_runtime.served import Served
from edgekit_runtime.service import Service, open_service
from edgekit_runtime.tensors import TensorSpec

from tests.runtime.bundles import LABELS, make_bundle, some, truth

pytestmark = pytest.mark.slow
OURS = classes("tensorflow_serving")
LEFT_OUT = {"tensorflow.DataType", "tensorflow.error.Code"}
"""Enums of which ours has the first values only; the others are types that no engine here takes."""


def tf() -> Any:
    """TensorFlow, which takes seconds to import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return import_module("tensorflow")


def api(name: str, what: str = "") -> Any:
    """A module of the real stubs."""
    tf()
    return import_module(f"tensorflow_serving.apis.{name}_pb2{what}")


def real(name: str) -> Any:
    """The real message of that full name, from the files that the two services import."""
    seen, files = set(), [api("prediction_service").DESCRIPTOR, api("model_service").DESCRIPTOR]
    while files:
        file = files.pop()
        if file.name in seen:
            continue
        seen.add(file.name)
        files.extend(file.dependencies)
        local = name.removeprefix(file.package + ".") if name.startswith(file.package + ".") else ""
        message = file.message_types_by_name.get(local.split(".")[0])
        for part in local.split(".")[1:]:
            message = message and message.nested_types_by_name.get(part)
        if message is not None:
            return message
    raise AssertionError(f"TensorFlow Serving has no message {name}")


def described(field: Any) -> tuple[Any, ...]:
    """All that decides how a field looks on the wire and in Python."""
    kind = field.message_type or field.enum_type
    packed = field.is_repeated and field.is_packed
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.type, field.is_repeated, packed, kind and kind.full_name, oneof


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith("tensorflow.")])
def test_every_field_of_ours_is_theirs(name: str) -> None:
    theirs = {field.name: described(field) for field in real(name).fields}
    for field in OURS[name].DESCRIPTOR.fields:
        assert described(field) == theirs[field.name], field.full_name


def test_every_value_of_our_enums_is_theirs() -> None:
    checked = set()
    for name in OURS:
        for field in OURS[name].DESCRIPTOR.fields:
            if name.startswith("tensorflow.") and field.enum_type is not None:
                theirs = real(name).fields_by_name[field.name].enum_type.values_by_name
                ours = field.enum_type.values_by_name
                assert {key: value.number for key, value in ours.items()}.items() <= {
                    key: value.number for key, value in theirs.items()
                }.items()
                assert len(ours) == len(theirs) or field.enum_type.full_name in LEFT_OUT
                checked.add(field.enum_type.full_name)
    assert checked == {"tensorflow.DataType", "tensorflow.error.Code", "tensorflow.serving.ModelVersionStatus.State"}


def test_every_method_of_theirs_is_ours() -> None:
    theirs = {
        f"/{service.full_name}/{method.name}": (method.input_type.full_name, method.output_type.full_name)
        for file in (api("prediction_service").DESCRIPTOR, api("model_service").DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    ours = {m.path: (m.request.DESCRIPTOR.full_name, m.response.DESCRIPTOR.full_name) for m in METHODS}
    assert ours == theirs


X, Y = TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "float32", (None, 1))
MANY = tuple(TensorSpec(kind, kind, (None,)) for kind in ("int64", "float16", "object", "bool", "uint8", "float64"))


def services(bundle: Path) -> Service:
    """A real bundle, a model of one value, and one that gives back what it gets, of many types."""
    service = open_service([bundle], {"stable": ("tiny", "3")})
    service._put(Lane(Served("sum", "1", "fake", (X,), (Y,), lambda f: {"y": f["x"].sum(1, keepdims=True)})))
    service._put(Lane(Served("same", "7", "fake", MANY, MANY, dict)))
    return service


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A channel to the gRPC edge, whose loop runs in a thread."""
    bundle = make_bundle(tmp_path_factory.mktemp("made") / "tiny", version="3")
    started, done, port = threading.Event(), [], []

    async def serve() -> None:
        stop, service = asyncio.Event(), services(bundle)
        done.append((asyncio.get_running_loop(), stop))
        running, number = await start(service, "127.0.0.1:0", Counters(), admin=True)
        port.append(number)
        started.set()
        await stop.wait()
        await running.stop(1)
        await service.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(30)
    with grpc.insecure_channel(f"127.0.0.1:{port[0]}") as found:
        yield found
    loop, stop = done[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return api("prediction_service", "_grpc").PredictionServiceStub(channel)


@pytest.fixture
def models(channel: grpc.Channel) -> Any:
    return api("model_service", "_grpc").ModelServiceStub(channel)


def predict(name: str, **inputs: Any) -> Any:
    request = api("predict").PredictRequest()
    request.model_spec.name = name
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf().make_tensor_proto(value))
    return request


def test_a_real_bundle_predicts(stub: Any) -> None:
    reply = stub.Predict(predict("tiny", x=some(2)), timeout=10)
    assert np.allclose(tf().make_ndarray(reply.outputs["y"]), truth(some(2)), atol=1e-5)
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("tiny", 3)


def test_typed_values_and_a_label_are_understood(stub: Any) -> None:
    request = api("predict").PredictRequest()
    request.model_spec.name, request.model_spec.version_label = "tiny", "stable"
    request.inputs["x"].dtype = tf().float32.as_datatype_enum
    request.inputs["x"].tensor_shape.CopyFrom(tf().TensorShape([1, 3, 2, 2]).as_proto())
    request.inputs["x"].float_val.extend(some(1).ravel().tolist())
    found = tf().make_ndarray(stub.Predict(request, timeout=10).outputs["y"])
    assert np.allclose(found, truth(some(1)), atol=1e-5)


def test_every_type_comes_back_as_it_went(stub: Any) -> None:
    values = {
        "int64": np.array([-(2**63), 1]),
        "float16": np.array([1.5, -2], np.float16),
        "object": np.array([b"a", "grün".encode()], object),
        "bool": np.array([True, False]),
        "uint8": np.array([0, 255], np.uint8),
        "float64": np.array([1e300, np.nan]),
    }
    reply = stub.Predict(predict("same", **values), timeout=10)
    for name, value in values.items():
        found = tf().make_ndarray(reply.outputs[name])
        assert found.dtype == value.dtype
        assert np.array_equal(found, value, equal_nan=name == "float64")


def test_a_filter_leaves_the_other_outputs_out(stub: Any) -> None:
    request = predict("same", **{spec.name: np.zeros(1, spec.dtype) for spec in MANY if spec.dtype != "object"})
    request.inputs["object"].CopyFrom(tf().make_tensor_proto(["a"]))
    request.output_filter.extend(["bool", "object"])
    assert set(stub.Predict(request, timeout=10).outputs) == {"bool", "object"}


def test_an_empty_answer_keeps_its_shape(stub: Any) -> None:
    reply = stub.Predict(predict("sum", x=np.zeros((0, 2), np.float32)), timeout=10)
    assert tf().make_ndarray(reply.outputs["y"]).shape == (0, 1)


def examples(*rows: Any) -> list[Any]:
    return [
        tf().train.Example(
            features=tf().train.Features(
                feature={"x": tf().train.Feature(float_list=tf().train.FloatList(value=np.ravel(row).tolist()))}
            )
        )
        for row in rows
    ]


def test_a_real_bundle_classifies_examples(stub: Any) -> None:
    request = api("classification").ClassificationRequest()
    request.model_spec.name = "tiny"
    request.input.example_list.examples.extend(examples(*some(2)))
    result = stub.Classify(request, timeout=10).result
    assert [one.label for one in result.classifications[0].classes] == list(LABELS)
    scores = [[one.score for one in row.classes] for row in result.classifications]
    assert np.allclose(scores, truth(some(2)), atol=1e-5)


def test_examples_with_a_context_are_regressed(stub: Any) -> None:
    request = api("regression").RegressionRequest()
    request.model_spec.name = "sum"
    context = request.input.example_list_with_context.context
    context.features.feature["x"].int64_list.value.extend([1, 2])
    request.input.example_list_with_context.examples.add()
    reply = stub.Regress(request, timeout=10)
    assert [one.value for one in reply.result.regressions] == [3]


def test_several_tasks_share_one_input(stub: Any) -> None:
    request = api("inference").MultiInferenceRequest()
    for method in ("tensorflow/serving/regress", "tensorflow/serving/classify"):
        task = request.tasks.add(method_name=method)
        task.model_spec.name = "sum"
    request.input.example_list.examples.extend(examples([1, 2], [3, 4]))
    first, second = stub.MultiInference(request, timeout=10).results
    assert [one.value for one in first.regression_result.regressions] == [3, 7]
    assert [row.classes[0].score for row in second.classification_result.classifications] == [3, 7]


def test_the_metadata_unpacks_to_the_signature(stub: Any) -> None:
    request = api("get_model_metadata").GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    reply = stub.GetModelMetadata(request, timeout=10)
    found = api("get_model_metadata").SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert [dim.size for dim in signature.inputs["x"].tensor_shape.dim] == [-1, 3, 2, 2]
    assert tf().dtypes.as_dtype(signature.outputs["y"].dtype) is tf().float32


def test_the_status_of_a_model_is_available(models: Any) -> None:
    request = api("get_model_status").GetModelStatusRequest()
    request.model_spec.name = "tiny"
    told = models.GetModelStatus(request, timeout=10).model_version_status
    assert [(one.version, one.state, one.status.error_code) for one in told] == [(3, 30, 0)]


def test_a_path_in_a_configuration_is_refused(models: Any) -> None:
    request = api("model_management").ReloadConfigRequest()
    request.config.model_config_list.config.add(name="tiny", base_path="/models/tiny", model_platform="tensorflow")
    with pytest.raises(grpc.RpcError) as refused:
        models.HandleReloadConfigRequest(request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("name", "inputs", "code", "words"),
    [
        ("no", {"x": some(1)}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(no)"),
        ("tiny", {"x": some(1).astype(np.float64)}, grpc.StatusCode.INVALID_ARGUMENT, "expected DT_FLOAT"),
        ("tiny", {"x": some(1)[0]}, grpc.StatusCode.INVALID_ARGUMENT, "does not fit"),
        ("tiny", {}, grpc.StatusCode.INVALID_ARGUMENT, "Missing but required: {x}"),
    ],
)
def test_what_is_wrong_has_its_status_and_its_reason(stub: Any, name: str, inputs: Any, code: Any, words: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(predict(name, **inputs), timeout=10)
    assert refused.value.code() is code
    assert words in refused.value.details()

"""TensorFlow Serving's REST by plain requests, and its gRPC by the stubs of `tensorflow-serving-api`, unmodified."""

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import requests

from tests.clients.models import ENGINES
from tests.clients.serving import Running
from tests.runtime.bundles import LABELS, some, truth

pytestmark = pytest.mark.slow

TINY = [f"tiny-{engine}" for engine in ENGINES]


@pytest.fixture(scope="module")
def at(running: Running) -> str:
    return f"{running.http}/v1/models"


def post(url: str, **body: Any) -> Any:
    answer = requests.post(url, data=json.dumps(body), timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("where", ["", "/versions/9"])
def test_rows_and_columns_are_predicted(at: str, model: str, where: str) -> None:
    url, x, y = f"{at}/{model}{where}:predict", some(2), truth(some(2))
    assert np.allclose(post(url, instances=x.tolist())["predictions"], y, atol=1e-5)
    assert np.allclose(post(url, instances=[{"x": row.tolist()} for row in x])["predictions"], y, atol=1e-5)
    assert np.allclose(post(url, inputs=x.tolist())["outputs"], y, atol=1e-5)
    assert np.allclose(post(url, inputs={"x": x.tolist()})["outputs"], y, atol=1e-5)
    said = post(url, instances=x.tolist(), signature_name="serving_default")
    assert np.allclose(said["predictions"], y, atol=1e-5)


def test_bytes_go_as_base64(at: str) -> None:
    words = [{"b64": base64.b64encode(word).decode()} for word in (b"plain", b"two")]
    assert post(f"{at}/words:predict", instances=words)["predictions"] == ["plain", "two"]
    assert post(f"{at}/words:predict", inputs=["plain"])["outputs"] == ["plain"]


def test_numbers_that_are_none_are_tokens(at: str) -> None:
    text = '{"instances": [[NaN, 1.0], [Infinity, -Infinity]]}'
    answer = requests.post(f"{at}/half:predict", data=text, timeout=10)
    assert answer.status_code == 200, answer.text
    (nan, one), (low, high) = json.loads(answer.text)["predictions"]
    assert math.isnan(nan)
    assert (one, low, high) == (-1.0, -math.inf, math.inf)
    assert "Infinity" in answer.text


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_examples_are_classified_or_refused_with_a_reason(at: str, verb: str) -> None:
    answer = requests.post(f"{at}/tiny-onnx:{verb}", json={"examples": [{"x": some().ravel().tolist()}]}, timeout=10)
    told = answer.json()
    if verb == "classify":
        assert answer.status_code == 200, told
        labels = [label for label, _ in told["results"][0]]
        assert set(labels) == set(LABELS)
    else:
        assert answer.status_code in (200, 400), told
        assert "results" in told or told["error"]


@pytest.mark.parametrize("model", TINY)
def test_a_status_is_tensorflows_and_kserves_in_one(at: str, model: str) -> None:
    told = requests.get(f"{at}/{model}", timeout=10).json()
    states = {one["version"]: one["state"] for one in told["model_version_status"]}
    assert states["9"] == "AVAILABLE"
    assert told["model_version_status"][0]["status"] == {"error_code": "OK", "error_message": ""}
    assert (told["name"], told["ready"]) == (model, True)
    one = requests.get(f"{at}/{model}/versions/9", timeout=10).json()
    assert [version["version"] for version in one["model_version_status"]] == ["9"]


def test_metadata_is_a_signature(at: str) -> None:
    told = requests.get(f"{at}/tiny-onnx/metadata", timeout=10).json()
    assert told["model_spec"]["name"] == "tiny-onnx"
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signature["inputs"]["x"]["tensor_shape"]["dim"]] == ["-1", "3", "2", "2"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/nobody:predict", '{"instances": [1]}', 404),
        ("/tiny-onnx/versions/77:predict", '{"instances": [1]}', 404),
        ("/tiny-onnx:predict", '{"instances": [1]}', 400),
        ("/tiny-onnx:predict", '{"instances": [1], "inputs": [1]}', 400),
        ("/tiny-onnx:predict", "{}", 400),
        ("/tiny-onnx:predict", "", 400),
        ("/tiny-onnx:predict", '{"instances": []}', 400),
        ("/tiny-onnx:predict", '{"instances": [{"x": 1, "z": 2}]}', 400),
        ("/words:predict", '{"instances": [{"b64": "***"}]}', 400),
        ("/tiny-onnx:predict", '{"signature_name": "other", "instances": [1]}', 400),
        ("/tiny-onnx:nothing", "{}", 404),
    ],
)
def test_what_is_wrong_is_told(at: str, path: str, body: str, status: int) -> None:
    answer = requests.post(at + path, data=body, timeout=10)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)


@pytest.fixture(scope="module")
def channel(running: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.rpc) as found:
        yield found


@pytest.fixture(scope="module")
def predict(channel: grpc.Channel) -> Any:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.mark.slow
@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("typed", [True, False])
def test_the_stubs_predict(predict: Any, model: str, typed: bool) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = model
    tensor = asked.inputs["x"]
    if typed:
        tensor.dtype = tf.float32.as_datatype_enum
        tensor.tensor_shape.CopyFrom(tf.TensorShape([2, 3, 2, 2]).as_proto())
        tensor.float_val.extend(some(2).ravel().tolist())
    else:
        tensor.CopyFrom(tf.make_tensor_proto(some(2)))
    answer = predict.Predict(asked, 10)
    assert np.allclose(tf.make_ndarray(answer.outputs["y"]), truth(some(2)), atol=1e-5)
    assert answer.model_spec.name == model
    asked.model_spec.version.value = 9
    asked.output_filter.append("y")
    assert predict.Predict(asked, 10).model_spec.version.value == 9


@pytest.mark.slow
def test_the_stubs_carry_strings_and_halves(predict: Any) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = "words"
    asked.inputs["text"].CopyFrom(tf.make_tensor_proto([b"plain", b"two"]))
    assert tf.make_ndarray(predict.Predict(asked, 10).outputs["same"]).tolist() == [b"plain", b"two"]
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = "half"
    asked.inputs["h"].CopyFrom(tf.make_tensor_proto(np.array([[1.5, -2]], np.float16)))
    assert tf.make_ndarray(predict.Predict(asked, 10).outputs["negative"]).tolist() == [[-1.5, 2]]


@pytest.mark.slow
def test_the_stubs_read_metadata_and_status(predict: Any, channel: grpc.Channel) -> None:
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
    )

    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "tiny-onnx"
    told = predict.GetModelMetadata(asked, 10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    told.metadata["signature_def"].Unpack(signatures)
    found = signatures.signature_def["serving_default"].inputs["x"]
    assert [dim.size for dim in found.tensor_shape.dim] == [-1, 3, 2, 2]
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "tiny-onnx"
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    states = {one.version: one.state for one in stub.GetModelStatus(status, 10).model_version_status}
    assert states == {9: 30, 10: 30}


@pytest.mark.slow
def test_the_stubs_are_told_what_is_wrong(predict: Any) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    for name, value, code in (
        ("nobody", some(), grpc.StatusCode.NOT_FOUND),
        ("tiny-onnx", some()[:, :2], grpc.StatusCode.INVALID_ARGUMENT),
        ("tiny-onnx", some().astype(np.float64), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        asked = predict_pb2.PredictRequest()
        asked.model_spec.name = name
        asked.inputs["x"].CopyFrom(tf.make_tensor_proto(value))
        with pytest.raises(grpc.RpcError) as said:
            predict.Predict(asked, 10)
        assert said.value.code() is code


@pytest.mark.slow
def test_the_stubs_classify(predict: Any) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import classification_pb2

    asked = classification_pb2.ClassificationRequest()
    asked.model_spec.name = "tiny-onnx"
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.extend(some().ravel().tolist())
    asked.input.example_list.examples.add().CopyFrom(example)
    found = predict.Classify(asked, 10).result.classifications[0].classes
    assert max(found, key=lambda one: one.score).label == LABELS[int(truth(some()).argmax())]

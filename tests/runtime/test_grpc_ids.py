"""Ids of requests over gRPC: each answer has one where labels are taken, and takes a label for it."""

import json

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from edgekit_runtime.feedback import Feedback
from edgekit_runtime.messages import classes
from edgekit_runtime.service import Service
from edgekit_runtime.watched import Wishes
from edgekit_runtime.watching import Watch

from tests.runtime.grpc_servers import INFER, KNOWN, REQUEST, tensor
from tests.runtime.live import LOCAL, Where, live, pair

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
REPLY, STREAMED = KNOWN["inference.ModelInferResponse"], KNOWN["inference.ModelStreamInferResponse"]
OURS = classes("tensorflow_serving")


@pytest.fixture(scope="module")
def one():
    service = Service([pair(lambda feeds: {"y": feeds["x"]})])
    with live(service, Where(LOCAL, grpc=LOCAL), watch=Watch(wishes=Wishes(feedback=Feedback()))) as made:
        yield made


def asked(id="", rows=1):
    raw = np.tile(np.array([1, 2], np.float32), rows)
    inputs = [{"name": "x", "datatype": "FP32", "shape": [rows, 2]}]
    return REQUEST(model_name="m", id=id, inputs=inputs, raw_input_contents=[raw.tobytes()])


def call(one, path, message, **metadata):
    """The answer's bytes, and the id that its metadata tell."""
    sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    with grpc.insecure_channel(one.at["grpc"]) as channel:
        reply, done = channel.unary_unary(path).with_call(message.SerializeToString(), metadata=sent, timeout=10)
    return reply, dict(done.trailing_metadata()).get("x-request-id")


def judged(one, id, label):
    status, body, _ = one.ask("/feedback", json.dumps({"id": id, "label": label}).encode())
    return status, json.loads(body)


def test_an_answer_over_grpc_has_an_id_and_takes_a_label_for_it(one):
    (reply, id), (_, other) = call(one, INFER, asked()), call(one, INFER, asked())
    assert id
    assert id != other
    assert REPLY.FromString(reply).id == id, "a client of Triton's sees no metadata"
    assert judged(one, id, 1)[1]["right"] is True


def test_the_id_is_the_clients_where_it_has_one(one):
    reply, id = call(one, INFER, asked("mine"))
    assert (REPLY.FromString(reply).id, id) == ("mine", "mine")
    assert call(one, INFER, asked(), x_request_id="part-17")[1] == "part-17"
    assert call(one, INFER, asked("mine"), x_request_id="part-17")[1] == "mine"
    assert call(one, INFER, asked(), x_request_id="a b")[1] != "a b"
    reply, id = call(one, INFER, asked("schön"))
    assert (REPLY.FromString(reply).id, id) == ("schön", None), "what no header can hold is in the reply"
    assert [judged(one, id, 1)[0] for id in ("mine", "part-17", "schön")] == [200] * 3


def test_tritons_own_client_is_told_the_id(one):
    with triton.InferenceServerClient(one.at["grpc"]) as client:
        given = tensor(np.array([[1, 2], [2, 1]], np.float32))
        id = client.infer("m", [given]).get_response().id
        assert client.infer("m", [given], request_id="7").get_response().id == "7"
    status, said = judged(one, id, [1, 1])
    assert (status, said["right"]) == (200, [True, False])


def test_tensorflow_servings_answers_have_an_id_in_their_metadata(one):
    message = OURS["tensorflow.serving.PredictRequest"]()
    message.model_spec.name = "m"
    sent = message.inputs["x"]
    sent.dtype, sent.tensor_content = 1, np.array([1, 2], np.float32).tobytes()
    for size in (1, 2):
        sent.tensor_shape.dim.add().size = size
    _, id = call(one, PREDICT, message)
    assert judged(one, id, 0)[1]["right"] is False
    assert call(one, PREDICT, message, x_request_id="tf-1")[1] == "tf-1"


def test_each_request_of_a_stream_has_an_id_of_its_own(one):
    with grpc.insecure_channel(one.at["grpc"]) as channel:
        sent = [asked().SerializeToString(), asked("mine").SerializeToString(), asked().SerializeToString()]
        replies = list(channel.stream_stream(STREAM)(iter(sent), metadata=(("x-request-id", "all"),), timeout=10))
    ids = [STREAMED.FromString(reply).infer_response.id for reply in replies]
    assert ids[1] == "mine"
    assert len({*ids, "all", ""}) == 5
    assert [judged(one, id, 1)[0] for id in ids] == [200] * 3


def test_where_no_labels_are_taken_an_answer_has_no_more_id_than_its_request():
    with live(Service([pair(lambda feeds: {"y": feeds["x"]})]), Where(LOCAL, grpc=LOCAL)) as one:
        reply, id = call(one, INFER, asked(), x_request_id="part-17")
        assert (REPLY.FromString(reply).id, id) == ("", None)
        reply, id = call(one, INFER, asked("mine"))
        assert (REPLY.FromString(reply).id, id) == ("mine", None)

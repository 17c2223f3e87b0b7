"""Streams over gRPC: answers in order, errors in their place, an end that loses nothing; health that is watched."""

import queue
import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from edgekit_runtime.messages import classes
from edgekit_runtime.rpc.v2 import IN_FLIGHT

from tests.runtime.grpc_servers import REQUEST, Slow, echo, fake, ones, serving, tensor
from tests.waiting import until

pytestmark = pytest.mark.slow

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
CHECK, STATUS = (classes("health")[f"grpc.health.v1.HealthCheck{one}"] for one in ("Request", "Response"))
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


@pytest.fixture(scope="module")
def server():
    with serving(echo(), fake("bug", lambda feeds: 1 / 0)) as made:
        yield made


@contextmanager
def stream(server, **more):
    answers = queue.Queue()
    with triton.InferenceServerClient(server.url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), **more)
        yield client, lambda: answers.get(timeout=10)
        client.stop_stream()


def test_answers_come_in_the_order_of_the_requests(server):
    with stream(server) as (client, answer):
        for count in range(1, 101):
            client.async_stream_infer("echo", ones(count), request_id=str(count))
        found = [answer() for _ in range(100)]
    assert not any(error for _, error in found)
    assert [len(result.as_numpy("y")) for result, _ in found] == list(range(1, 101))
    assert [result.get_response().id for result, _ in found] == [str(count) for count in range(1, 101)]
    assert found[0][0].get_response().parameters["triton_final_response"].bool_param


def test_an_error_is_an_answer_and_the_stream_goes_on(server):
    with stream(server) as (client, answer):
        client.async_stream_infer("echo", ones())
        client.async_stream_infer("nope", ones())
        client.async_stream_infer("echo", [tensor(np.ones((2, 2), np.float32))])
        client.async_stream_infer("bug", ones())
        client.async_stream_infer("echo", ones(3))
        found = [answer() for _ in range(5)]
    said = [None if error is None else error.message() for _, error in found]
    assert said[0] is None
    assert said[1] == "no such model"
    assert "does not fit" in said[2]
    assert said[3] == "internal error"
    assert found[4][0].as_numpy("y").shape == (3,)


def test_an_error_names_its_request(server):
    with grpc.insecure_channel(server.url) as channel:
        call = channel.stream_stream(STREAM, REQUEST.SerializeToString)
        replies = list(call(iter([REQUEST(model_name="nope", id="9")]), timeout=10))
    made = classes("inference")["inference.ModelStreamInferResponse"].FromString(replies[0])
    assert (made.error_message, made.infer_response.id) == ("no such model", "9")


def test_a_client_may_ask_for_a_status_instead_of_an_answer(server):
    with stream(server, headers={"triton_grpc_error": "true"}) as (client, answer):
        client.async_stream_infer("echo", ones())
        client.async_stream_infer("nope", ones())
        assert answer()[1] is None
        _, error = answer()
    assert str(error.status()) == "StatusCode.NOT_FOUND"


def test_a_message_that_does_not_read_ends_the_stream_behind_the_answers_before_it(server):
    with grpc.insecure_channel(server.url) as channel:
        sent = REQUEST(model_name="echo", inputs=[{"name": "x", "datatype": "FP32", "shape": [0]}]).SerializeToString()
        replies = channel.stream_stream(STREAM)(iter([sent, b"\xff"]), timeout=10)
        assert next(replies)
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_that_is_not_read_is_not_read_from():
    slow = Slow()
    with serving(fake("slow", slow.run)) as server, stream(server) as (client, answer):
        for _ in range(IN_FLIGHT * 3):
            client.async_stream_infer("slow", ones())
        assert slow.began.wait(10)
        time.sleep(0.3)
        assert server.service.find("slow").waiting <= IN_FLIGHT + 2
        slow.go.set()
        assert not any(answer()[1] for _ in range(IN_FLIGHT * 3))


def test_a_cancelled_stream_cancels_what_waits():
    slow = Slow()
    with serving(fake("slow", slow.run)) as server, triton.InferenceServerClient(server.url) as client:
        client.start_stream(lambda result, error: None)
        for _ in range(5):
            client.async_stream_infer("slow", ones())
        assert slow.began.wait(10)
        lane = server.service.find("slow")
        until(lambda: lane.waiting == 4)
        client.stop_stream(cancel_requests=True)
        until(lambda: lane.waiting == 0)
        slow.go.set()
        until(lambda: lane.stats.cancelled == 5)
    assert slow.runs == 1
    assert server.counters.counts["edgekit_refused_total", "bug"] == 0


def test_a_server_that_stops_answers_what_it_has_taken_and_ends_the_stream():
    with serving(echo()) as server, stream(server) as (client, answer):
        client.async_stream_infer("echo", ones(4))
        assert answer()[0].as_numpy("y").shape == (4,)
        start = time.monotonic()
        server.call(server.running.stop(100))
        assert time.monotonic() - start < 50


def check(server, name, metadata=()):
    with grpc.insecure_channel(server.url) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check", CHECK.SerializeToString, STATUS.FromString)
        return call(CHECK(service=name), timeout=10, metadata=metadata).status


@pytest.mark.parametrize(
    "name",
    ["", "echo", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "grpc.health.v1.Health"],
)
def test_health_is_told_of_the_server_its_services_and_models(server, name):
    assert check(server, name) == SERVING


def test_health_of_what_is_not_there_is_not_found(server):
    with pytest.raises(grpc.RpcError) as caught:
        check(server, "nope")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_is_listed(server):
    with grpc.insecure_channel(server.url) as channel:
        reply = channel.unary_unary("/grpc.health.v1.Health/List")(b"", timeout=10)
    found = classes("health")["grpc.health.v1.HealthListResponse"].FromString(reply).statuses
    assert {"", "echo", "inference.GRPCInferenceService"} <= set(found)
    assert {one.status for one in found.values()} == {SERVING}


def test_health_is_watched_until_the_server_ends():
    with serving(echo()) as server, grpc.insecure_channel(server.url) as channel:
        call = channel.unary_stream("/grpc.health.v1.Health/Watch", CHECK.SerializeToString, STATUS.FromString)
        seen, unknown = call(CHECK(service="echo"), timeout=20), call(CHECK(service="nope"), timeout=20)
        assert next(seen).status == SERVING
        assert next(unknown).status == SERVICE_UNKNOWN
        server.service.ready = False
        assert next(seen).status == NOT_SERVING
        server.service.ready = True
        assert next(seen).status == SERVING
        start = time.monotonic()
        server.call(server.running.stop(100))
        assert time.monotonic() - start < 50
        assert [one.status for one in seen] == [NOT_SERVING]

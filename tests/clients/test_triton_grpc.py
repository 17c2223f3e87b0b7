"""What only gRPC can ask: streams, callbacks, cancelling, packing, large messages, health, typed contents."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.clients.models import ENGINES
from tests.clients.serving import Running
from tests.runtime.bundles import some, truth

pytestmark = pytest.mark.slow

TINY = [f"tiny-{engine}" for engine in ENGINES]


def given(value: np.ndarray, name: str = "x", datatype: str = "FP32") -> triton.InferInput:
    made = triton.InferInput(name, list(value.shape), datatype)
    made.set_data_from_numpy(value)
    return made


@pytest.mark.parametrize("model", TINY)
def test_a_stream_answers_in_order_and_outlives_an_error(running: Running, model: str) -> None:
    came: queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]] = queue.Queue()
    with triton.InferenceServerClient(running.rpc) as client:
        client.start_stream(lambda result, error: came.put((result, error)))
        for seed in range(10):
            name = "nobody" if seed == 4 else model
            client.async_stream_infer(name, [given(some(2, seed))], request_id=str(seed))
        for seed in range(10):
            result, error = came.get(timeout=10)
            if seed == 4:
                assert error is not None
                assert "model" in error.message()
                continue
            assert error is None, error
            assert result.get_response().id == str(seed)
            assert np.allclose(result.as_numpy("y"), truth(some(2, seed)), atol=1e-5)
        client.stop_stream()


def test_an_async_stream_answers_in_order(running: Running) -> None:
    async def asked() -> AsyncIterator[dict[str, object]]:
        for seed in range(12):
            yield {"model_name": "tiny-onnx", "inputs": [given(some(1, seed))], "request_id": str(seed)}

    async def story() -> None:
        async with triton_aio.InferenceServerClient(running.rpc) as client:
            seed = 0
            async for result, error in client.stream_infer(asked()):
                assert error is None
                assert result.get_response().id == str(seed)
                assert np.allclose(result.as_numpy("y"), truth(some(1, seed)), atol=1e-5)
                seed += 1
            assert seed == 12

    asyncio.run(story())


def test_a_stream_may_ask_for_an_empty_last_answer(running: Running) -> None:
    came: queue.Queue[tuple[triton.InferResult, InferenceServerException | None]] = queue.Queue()
    with triton.InferenceServerClient(running.rpc) as client:
        client.start_stream(lambda result, error: came.put((result, error)))
        client.async_stream_infer("tiny-onnx", [given(some())], enable_empty_final_response=True)
        result, error = came.get(timeout=10)
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param
        client.stop_stream()


def test_a_stream_that_is_given_up_leaves_the_server_well(running: Running) -> None:
    for _ in range(5):
        client = triton.InferenceServerClient(running.rpc)
        client.start_stream(lambda result, error: None)
        for seed in range(5):
            client.async_stream_infer("tiny-openvino", [given(some(2, seed))])
        client.stop_stream(cancel_requests=True)
        client.close()
    with triton.InferenceServerClient(running.rpc) as client:
        assert np.allclose(client.infer("tiny-openvino", [given(some())]).as_numpy("y"), truth(some()), atol=1e-5)


def test_a_callback_gets_the_answer(running: Running) -> None:
    done, found = threading.Event(), []

    def told(result: triton.InferResult, error: InferenceServerException | None) -> None:
        found.append((result, error))
        done.set()

    with triton.InferenceServerClient(running.rpc) as client:
        client.async_infer("tiny-onnx", [given(some(3))], told)
        assert done.wait(10)
    assert found[0][1] is None
    assert np.allclose(found[0][0].as_numpy("y"), truth(some(3)), atol=1e-5)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_call_may_be_packed(running: Running, packing: str) -> None:
    with triton.InferenceServerClient(running.rpc) as client:
        answer = client.infer("tiny-onnx", [given(some(200))], compression_algorithm=packing)
        assert np.allclose(answer.as_numpy("y"), truth(some(200)), atol=1e-5)


def test_a_message_may_be_larger_than_grpcs_own_four_megabytes(running: Running) -> None:
    x = some(200_000)  # 9.6 MB in, 3.2 MB out
    with triton.InferenceServerClient(running.rpc) as client:
        assert np.allclose(client.infer("tiny-onnx", [given(x)]).as_numpy("y"), truth(x), atol=1e-4)


def test_a_deadline_that_is_too_short_is_late(running: Running) -> None:
    with triton.InferenceServerClient(running.rpc) as client:
        with pytest.raises(InferenceServerException, match=r"(?i)deadline") as said:
            client.infer("tiny-onnx", [given(some(100_000))], client_timeout=0.0001)
        assert said.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_typed_contents_are_read_and_raw_ones_answered(running: Running) -> None:
    asked = service_pb2.ModelInferRequest(model_name="tiny-onnx", id="typed")
    tensor = asked.inputs.add(name="x", datatype="FP32", shape=[2, 3, 2, 2])
    tensor.contents.fp32_contents.extend(some(2).ravel().tolist())
    with grpc.insecure_channel(running.rpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(asked, timeout=10)
        assert answer.id == "typed"
        came = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, 4)
        assert np.allclose(came, truth(some(2)), atol=1e-5)
        asked.raw_input_contents.append(some(2).tobytes())
        with pytest.raises(grpc.RpcError) as said:
            stub.ModelInfer(asked, timeout=10)
        assert said.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("raw", [b"", b"x" * 47, b"x" * 49, b"x" * 4800])
def test_raw_contents_of_another_size_are_refused(running: Running, raw: bytes) -> None:
    asked = service_pb2.ModelInferRequest(model_name="tiny-onnx", raw_input_contents=[raw])
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 3, 2, 2])
    with grpc.insecure_channel(running.rpc) as channel, pytest.raises(grpc.RpcError) as said:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(asked, timeout=10)
    assert said.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_health_is_grpcs_own_service(running: Running) -> None:
    with grpc.insecure_channel(running.rpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            told = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert told.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as said:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
        assert said.value.code() is grpc.StatusCode.NOT_FOUND
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=5)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()


def test_the_admins_grpc_lists_loads_and_unloads(running: Running) -> None:
    with (
        triton.InferenceServerClient(str(running.admin_grpc)) as admin,
        triton.InferenceServerClient(running.rpc) as client,
    ):
        listed = admin.get_model_repository_index(as_json=True)["models"]
        assert {"name": "tiny-onnx", "version": "10", "state": "READY"} in listed
        admin.load_model("spare")
        assert np.allclose(client.infer("spare", [given(some())]).as_numpy("y"), truth(some()), atol=1e-5)
        admin.unload_model("spare")
        assert not client.is_model_ready("spare")
        admin.load_model("spare")
        with pytest.raises(InferenceServerException) as said:
            client.unload_model("spare")
        assert said.value.status() == "StatusCode.PERMISSION_DENIED"
        with pytest.raises(InferenceServerException) as said:
            admin.load_model("nobody")
        assert said.value.status() == "StatusCode.NOT_FOUND"


def test_a_call_that_nobody_knows_is_unimplemented(running: Running) -> None:
    with grpc.insecure_channel(running.rpc) as channel, pytest.raises(grpc.RpcError) as said:
        channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"", timeout=5)
    assert said.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_bytes_that_are_no_message_are_refused_and_the_server_lives(running: Running) -> None:
    with grpc.insecure_channel(running.rpc) as channel:
        with pytest.raises(grpc.RpcError) as said:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff" * 100, timeout=5)
        assert said.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
    with triton.InferenceServerClient(running.rpc) as client:
        assert client.is_server_live()

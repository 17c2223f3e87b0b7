"""The gRPC edge, asked over loopback by the clients that people use: what it answers."""

import asyncio
import queue
import time
from dataclasses import replace

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.lane import Batching, LaneOptions
from edgekit_runtime.served import opened
from edgekit_runtime.service import Policy

from tests.runtime.bundles import LABELS, make_bundle, some, truth
from tests.runtime.grpc_servers import INFER, KNOWN, REQUEST, echo, ones, raw_call, refused, serving, tensor


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return opened(open_bundle(make_bundle(tmp_path_factory.mktemp("b") / "tiny")))


@pytest.fixture(scope="module")
def server(tiny):
    kinds = [
        echo(f"echo_{dtype}", dtype) for dtype in ("bool", "int8", "uint16", "int64", "float16", "float64", "object")
    ]
    with serving(tiny, echo(), *kinds) as made:
        yield made


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.url) as made:
        yield made


def test_a_model_answers_the_sync_client(client):
    got = client.infer("tiny", [tensor(some(3))], request_id="7")
    np.testing.assert_allclose(got.as_numpy("y"), truth(some(3)), rtol=1e-5)
    reply = got.get_response()
    assert (reply.model_name, reply.model_version, reply.id) == ("tiny", "1", "7")


def test_a_model_answers_the_asyncio_client(server):
    async def ask():
        async with triton_aio.InferenceServerClient(server.url) as client:
            got = await client.infer("tiny", [tensor(some())])
            return got.as_numpy("y"), await client.is_server_ready(), await client.get_model_metadata("tiny")

    value, ready, about = asyncio.run(ask())
    np.testing.assert_allclose(value, truth(some()), rtol=1e-5)
    assert ready
    assert about.name == "tiny"


def test_calls_in_the_background_are_answered(client):
    answers = queue.Queue()
    for count in (1, 2, 3):
        client.async_infer("tiny", [tensor(some(count))], lambda result, error: answers.put((result, error)))
    found = [answers.get(timeout=10) for _ in range(3)]
    assert not any(error for _, error in found)
    assert sorted(len(result.as_numpy("y")) for result, _ in found) == [1, 2, 3]


@pytest.mark.parametrize(
    ("dtype", "datatype", "value"),
    [
        ("bool", "BOOL", [True, False]),
        ("int8", "INT8", [-128, 127]),
        ("uint16", "UINT16", [0, 65535]),
        ("int64", "INT64", [-(2**63), 2**63 - 1]),
        ("float16", "FP16", [0.5, -2.0]),
        ("float64", "FP64", [1e300, float("inf")]),
        ("object", "BYTES", [b"a", "ü".encode(), b"\xff"]),
    ],
)
def test_every_type_comes_back_as_it_went(client, dtype, datatype, value):
    sent = np.array(value, dtype)
    got = client.infer(f"echo_{dtype}", [tensor(sent, datatype)]).as_numpy("y")
    assert got.dtype == sent.dtype
    assert got.tolist() == value


def test_a_tensor_without_elements_comes_back(client):
    assert client.infer("echo", [tensor(np.empty(0, np.float32))]).as_numpy("y").shape == (0,)


def test_typed_contents_are_taken(server):
    one = {"name": "x", "datatype": "FP32", "shape": [2], "contents": {"fp32_contents": [0.5, -1]}}
    data = raw_call(server.url, INFER, REQUEST(model_name="echo", inputs=[one]).SerializeToString())
    got = KNOWN["inference.ModelInferResponse"].FromString(data)
    assert np.frombuffer(got.raw_output_contents[0], np.float32).tolist() == [0.5, -1]


def test_classes_come_back_with_their_labels(client):
    asked = [triton.InferRequestedOutput("y", class_count=2)]
    got = client.infer("tiny", [tensor(some())], outputs=asked).as_numpy("y")
    order = np.argsort(-truth(some())[0])[:2]
    assert [one.decode().split(":")[1:] for one in got[0]] == [[str(i), LABELS[i]] for i in order]


def test_gzip_is_taken(client):
    value = np.zeros(20_000, np.float32)
    assert client.infer("echo", [tensor(value)], compression_algorithm="gzip").as_numpy("y").shape == (20_000,)
    assert client.infer("echo", [tensor(value)], compression_algorithm="deflate").as_numpy("y").shape == (20_000,)


def test_aliases_and_versions_are_found(client):
    assert client.infer("prod", ones()).get_response().model_name == "echo"
    assert client.infer("echo", ones(), model_version="1").as_numpy("y").tolist() == [1, 1]


def test_the_server_and_its_models_tell_about_themselves(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready("tiny", "9")
    assert client.get_server_metadata().name == "edgekit-runtime"
    assert "classification" in client.get_server_metadata().extensions
    about = client.get_model_metadata("tiny", as_json=True)
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3", "2", "2"]}]
    assert about["versions"] == ["1"]
    config = client.get_model_config("tiny").config
    assert (config.name, config.backend, config.input[0].data_type) == ("tiny", "onnx", 11)
    assert list(config.input[0].dims) == [-1, 3, 2, 2]
    assert config.parameters["target"].string_value == "here"


def test_a_model_that_is_batched_says_so():
    policy = Policy(lane=LaneOptions(batching=Batching(8, 0.002, (4,))))
    made = replace(echo(), sample={"x": np.ones(1, np.float32)})
    with serving(made, policy=policy) as server, triton.InferenceServerClient(server.url) as client:
        config = client.get_model_config("echo").config
    assert (config.max_batch_size, list(config.input[0].dims)) == (8, [])
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000


def test_statistics_count_what_was_asked(client, server):
    before = client.get_inference_statistics("echo").model_stats[0]
    client.infer("echo", ones(3))
    with refused("INVALID_ARGUMENT"):
        client.infer("echo", [tensor(np.ones((2, 2), np.float32))])
    after = client.get_inference_statistics("echo", "1").model_stats[0]
    assert after.inference_count - before.inference_count == 3
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert {one.batch_size for one in after.batch_stats} >= {3}
    assert abs(after.last_inference / 1000 - time.time()) < 60
    assert {one.name for one in client.get_inference_statistics().model_stats} == set(server.service.names())


def test_settings_are_read(client):
    assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]
    assert client.get_trace_settings("tiny").settings["trace_rate"].value == ["1000"]
    assert client.get_log_settings().settings["log_error"].bool_param


def test_shared_memory_is_told_to_be_off(client):
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    with refused("UNIMPLEMENTED", "send the tensors"):
        client.register_system_shared_memory("r", "/r", 10)
    with refused("UNIMPLEMENTED", "send the tensors"):
        client.register_cuda_shared_memory("r", b"MTIz", 0, 10)
    with refused("NOT_FOUND"):
        client.get_system_shared_memory_status("r")


def test_every_method_of_the_clients_service_is_there(server):
    from edgekit_runtime.rpc.v2 import METHODS
    from tritonclient.grpc import service_pb2

    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    ours = {method.path: method for method in METHODS}
    assert ours.keys() == {f"/inference.GRPCInferenceService/{method.name}" for method in theirs}
    for method in theirs:
        mine = ours[f"/inference.GRPCInferenceService/{method.name}"]
        assert mine.request.DESCRIPTOR.full_name == method.input_type.full_name
        assert mine.response.DESCRIPTOR.full_name == method.output_type.full_name
        assert (mine.stream is not None) == method.server_streaming == method.client_streaming

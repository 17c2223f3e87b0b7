"""What only Triton's HTTP clients can ask: JSON or binary each way, packing, raw bodies, many in flight, the admin."""

import asyncio
import json

import numpy as np
import pytest
import requests
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.clients.models import ENGINES, KINDS, some_of
from tests.clients.serving import Running
from tests.runtime.bundles import some, truth

pytestmark = pytest.mark.slow

TINY = [f"tiny-{engine}" for engine in ENGINES]


def given(value: np.ndarray, name: str = "x", datatype: str = "FP32", binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(value.shape), datatype)
    made.set_data_from_numpy(value, binary_data=binary)
    return made


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_json_and_binary_go_either_way(running: Running, model: str, sent: bool, asked: bool) -> None:
    with triton.InferenceServerClient(running.address) as client:
        outputs = [triton.InferRequestedOutput("y", binary_data=asked)]
        answer = client.infer(model, [given(some(2), binary=sent)], outputs=outputs)
        assert ("data" in answer.get_output("y")) != asked
        assert np.allclose(answer.as_numpy("y"), truth(some(2)), atol=1e-5)


@pytest.mark.parametrize("packed", ["gzip", "deflate", None])
@pytest.mark.parametrize("unpacked", ["gzip", "deflate", None])
@pytest.mark.parametrize("rows", [1, 300])
def test_either_way_may_be_packed(running: Running, packed: str | None, unpacked: str | None, rows: int) -> None:
    how = {"request_compression_algorithm": packed, "response_compression_algorithm": unpacked}
    with triton.InferenceServerClient(running.address) as client:
        for binary in (True, False):
            outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
            answer = client.infer("tiny-onnx", [given(some(rows), binary=binary)], outputs=outputs, **how)
            assert np.allclose(answer.as_numpy("y"), truth(some(rows)), atol=1e-5)

    async def story() -> None:
        async with triton_aio.InferenceServerClient(running.address) as client:
            answer = await client.infer("tiny-onnx", [given(some(rows))], **how)
            assert np.allclose(answer.as_numpy("y"), truth(some(rows)), atol=1e-5)

    asyncio.run(story())


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_large_answer_is_packed_when_asked(running: Running, coding: str) -> None:
    body = {"inputs": [{"name": "x", "shape": [400, 3, 2, 2], "datatype": "FP32", "data": some(400).ravel().tolist()}]}
    headers = {"Accept-Encoding": coding}
    answer = requests.post(f"{running.http}/v2/models/tiny-onnx/infer", json=body, headers=headers, timeout=10)
    assert answer.headers["content-encoding"] == coding
    assert np.allclose(np.reshape(answer.json()["outputs"][0]["data"], (400, 4)), truth(some(400)), atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "FP16"])
def test_every_type_goes_as_json(running: Running, kind: str) -> None:
    values = {each: some_of(each, 2) for each in KINDS}
    inputs = [given(value, each, each, binary=each != kind) for each, value in values.items()]
    with triton.InferenceServerClient(running.address) as client:
        outputs = [triton.InferRequestedOutput(f"OUT_{kind}", binary_data=False)]
        answer = client.infer("every", inputs, outputs=outputs)
        assert answer.as_numpy(f"OUT_{kind}").tolist() == [
            value.decode() if isinstance(value, bytes) else value for value in values[kind].tolist()
        ]


@pytest.mark.parametrize("model", TINY)
def test_a_raw_body_is_one_input_and_the_answer_is_binary(running: Running, model: str) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    url = f"{running.http}/v2/models/{model}/infer"
    answer = requests.post(url, data=some(3).tobytes(), headers=headers, timeout=10)
    length = int(answer.headers["inference-header-content-length"])
    told = json.loads(answer.content[:length])
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 48}
    assert np.allclose(np.frombuffer(answer.content[length:], np.float32).reshape(3, 4), truth(some(3)), atol=1e-5)


def test_a_raw_body_of_strings_is_one_string(running: Running) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    url = f"{running.http}/v2/models/words/infer"
    answer = requests.post(url, data="gr\u00fcn".encode(), headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    assert answer.content[length:] == b"\x05\x00\x00\x00" + "gr\u00fcn".encode()


def test_a_zero_size_output_says_that_its_size_is_zero(running: Running) -> None:
    with triton.InferenceServerClient(running.address) as client:
        answer = client.infer("every", [given(some_of(kind)[:0], kind, kind) for kind in KINDS])
        for kind in KINDS:
            assert answer.get_output(f"OUT_{kind}")["parameters"]["binary_data_size"] == 0


def test_a_body_can_be_made_and_an_answer_read_by_the_clients_own_functions(running: Running) -> None:
    body, length = triton.InferenceServerClient.generate_request_body([given(some(2))])
    url, headers = f"{running.http}/v2/models/tiny-onnx/infer", {"Inference-Header-Content-Length": str(length)}
    answer = requests.post(url, data=body, headers=headers, timeout=10)
    found = triton.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer.headers["inference-header-content-length"])
    )
    assert np.allclose(found.as_numpy("y"), truth(some(2)), atol=1e-5)


def test_many_are_in_flight_over_few_connections(running: Running) -> None:
    with triton.InferenceServerClient(running.address, concurrency=4) as client:
        calls = [client.async_infer("tiny-tflite", [given(some(1, seed))]) for seed in range(60)]
        for seed, call in enumerate(calls):
            assert np.allclose(call.get_result().as_numpy("y"), truth(some(1, seed)), atol=1e-5)


def test_the_admin_lists_loads_and_unloads(running: Running) -> None:
    with triton.InferenceServerClient(running.admin_address) as client:
        listed = {(one["name"], one.get("state")) for one in client.get_model_repository_index()}
        assert ("tiny-onnx", "READY") in listed
        client.load_model("spare")
        assert client.is_model_ready("spare")
        with triton.InferenceServerClient(running.address) as open_client:
            assert np.allclose(open_client.infer("spare", [given(some())]).as_numpy("y"), truth(some()), atol=1e-5)
            client.unload_model("spare")
            assert not open_client.is_model_ready("spare")
            with pytest.raises(InferenceServerException, match=r"\[40[04]\]"):
                open_client.infer("spare", [given(some())])
        with pytest.raises(InferenceServerException, match=r"\[40[04]\]"):
            client.load_model("nobody")


@pytest.mark.parametrize("name", ["../tiny", "..%2fspare", "/etc", "http://localhost/x", ""])
def test_the_admin_loads_nothing_from_elsewhere(running: Running, name: str) -> None:
    with (
        triton.InferenceServerClient(running.admin_address) as client,
        pytest.raises(InferenceServerException, match=r"\[4\d\d\]"),
    ):
        client.load_model(name)


def test_the_admin_takes_no_model_from_the_request(running: Running) -> None:
    with triton.InferenceServerClient(running.admin_address) as client, pytest.raises(InferenceServerException) as said:
        client.load_model("spare", config='{"backend": "python"}')
    assert said.value.status() in ("400", "403", "501")


def test_the_admin_sets_the_verbosity_of_the_log(running: Running) -> None:
    with triton.InferenceServerClient(running.admin_address) as client:
        before = client.get_log_settings()["log_verbose_level"]
        assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
        client.update_log_settings({"log_verbose_level": before})
        assert client.get_log_settings()["log_verbose_level"] == before


@pytest.mark.parametrize("settings", [{"nothing": 1}, {"nothing": None}, {"": None}])
def test_the_admin_refuses_a_setting_that_nobody_knows(running: Running, settings: dict[str, object]) -> None:
    with triton.InferenceServerClient(running.admin_address) as client:
        with pytest.raises(InferenceServerException, match=r"\[400\]"):
            client.update_log_settings(settings)
        with pytest.raises(InferenceServerException, match=r"\[400\]"):
            client.update_trace_settings(settings=settings)


def test_query_parameters_are_let_through(running: Running) -> None:
    with triton.InferenceServerClient(running.address) as client:
        assert client.is_server_ready(query_params={"a": 1, "b": ["x", "y"]})
        answer = client.infer("tiny-onnx", [given(some())], query_params={"trace": "no"})
        assert np.allclose(answer.as_numpy("y"), truth(some()), atol=1e-5)

"""Run by the Python of the clients' own environment: stories told by KServe's and OVMS's clients, results as JSON.

Refuses nothing; a story that fails is told with its traceback."""

import asyncio
import json
import logging
import sys
import traceback
from types import SimpleNamespace

import grpc
import httpx
import numpy as np
import ovmsclient
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request(at, model, value, name="x", kind="FP32", binary=True, outputs=None):
    made = InferInput(name, list(value.shape), kind)
    made.set_data_from_numpy(value, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[made], request_id="k1", request_outputs=outputs)


def near(at, answer):
    y = answer.outputs[0].as_numpy()
    assert y.shape == at.y.shape, y.shape
    assert np.allclose(y, at.y, atol=1e-5)


async def refusal(call, kind):
    """The error that a call ends in."""
    try:
        await call
    except kind as error:
        return error
    raise AssertionError("answered, and should have been refused")


async def rest_v2_health(at):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(at.http) is True
    assert await client.is_server_ready(at.http) is True
    for model in at.models:
        assert await client.is_model_ready(at.http, model)
    assert not await client.is_model_ready(at.http, "nobody")
    await client.close()


async def rest_v2_infer_json_and_binary(at):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    for model in at.models:
        for binary in (True, False):
            answer = await client.infer(at.http, request(at, model, at.x, binary=binary), model_name=model)
            near(at, answer)
            assert (answer.id, answer.model_name) == ("k1", model)
            wanted = [RequestedOutput("y", {"binary_data": binary})]
            asked = request(at, model, at.x, binary=not binary, outputs=wanted)
            near(at, await client.infer(at.http, asked, model_name=model))
    await client.close()


async def rest_v2_fp16_and_bytes(at):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    half = np.array([[1.5, -2.0]], np.float16)
    wanted = [RequestedOutput("negative", {"binary_data": True})]
    asked = request(at, "half", half, "h", "FP16", outputs=wanted)
    answer = await client.infer(at.http, asked, model_name="half")
    assert (answer.outputs[0].as_numpy() == -half).all()
    words = np.array([b"plain", "gr\u00fcn".encode()], dtype=np.object_)
    for binary in (True, False):
        wanted = [RequestedOutput("same", {"binary_data": binary})]
        asked = request(at, "words", words, "text", "BYTES", binary=binary, outputs=wanted)
        answer = await client.infer(at.http, asked, model_name="words")
        came = [word.decode() if isinstance(word, bytes) else word for word in answer.outputs[0].as_numpy().tolist()]
        assert came == ["plain", "gr\u00fcn"], came
    await client.close()


async def rest_v2_errors_are_told(at):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    for model, asked, status in (
        ("nobody", request(at, "nobody", at.x), 404),
        (at.models[0], request(at, at.models[0], at.x[:, :2]), 400),
    ):
        error = await refusal(client.infer(at.http, asked, model_name=model), httpx.HTTPStatusError)
        assert error.response.status_code == status, error
        assert error.response.json()["error"]
    await client.close()


async def rest_v1(at):
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_server_live(at.http)
    for model in at.models:
        assert await client.is_model_ready(at.http, model) is True
        answer = await client.infer(at.http, {"instances": at.x.tolist()}, model_name=model)
        assert np.allclose(answer["predictions"], at.y, atol=1e-5)
    asked = client.explain(at.http, at.models[0], {"instances": at.x.tolist()})
    error = await refusal(asked, httpx.HTTPStatusError)
    assert error.response.status_code == 501, error
    assert error.response.json()["hint"]
    await client.close()


async def rest_over_a_unix_socket(at):
    transport = httpx.AsyncHTTPTransport(uds=at.unix)
    client = InferenceRESTClient(RESTConfig(protocol="v2", transport=transport))
    assert await client.is_server_ready("http://device")
    near(at, await client.infer("http://device", request(at, at.models[0], at.x), model_name=at.models[0]))
    await client.close()


async def grpc_v2(at):
    client = InferenceGRPCClient(at.grpc)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    for model in at.models:
        assert await client.is_model_ready(model)
        for binary in (True, False):
            near(at, await client.infer(request(at, model, at.x, binary=binary)))
    half = np.array([[1.5, -2.0]], np.float16)
    answer = await client.infer(request(at, "half", half, "h", "FP16"))
    assert (answer.outputs[0].as_numpy() == -half).all()
    error = await refusal(client.infer(request(at, "nobody", at.x)), grpc.RpcError)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    await client.close()


async def ovms(at, client):
    for model in at.models:
        for version in (0, 9):
            came = client.predict({"x": at.x}, model, version)
            assert np.allclose(came, at.y, atol=1e-5)
        status = client.get_model_status(model)
        assert all(told["state"] == "AVAILABLE" for told in status.values()), status
        assert client.get_model_metadata(model)
    for wrong in (
        lambda: client.predict({"x": at.x}, "nobody"),
        lambda: client.predict({"x": at.x}, at.models[0], 77),
        lambda: client.predict({"x": at.x[:, :2]}, at.models[0]),
    ):
        error = await refusal(asyncio.to_thread(wrong), Exception)
        assert type(error).__name__ in ("ModelNotFoundError", "InvalidInputError"), repr(error)


async def ovms_http(at):
    await ovms(at, ovmsclient.make_http_client(at.http.split("//")[1]))


async def ovms_grpc(at):
    client = ovmsclient.make_grpc_client(at.grpc)
    await ovms(at, client)
    told = client.get_model_metadata(at.models[0])
    assert told["inputs"]["x"] == {"shape": [-1, 3, 2, 2], "dtype": "DT_FLOAT"}, told
    words = client.predict({"text": np.array([b"plain", b"two"])}, "words")
    assert words.tolist() == [b"plain", b"two"], words


STORIES = [
    rest_v2_health,
    rest_v2_infer_json_and_binary,
    rest_v2_fp16_and_bytes,
    rest_v2_errors_are_told,
    rest_v1,
    rest_over_a_unix_socket,
    grpc_v2,
    ovms_http,
    ovms_grpc,
]


async def main():
    logging.disable(logging.CRITICAL)
    at = SimpleNamespace(**json.load(sys.stdin))
    at.x, at.y = np.array(at.x, np.float32), np.array(at.y, np.float32)
    results = {}
    for story in STORIES:
        try:
            await story(at)
            results[story.__name__] = ""
        except Exception:  # told to the test that started this
            results[story.__name__] = traceback.format_exc()
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main())

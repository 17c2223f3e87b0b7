"""The HTTP edge: a real server asked by real clients, and the app itself with models that misbehave."""

import asyncio
import gzip
import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.http import Limits, app
from edgekit_runtime.service import Served, Service
from edgekit_runtime.tensors import TensorSpec
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.runtime.bundles import LABELS, make_bundle, some, truth

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server process with three bundles and a body cap of 1 MiB."""
    folder = tmp_path_factory.mktemp("served")
    bundles = [
        make_bundle(folder / "a", version="9"),
        make_bundle(folder / "b", version="10"),
        make_bundle(folder / "c", "tflite", inside=True, name="small"),
    ]
    command = [sys.executable, "-m", "edgekit_runtime", "serve", *map(str, bundles), "--port", "0", "--max-body", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = process.stdout.readline()
        assert "http://" in told, process.stderr.read()
        yield re.search(r"http://([\d.:]+)", told)[1]
        process.terminate()
        assert process.wait(10) in (0, -15)
        assert "Traceback" not in process.stderr.read()


def ask(server, path, data=None, verb=None, **headers):
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(f"http://{server}{path}", data, named, method=verb)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def body(rows=1, **more):
    x = some(rows)
    inputs = [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}]
    return json.dumps({"inputs": inputs, **more}).encode()


def raw(server, *pieces, leave=False):
    """Send bytes as they are; give all that comes back. `leave`: say that no more will be sent."""
    host, port = server.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if leave:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(length, *more):
    lines = [f"POST {INFER} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2", {"name": "edgekit-runtime"}),
        ("/v2/health/live", {"live": True, "ready": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models", {"models": ["small", "tiny"]}),
        ("/v2/models/tiny", {"name": "tiny", "versions": ["9", "10"], "platform": "edgekit_onnx"}),
        ("/v2/models/tiny/versions/9", {"name": "tiny"}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny/versions/10/ready", {"name": "tiny", "ready": True}),
    ],
)
def test_what_can_be_asked(server, path, words):
    status, text, headers = ask(server, path)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert words.items() <= json.loads(text).items()


def test_json_in_json_out_without_a_binary_header(server):
    status, text, headers = ask(server, INFER, body(2, id="seven"))
    told = json.loads(text)
    assert (status, told["id"], told["model_version"], headers["inference-header-content-length"]) == (
        200,
        "seven",
        "10",
        None,
    )
    assert np.allclose(np.reshape(told["outputs"][0]["data"], (2, 4)), truth(some(2)), atol=1e-5)


def test_an_older_version_can_be_asked_by_name(server):
    assert json.loads(ask(server, "/v2/models/tiny/versions/9/infer", body())[1])["model_version"] == "9"


def test_a_raw_body_gets_a_binary_answer(server):
    headers = {"Inference_Header_Content_Length": "0"}
    status, text, told = ask(server, INFER, some(3).tobytes(), **headers)
    length = int(told["inference-header-content-length"])
    assert status == 200
    assert np.allclose(np.frombuffer(text[length:], np.float32).reshape(3, 4), truth(some(3)), atol=1e-5)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_packed_body_is_unpacked(server, pack):
    encoding = "gzip" if pack is gzip.compress else "deflate"
    assert ask(server, INFER, pack(body()), Content_Encoding=encoding)[0] == 200


def test_a_photo_goes_in_and_labels_come_out(server):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(buffer, "JPEG")
    for model in ("tiny", "small"):
        status, text, _ = ask(server, f"/v2/models/{model}/infer", buffer.getvalue(), Content_Type="image/jpeg")
        told = json.loads(text)
        best = told["parameters"]["top"]
        assert status == 200
        assert {row["label"] for row in best} == set(LABELS)
        assert best[0]["label"] == LABELS[int(np.argmax(told["outputs"][0]["data"]))]


@pytest.mark.parametrize("model", ["tiny", "small"])
@pytest.mark.parametrize("as_binary", [True, False])
def test_tritons_own_client_is_served(server, model, as_binary):
    with triton.InferenceServerClient(server) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata()["name"] == "edgekit-runtime"
        assert client.get_model_metadata(model)["inputs"][0]["shape"] == [-1, 3, 2, 2]
        given = triton.InferInput("x", [2, 3, 2, 2], "FP32")
        given.set_data_from_numpy(some(2), binary_data=as_binary)
        wanted = [triton.InferRequestedOutput("y", binary_data=as_binary)]
        for outputs in (wanted, None):
            answer = client.infer(model, [given], outputs=outputs, request_id="r1")
            assert answer.get_response()["id"] == "r1"
            assert np.abs(answer.as_numpy("y") - truth(some(2))).max() < 0.06


def test_tritons_client_may_pack_ask_for_classes_and_call_at_once(server):
    with triton.InferenceServerClient(server, concurrency=4) as client:
        given = triton.InferInput("x", [1, 3, 2, 2], "FP32")
        given.set_data_from_numpy(some(1))
        best = [triton.InferRequestedOutput("y", class_count=2)]
        answer = client.infer("tiny", [given], outputs=best, request_compression_algorithm="gzip").as_numpy("y")
        assert answer.shape == (1, 2)
        assert answer[0, 0].decode().split(":")[2] == LABELS[int(truth(some(1)).argmax())]
        calls = [client.async_infer("tiny", [given]) for _ in range(20)]
        assert all(np.allclose(call.get_result().as_numpy("y"), truth(some(1)), atol=1e-5) for call in calls)


def test_tritons_client_is_told_what_is_wrong(server):
    with triton.InferenceServerClient(server) as client:
        given = triton.InferInput("x", [1, 3, 2, 3], "FP32")
        given.set_data_from_numpy(np.zeros((1, 3, 2, 3), np.float32))
        with pytest.raises(InferenceServerException, match=r"\[400\] x: shape .* does not fit"):
            client.infer("tiny", [given])
        with pytest.raises(InferenceServerException, match=r"\[404\] no such model"):
            client.infer("nobody", [given])


@pytest.mark.parametrize(
    ("path", "verb", "status"),
    [
        ("/", "GET", 404),
        ("/v1/models", "GET", 404),
        ("/v2/models/nobody", "GET", 404),
        ("/v2/models/tiny/versions/3", "GET", 404),
        ("/v2/models/tiny/versions/", "GET", 404),
        ("/v2/models/..%2f..%2fetc", "GET", 404),
        ("/v2/models/%1b%5b2J%0a/infer", "POST", 404),
        ("/v2/models/" + "x" * 5000, "GET", 404),
        ("/v2/models/tiny/infer/more", "POST", 404),
        (INFER, "GET", 405),
        ("/v2/health/live", "POST", 405),
        ("/v2", "DELETE", 405),
    ],
)
def test_a_wrong_path_or_verb_gets_a_json_error(server, path, verb, status):
    got, text, headers = ask(server, path, b"" if verb == "POST" else None, verb)
    assert got == status
    assert isinstance(json.loads(text)["error"], str)
    assert (headers["allow"] is not None) == (status == 405)


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (body()[:-1], {}, 400),
        (body(), {"Inference_Header_Content_Length": "-3"}, 400),
        (body(), {"Inference_Header_Content_Length": "99999"}, 400),
        (body(), {"Inference_Header_Content_Length": "1e3"}, 400),
        (body(), {"Content_Encoding": "br"}, 415),
        (body(), {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(body())[:-9], {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b" " * 2**21), {"Content_Encoding": "gzip"}, 413),
        (b" " * (2**20 + 1), {}, 413),
        (b"not a photo", {"Content_Type": "image/png"}, 400),
    ],
)
def test_a_bad_body_gets_a_json_error(server, data, headers, status):
    got, text, _ = ask(server, INFER, data, **headers)
    assert got == status
    assert "Traceback" not in text.decode()
    assert json.loads(text)["error"]


@pytest.mark.parametrize("length", ["-1", "1e9", "99999999999999999999", "two"])
def test_a_content_length_that_is_none_is_refused_and_the_server_lives(server, length):
    answer = raw(server, head(length) + b"x")
    assert b" 400 " in answer.split(b"\r\n")[0] or b" 413 " in answer.split(b"\r\n")[0]
    assert ask(server, "/v2/health/live")[0] == 200


def test_a_body_too_large_is_refused_before_it_is_sent(server):
    assert b" 413 " in raw(server, head(2**40)).split(b"\r\n")[0]


@pytest.mark.slow
def test_a_body_too_large_in_pieces_is_refused_while_it_comes(server):
    start = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert b" 413 " in raw(server, start, *[piece] * 17, b"0\r\n\r\n").split(b"\r\n")[0]


def test_a_client_that_leaves_within_its_body_harms_nobody(server):
    assert raw(server, head(1000), b"half", leave=True) == b""
    assert ask(server, INFER, body())[0] == 200


def test_a_taken_port_is_an_error_that_can_be_mended(server, tmp_path):
    command = [
        sys.executable,
        "-m",
        "edgekit_runtime",
        "serve",
        str(make_bundle(tmp_path / "b")),
        "--port",
        server.split(":")[1],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot listen")
    assert "hint: choose another --port" in done.stderr


def served(run, name="m"):
    spec = TensorSpec("x", "float32", (None, 2))
    return Served(name, "1", "onnx", (spec,), (TensorSpec("y", "float32", (None, 2)),), run)


def call(asgi, path, data=b"", verb="POST", receive=None):
    """Ask an ASGI app without a server; give the status, the JSON and the headers."""

    async def whole():
        return {"type": "http.request", "body": data, "more_body": False}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "method": verb, "headers": []}
    yield from asgi(scope, receive or whole, send).__await__()
    return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


class Asked:
    """An awaitable of `call`."""

    def __init__(self, *given, **more):
        self.given, self.more = given, more

    def __await__(self):
        return call(*self.given, **self.more)


TWO = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).encode()


async def asked(*given, **more):
    return await Asked(*given, **more)


def test_a_bug_is_logged_whole_and_answered_without_internals(caplog):
    def run(feeds):
        raise RuntimeError("/secret/path")

    asgi = app(Service({("m", "1"): served(run), ("n", "1"): served(lambda f: {"y": f["x"]}, "n")}))
    status, told, _ = asyncio.run(asked(asgi, "/v2/models/m/infer", TWO))
    assert (status, told["error"]) == (500, "internal error")
    assert "secret" not in json.dumps(told)
    assert "/secret/path" in caplog.text
    assert "Traceback" in caplog.text
    assert asyncio.run(asked(asgi, "/v2/models/n/infer", TWO))[0] == 200


def test_what_an_engine_says_of_inputs_it_cannot_run_stays_in_the_log(caplog):
    def run(feeds):
        raise Unsupported("node 7 in /build/kernel.cc")

    caplog.set_level("WARNING")
    status, told, _ = asyncio.run(asked(app(Service({("m", "1"): served(run)})), "/v2/models/m/infer", TWO))
    assert status == 400
    assert "kernel" not in json.dumps(told)
    assert "kernel" in caplog.text


def test_health_answers_and_others_run_while_a_model_is_busy():
    started, go = threading.Event(), threading.Event()

    def slow(feeds):
        started.set()
        go.wait(10)
        return {"y": feeds["x"]}

    asgi = app(
        Service({("slow", "1"): served(slow, "slow"), ("m", "1"): served(lambda f: {"y": f["x"]})}), Limits(requests=2)
    )

    async def story():
        first = asyncio.create_task(asked(asgi, "/v2/models/slow/infer", TWO))
        await asyncio.to_thread(started.wait, 10)
        assert (await asked(asgi, "/v2/health/live", verb="GET"))[0] == 200
        assert (await asked(asgi, "/v2/models/m/infer", TWO))[0] == 200
        second = asyncio.create_task(asked(asgi, "/v2/models/slow/infer", TWO))
        await asyncio.sleep(0.05)
        status, told, headers = await asked(asgi, "/v2/models/m/infer", TWO)
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert "too many" in told["error"]
        go.set()
        assert [(await task)[0] for task in (first, second)] == [200, 200]
        assert (await asked(asgi, "/v2/models/m/infer", TWO))[0] == 200

    asyncio.run(story())


def test_a_model_is_never_run_twice_at_once():
    inside, most = 0, 0

    def run(feeds):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)
        inside -= 1
        return {"y": feeds["x"]}

    one = served(run)
    threads = [threading.Thread(target=one.infer, args=({"x": np.zeros((1, 2))},)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_body_that_dribbles_is_cut_off():
    async def never():
        await asyncio.sleep(60)

    asgi = app(Service({("m", "1"): served(lambda f: {"y": f["x"]})}), Limits(seconds=0.05))
    status, told, headers = asyncio.run(asked(asgi, "/v2/models/m/infer", receive=never))
    assert (status, headers[b"connection"]) == (408, b"close")
    assert "0.05 seconds" in told["error"]

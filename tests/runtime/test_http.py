"""The server as its users start it: a process with three bundles, asked by real clients."""

import gzip
import io
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
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
        ("/v3", "GET", 404),
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


@pytest.mark.slow
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
    assert "hint: choose another address, or another --port" in done.stderr

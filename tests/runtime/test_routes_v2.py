"""The v2 routes over a real service and HTTP edge: each row of the protocol, wrong requests, Triton's own client."""

import asyncio
import inspect
import io
import json
import logging

import numpy as np
import pytest
from edgekit_runtime.counters import Counters
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.exchange import Request
from edgekit_runtime.http import Desk
from edgekit_runtime.lane import Batching, LaneOptions
from edgekit_runtime.routes.v2 import ROUTES
from edgekit_runtime.served import Served
from edgekit_runtime.service import Policy, Service, open_service
from edgekit_runtime.tensors import TensorSpec

from tests.runtime.bundles import LABELS, make_bundle, some, truth

X, Y = TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "float32", (None, 2))
VALUE = np.array([[1.5, -2.0], [3.0, 4.25]], np.float32)
BODY = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": VALUE.ravel().tolist()}]}
LENGTH = b"inference-header-content-length"


def served(version="1", name="m", run=lambda f: {"y": f["x"] * 2}):
    return Served(name, version, "fake", (X,), (Y,), run, ("cat", "dog"))


def asked(service, verb, target, body=b"", headers=None):
    """The edge's whole answer."""

    async def ask():
        desk = Desk(service, ROUTES, Counters(), None, admin=True)
        path, _, query = target.partition("?")
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(verb, path, query, headers or {}, raw)
        try:
            found = desk.begin(request)(request)
            return await found if inspect.isawaitable(found) else found
        except EdgeKitError as error:
            return desk.refuse(error)

    return asyncio.run(ask())


def told(*given, **more):
    """The status and the JSON of the edge's answer."""
    response = asked(*given, **more)
    return response.status, json.loads(response.body)


@pytest.fixture
def service():
    return Service([served("1"), served("v10"), served("2", "other")], {"alias": ("m", "1")})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("made") / "tiny")


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/v2/health/live", {"live": True, "ready": True, "name": "edgekit-runtime"}),
        ("/v2/health/ready", {"live": True, "ready": True, "name": "edgekit-runtime"}),
        ("/v2/models", {"models": ["m", "other"]}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/v10/ready", {"name": "m", "ready": True}),
        ("/v2/systemsharedmemory/status", []),
        ("/v2/cudasharedmemory/status", []),
    ],
)
def test_what_is_asked_is_told(service, path, want):
    assert told(service, "GET", path) == (200, want)


def test_a_server_that_is_not_ready_says_so_and_lives(service):
    service.ready = False
    assert told(service, "GET", "/v2/health/ready")[0] == 503
    assert told(service, "GET", "/v2/health/ready")[1]["ready"] is False
    assert told(service, "GET", "/v2/health/live")[0] == 200


def test_the_server_names_the_extensions_that_it_has(service):
    status, said = told(service, "GET", "/v2")
    assert (status, said["name"]) == (200, "edgekit-runtime")
    assert {"binary_tensor_data", "statistics", "model_repository", "trace", "logging"} <= set(said["extensions"])
    assert not {"sequence", "system_shared_memory", "cuda_shared_memory", "schedule_policy"} & set(said["extensions"])


def test_a_model_is_described_under_its_own_name(service):
    for name in ("m", "alias"):
        status, said = told(service, "GET", f"/v2/models/{name}")
        assert (status, said["name"], said["versions"], said["platform"]) == (200, "m", ["v10", "1"], "edgekit_fake")
    assert told(service, "GET", "/v2/models/m/versions/1")[1]["inputs"][0]["shape"] == [-1, 2]


def test_config_and_batching_agree(bundle):
    policy = Policy(lane=LaneOptions(batching=Batching(8, 0.001, (4,))))
    status, said = told(open_service([bundle], policy=policy), "GET", "/v2/models/tiny/config")
    assert (status, said["max_batch_size"], said["input"][0]["dims"]) == (200, 8, [3, 2, 2])
    assert said["output"][0]["label_filename"] == "labels.txt"
    assert said["default_model_filename"] == "model.onnx"
    assert said["parameters"]["precision"] == {"string_value": "float32"}
    assert told(open_service([bundle]), "GET", "/v2/models/tiny/config")[1]["max_batch_size"] == 0


def test_an_inference_answers_and_is_counted(service):
    status, said = told(service, "POST", "/v2/models/alias/infer", BODY | {"id": "seven"})
    assert (status, said["model_name"], said["model_version"], said["id"]) == (200, "m", "1", "seven")
    assert said["outputs"][0]["data"] == (VALUE * 2).ravel().tolist()
    status, said = told(service, "GET", "/v2/models/m/stats")
    assert [(one["version"], one["inference_count"]) for one in said["model_stats"]] == [("v10", 0), ("1", 2)]
    assert len(told(service, "GET", "/v2/models/stats")[1]["model_stats"]) == 3
    (one,) = told(service, "GET", "/v2/models/m/versions/1/stats")[1]["model_stats"]
    assert one["inference_stats"]["success"]["count"] == 1


def test_binary_tensors_go_both_ways_with_the_length_of_the_json(service):
    head = {
        "inputs": [{**BODY["inputs"][0], "parameters": {"binary_data_size": 16}}],
        "parameters": {"binary_data_output": True},
    }
    del head["inputs"][0]["data"]
    text = json.dumps(head).encode()
    response = asked(service, "POST", "/v2/models/m/infer", text + VALUE.tobytes(), {LENGTH: b"%d" % len(text)})
    length = int(dict(response.headers)[LENGTH])
    assert json.loads(response.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert np.array_equal(np.frombuffer(response.body[length:], np.float32).reshape(2, 2), VALUE * 2)
    assert dict(response.headers)[b"content-type"] == b"application/octet-stream"


def test_a_json_reply_has_no_length_of_its_json(service):
    response = asked(service, "POST", "/v2/models/m/infer", BODY)
    assert LENGTH not in dict(response.headers)


@pytest.mark.parametrize("value", [b"-1", b"1e3", b"", b"99999999999999999999", b"99999", b"\xb2"])
def test_a_length_of_the_json_that_is_none_is_refused(service, value):
    status, said = told(service, "POST", "/v2/models/m/infer", BODY, {LENGTH: value})
    assert status == 400
    assert "Content-Length" in said["error"]


def test_a_text_plain_body_is_json_where_the_model_takes_no_text(service):
    assert told(service, "POST", "/v2/models/m/infer", BODY, {b"content-type": b"text/plain;charset=UTF-8"})[0] == 200


def photo():
    image = pytest.importorskip("PIL.Image")
    made = io.BytesIO()
    image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).save(made, "PNG")
    return made.getvalue()


@pytest.mark.parametrize(("query", "count"), [("", 4), ("?top_k=2", 2), ("?a=1&top_k=900", 4)])
def test_a_photo_is_a_request_and_labels_come_back(bundle, query, count):
    status, said = told(
        open_service([bundle]), "POST", "/v2/models/tiny/infer" + query, photo(), {b"content-type": b"image/png"}
    )
    assert status == 200
    best = said["parameters"]["top"]
    assert len(best) == count
    pixels = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3).transpose(0, 3, 1, 2) / 255
    assert best[0]["label"] == LABELS[int(truth(pixels).argmax())]
    assert np.allclose(said["outputs"][0]["data"], truth(pixels).ravel(), atol=1e-5)


@pytest.mark.parametrize("query", ["?top_k=0", "?top_k=-1", "?top_k=a", "?top_k=", "?top_k=99999999"])
def test_a_top_k_that_is_none_is_refused(bundle, query):
    answer = told(
        open_service([bundle]), "POST", "/v2/models/tiny/infer" + query, photo(), {b"content-type": b"image/png"}
    )
    assert answer[0] == 400


@pytest.mark.parametrize(("body", "kind"), [(b"no photo", b"image/jpeg"), (b"RIFF", b"audio/wav")])
def test_what_is_no_photo_is_refused(bundle, body, kind):
    assert told(open_service([bundle]), "POST", "/v2/models/tiny/infer", body, {b"content-type": kind})[0] == 400


def test_a_model_without_preprocessing_takes_no_photo(service):
    status, said = told(service, "POST", "/v2/models/m/infer", photo(), {b"content-type": b"image/png"})
    assert (status, said["hint"]) == (400, "send tensors")


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("GET", "/v2/models/no", b"", 404),
        ("GET", "/v2/models/m/versions/7", b"", 404),
        ("GET", "/v2/models/no/ready", b"", 404),
        ("GET", "/v2/models/no/config", b"", 404),
        ("GET", "/v2/models/no/stats", b"", 404),
        ("POST", "/v2/models/no/infer", BODY, 404),
        ("POST", "/v2/models/m/infer", b"{", 400),
        ("POST", "/v2/models/m/generate", {"text_input": "x"}, 501),
        ("POST", "/v2/models/m/generate_stream", {"text_input": "x"}, 501),
        ("GET", "/v2/systemsharedmemory/region/r/status", b"", 404),
        ("POST", "/v2/systemsharedmemory/region/r/register", {"key": "/k", "byte_size": 1}, 501),
        ("POST", "/v2/cudasharedmemory/region/r/register", {}, 501),
        ("POST", "/v2/systemsharedmemory/unregister", b"", 200),
        ("POST", "/v2/cudasharedmemory/region/r/unregister", b"", 200),
        ("POST", "/v2/repository/index", {"ready": 1}, 400),
        ("POST", "/v2/repository/index", b"[]", 400),
        ("POST", "/v2/repository/models/m/load", b"", 403),
        ("POST", "/v2/repository/models/m/load", {"parameters": {"config": "{}"}}, 403),
        ("POST", "/v2/repository/models/m/load", {"parameters": {"file:1/model.onnx": "AA=="}}, 403),
        ("POST", "/v2/repository/models/m/load", {"parameters": []}, 400),
        ("POST", "/v2/repository/mine/models/m/load", b"", 501),
        ("POST", "/v2/repository/models/m/unload", {"parameters": {"unload_dependents": 1}}, 400),
        ("POST", "/v2/repository/models/m/unload", {"parameters": {"unload_dependents": True}}, 403),
        ("GET", "/v2/models/no/trace/setting", b"", 404),
        ("POST", "/v2/trace/setting", {"trace_file": "x"}, 501),
        ("POST", "/v2/logging", {"log_info": "yes"}, 400),
        ("DELETE", "/v2/models/m", b"", 405),
        ("GET", "/v2/models/m/infer", b"", 405),
    ],
)
def test_each_wrong_request_has_its_status_and_a_json_error(service, verb, path, body, status):
    got, said = told(service, verb, path, body)
    assert got == status
    assert status == 200 or isinstance(said["error"], str)


def test_the_repository_is_told_and_loads_and_unloads(tmp_path):
    make_bundle(tmp_path / "one", name="spare", version="3")
    service = Service([served()], policy=Policy(repository=tmp_path))
    said = told(service, "POST", "/v2/repository/index")[1]
    assert [(e["name"], e["version"], e["state"]) for e in said] == [("m", "1", "READY"), ("spare", "3", "UNAVAILABLE")]
    assert len(told(service, "POST", "/v2/repository/index", {"ready": True})[1]) == 1
    assert asked(service, "POST", "/v2/repository/models/spare/load").status == 200
    assert told(service, "GET", "/v2/models/spare/ready")[0] == 200
    assert (
        asked(
            service, "POST", "/v2/repository/models/spare/unload", {"parameters": {"unload_dependents": False}}
        ).status
        == 200
    )
    assert told(service, "GET", "/v2/models/spare/ready")[0] == 404


def test_settings_are_told_and_changed_for_all_and_for_one(service):
    said = told(service, "POST", "/v2/trace/setting", {"trace_rate": "7"})[1]
    assert said["trace_rate"] == told(service, "GET", "/v2/trace/setting")[1]["trace_rate"] == "7"
    assert told(service, "POST", "/v2/models/alias/trace/setting", {"trace_rate": "9"})[1]["trace_rate"] == "9"
    assert told(service, "GET", "/v2/models/m/trace/setting")[1]["trace_rate"] == "9"
    assert told(service, "GET", "/v2/models/other/trace/setting")[1]["trace_rate"] == "7"
    before = logging.getLogger("edgekit_runtime").level
    try:
        assert told(service, "POST", "/v2/logging", {"log_info": True})[1]["log_info"] is True
        assert told(service, "GET", "/v2/logging")[1]["log_info"] is True
    finally:
        logging.getLogger("edgekit_runtime").setLevel(before)


def test_tritons_own_client_is_content(bundle):
    triton = pytest.importorskip("tritonclient.http")
    from tests.runtime.live import live

    with (
        live(open_service([bundle])) as server,
        triton.InferenceServerClient(server.at["http"].split("//")[1]) as client,
    ):
        assert client.is_server_live()
        assert client.is_model_ready("tiny", "1")
        assert client.get_model_metadata("tiny")["inputs"][0]["shape"] == [-1, 3, 2, 2]
        assert client.get_model_config("tiny")["input"][0]["data_type"] == "TYPE_FP32"
        for binary in (True, False):
            given = triton.InferInput("x", [2, 3, 2, 2], "FP32")
            given.set_data_from_numpy(some(2), binary_data=binary)
            outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
            for wanted in (None, outputs):
                answer = client.infer("tiny", [given], outputs=wanted, request_id="7", timeout=5_000_000)
                assert np.allclose(answer.as_numpy("y"), truth(some(2)), atol=1e-5)
                assert answer.get_response()["id"] == "7"
            best = client.infer("tiny", [given], outputs=[triton.InferRequestedOutput("y", binary, 2)]).as_numpy("y")
            assert best.shape == (2, 2)
            assert str(best[0][0]).split(":")[2].rstrip("'") == LABELS[int(truth(some(2))[0].argmax())]
        (stats,) = client.get_inference_statistics("tiny")["model_stats"]
        assert stats["inference_count"] == 12
        with pytest.raises(Exception, match="shared memory"):
            client.register_system_shared_memory("r", "/k", 8)
        client.unregister_system_shared_memory()
        assert client.get_system_shared_memory_status() == []

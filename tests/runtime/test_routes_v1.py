"""The /v1/models routes over a real service and HTTP edge, in TensorFlow Serving's and in KServe's way."""

import asyncio
import base64
import inspect
import io
import json
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.counters import Counters
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.exchange import Request
from edgekit_runtime.http import Desk
from edgekit_runtime.routes.v1 import ROUTES
from edgekit_runtime.served import Served
from edgekit_runtime.service import Service, open_service
from edgekit_runtime.tensors import TensorSpec
from PIL import Image

from tests.runtime.bundles import LABELS, make_bundle, some, truth

X, Y = TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "float32", (None, 1))


def half(version):
    """Half the sum of a row, plus its version's number of dots."""
    return Served(
        "half", version, "fake", (X,), (Y,), lambda f: {"y": f["x"].sum(1, keepdims=True) / 2 + version.count(".")}
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("made") / "tiny")


def asked(service, verb, path, body=None):
    """The status and the JSON of the edge's answer."""

    async def ask():
        desk = Desk(service, ROUTES, Counters(), None)
        request = Request(verb, path, body=b"" if body is None else json.dumps(body).encode())
        try:
            found = desk.begin(request)(request)
            response = await found if inspect.isawaitable(found) else found
        except EdgeKitError as error:
            response = desk.refuse(error)
        await service.close()
        return response.status, json.loads(response.body)

    return asyncio.run(ask())


def get(path, *versions, aliases=None):
    return asked(Service([half(version) for version in versions or ("1",)], aliases), "GET", path)


def post(path, body, *versions, aliases=None):
    return asked(Service([half(version) for version in versions or ("1",)], aliases), "POST", path, body)


def test_the_models_are_listed():
    assert get("/v1/models") == (200, {"models": ["half"]})


def test_a_status_is_tensorflow_servings_and_kserves_at_once():
    said = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert get("/v1/models/half") == (200, {"name": "half", "ready": True, "model_version_status": [said]})


def test_a_status_tells_all_versions_newest_first_or_the_one_that_is_asked_for():
    def numbers(path, **more):
        return [one["version"] for one in get(path, "9", "10", **more)[1]["model_version_status"]]

    assert numbers("/v1/models/half") == ["10", "9"]
    assert numbers("/v1/models/half/versions/9") == ["9"]
    assert numbers("/v1/models/half/labels/stable", aliases={"stable": ("half", "9")}) == ["9"]
    assert numbers("/v1/models/stable", aliases={"stable": ("half", "9")}) == ["9"]


def test_versions_that_are_no_numbers_are_counted_by_age():
    versions = [one["version"] for one in get("/v1/models/half", "v1.0", "v1.1")[1]["model_version_status"]]
    assert versions == ["2", "1"]


@pytest.mark.parametrize(
    ("where", "answer"), [("", 3.5), ("/versions/1.0", 2.5), ("/versions/1.0.1", 3.5), ("/labels/old", 2.5)]
)
def test_predict_asks_the_newest_version_or_the_one_that_is_named(where, answer):
    path, aliases = f"/v1/models/half{where}:predict", {"old": ("half", "1.0")}
    found = post(path, {"instances": [[1.0, 2.0]]}, "1.0", "1.0.1", aliases=aliases)
    assert found == (200, {"predictions": [[answer]]})


def test_regress_answers_the_documented_example():
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": [1.0, 2.0]}, {"x": [3, 4]}]}
    assert post("/v1/models/half:regress", body) == (200, {"results": [1.5, 3.5]})


@pytest.mark.parametrize("path", ["/v1/models/no", "/v1/models/no/metadata", "/v1/models/no/versions/3"])
def test_a_model_that_is_not_served_is_named_as_tensorflow_serving_does(path):
    status, said = get(path)
    asked_for = "Specific(no, 3)" if "versions" in path else "Latest(no)"
    assert (status, said["error"]) == (404, f"Servable not found for request: {asked_for}")


@pytest.mark.parametrize("verb", ["predict", "classify", "regress", "explain"])
def test_a_version_that_is_not_served_is_not_asked(verb):
    status, said = post(f"/v1/models/half/versions/7:{verb}", {"instances": [[1, 2]]})
    assert (status, said["error"]) == (404, "Servable not found for request: Specific(half, 7)")


def test_an_explanation_is_not_offered_and_the_hint_says_what_is():
    status, said = post("/v1/models/half:explain", {"instances": [[1, 2]]})
    assert status == 501
    assert ":predict" in said["hint"]


@pytest.mark.parametrize(
    "body", [{"instances": []}, {"instances": [[1]]}, [], None, {"inputs": [[1, 2]], "instances": 1}]
)
def test_a_wrong_body_is_refused_with_an_error_in_json(body):
    status, said = post("/v1/models/half:predict", body)
    assert status == 400
    assert said["error"]


@pytest.mark.parametrize("path", ["/v1", "/v1/models/half:nothing", "/v1/models/half/x/1", "/v1/models/a:b:predict"])
def test_other_paths_are_not_there(path):
    assert post(path, {})[0] == 404


def test_the_metadata_tells_the_newest_version():
    status, said = get("/v1/models/half/metadata", "9", "10")
    assert (status, said["model_spec"]["version"]) == (200, "10")
    assert list(said["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]) == ["x"]


def photo(seed):
    """A PNG of 2x2 pixels, and the tensor that the bundle makes of it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue(), pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def test_a_real_bundle_predicts_rows_and_columns(bundle):
    body = some(3).tolist()
    for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
        status, said = asked(open_service([bundle]), "POST", "/v1/models/tiny:predict", {key: body})
        assert status == 200
        assert np.allclose(said[answer], truth(some(3)), atol=1e-5)


def test_photos_go_through_the_bundles_preprocessing_as_one_batch(bundle):
    first, second = photo(1), photo(2)
    wanted = truth(np.concatenate([first[1], second[1]]))
    for body in (
        {"instances": [b64(first[0]), b64(second[0])]},
        {"instances": [{"x": b64(p)} for p, _ in (first, second)]},
    ):
        status, said = asked(open_service([bundle]), "POST", "/v1/models/tiny:predict", body)
        assert status == 200
        assert np.allclose(said["predictions"], wanted, atol=1e-5)
    status, said = asked(
        open_service([bundle]), "POST", "/v1/models/tiny:classify", {"examples": [{"x": b64(first[0])}]}
    )
    assert [label for label, _ in said["results"][0]] == list(LABELS)
    assert np.allclose([score for _, score in said["results"][0]], wanted[0], atol=1e-5)


def test_what_is_no_photo_is_refused(bundle):
    status, said = asked(open_service([bundle]), "POST", "/v1/models/tiny:predict", {"instances": [b64(b"no photo")]})
    assert (status, "not an image" in said["error"]) == (400, True)

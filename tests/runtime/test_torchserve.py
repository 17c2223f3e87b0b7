"""TorchServe's protocol: what its clients send, what they read, and what fits no model."""

import base64
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import requests
from edgekit_runtime.errors import BadRequest, EdgeKitError, Exceeded, NotFound
from edgekit_runtime.limits import Limits
from edgekit_runtime.preprocess import apply, parse_preprocess
from edgekit_runtime.protocols import torchserve
from edgekit_runtime.protocols.torchserve_bodies import Takes, looks_encoded, read
from edgekit_runtime.tensors import TensorSpec, check_feeds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.runtime.bundles import LABELS, PREPROCESS, X, Y, make_bundle, some, truth

LIMITS = Limits()
PHOTOS = parse_preprocess(PREPROCESS)
TENSORS = Takes([X])
IMAGES = Takes([X], "image", "x", lambda data: apply(PHOTOS, data))
IDS, MASK = TensorSpec("ids", "int64", (None, 4)), TensorSpec("mask", "int64", (None, 4))
PAIR = Takes([IDS, MASK])
WORDS = Takes([TensorSpec("text", "object", (None,))])


def letters(data):
    """A text as four character codes: a preprocessing of two inputs."""
    codes = np.frombuffer(data[:4].ljust(4), np.uint8).astype(np.int64)[None]
    return {"ids": codes, "mask": np.ones_like(codes)}


TEXTS = Takes([IDS, MASK], "text", "ids", letters)


def photo(kind="JPEG"):
    made = io.BytesIO()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20).save(made, kind)
    return made.getvalue()


def feeds(body, takes=TENSORS, kind=b""):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = read(body, kind, takes, LIMITS).feeds(takes)
    return found() if callable(found) else found


def form(*fields, kind=b"multipart/form-data; boundary=B"):
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"
        for name, more, data in fields
    ]
    return b"".join(parts) + b"--B--\r\n", kind


ONE, TWO = some(1)[0], some(2)


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (ONE.tolist(), ONE[None]),
        (TWO.tolist(), TWO),
        ({"data": ONE.tolist()}, ONE[None]),
        ({"body": TWO.tolist()}, TWO),
        ({"body": {"data": ONE.tolist()}}, ONE[None]),
        ({"x": TWO.tolist()}, TWO),
        ({"instances": TWO.tolist()}, TWO),
        ({"body": {"instances": TWO.tolist()}}, TWO),
        ({"instances": [{"data": row.tolist()} for row in TWO]}, TWO),
        ({"instances": [{"x": row.tolist()} for row in TWO]}, TWO),
        (ONE[None].tobytes(), ONE[None]),
        (TWO.tobytes(), TWO),
    ],
)
@pytest.mark.parametrize("kind", [b"", b"application/octet-stream", b"application/json; charset=utf-8"])
def test_a_tensor_comes_in_every_way_that_clients_send_it(body, want, kind):
    if isinstance(body, bytes) and b"json" in kind:
        with pytest.raises(BadRequest):
            feeds(body, TENSORS, kind)
        return
    found = feeds(body, TENSORS, kind)
    assert found.keys() == {"x"}
    assert found["x"].dtype == np.float32
    np.testing.assert_array_equal(found["x"], want)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("said", [b"", b"application/octet-stream", b"application/x-www-form-urlencoded", b"image/any"])
def test_a_photo_is_found_by_its_first_bytes(kind, said):
    data = photo(kind)
    assert looks_encoded(data)
    np.testing.assert_array_equal(feeds(data, IMAGES, said)["x"], apply(PHOTOS, data)["x"])


def test_a_photo_comes_as_base64_and_several_at_once():
    data = photo("PNG")
    text = base64.b64encode(data).decode()
    want = apply(PHOTOS, data)["x"]
    for body in ({"b64": text}, {"data": text}, {"body": {"b64": text}}, {"x": {"b64": text}}, text):
        np.testing.assert_array_equal(feeds(body, IMAGES, b"application/json")["x"], want)
    for rows in ([{"b64": text}] * 3, [{"data": text}] * 3, [{"x": {"b64": text}}] * 3, [text] * 3):
        sent = read(json.dumps({"instances": rows}).encode(), b"", IMAGES, LIMITS)
        assert sent.wrapped
        np.testing.assert_array_equal(sent.feeds(IMAGES)()["x"], np.repeat(want, 3, 0))
    np.testing.assert_array_equal(feeds([{"b64": text}] * 2, IMAGES)["x"], np.repeat(want, 2, 0))


def test_a_model_with_photos_takes_tensors_too():
    np.testing.assert_array_equal(feeds(ONE.tolist(), IMAGES)["x"], ONE[None])
    np.testing.assert_array_equal(feeds(ONE.tobytes(), IMAGES, b"application/octet-stream")["x"], ONE[None])
    np.testing.assert_array_equal(feeds({"instances": TWO.tolist()}, IMAGES)["x"], TWO)


@pytest.mark.parametrize("name", ["data", "body", "x"])
def test_a_form_brings_a_photo_or_a_tensor(name):
    data = photo("PNG")
    body, kind = form((name, '; filename="k.png"', data))
    np.testing.assert_array_equal(feeds(body, IMAGES, kind)["x"], apply(PHOTOS, data)["x"])
    body, kind = form((name, "", json.dumps(ONE.tolist()).encode()))
    np.testing.assert_array_equal(feeds(body, TENSORS, kind)["x"], ONE[None])


def test_a_form_brings_each_input_in_a_part_of_its_own():
    body, kind = form(("ids", "", b"[1, 2, 3, 4]"), ("mask", '; filename="m"', np.ones(8, np.int64).tobytes()))
    found = feeds(body, PAIR, kind)
    assert found["ids"].tolist() == [[1, 2, 3, 4]]
    assert found["mask"].tolist() == [[1] * 4] * 2


def test_a_photo_and_a_tensor_beside_it_come_in_one_form():
    more = TensorSpec("threshold", "float32", (None, 1))
    takes = Takes([X, more], "image", "x", IMAGES.encode)
    body, kind = form(("data", '; filename="k"', photo()), ("threshold", "", b"[0.5]"))
    found = feeds(body, takes, kind)
    assert found["threshold"].tolist() == [[0.5]]
    np.testing.assert_array_equal(found["x"], apply(PHOTOS, photo())["x"])


def test_the_older_forms_are_read():
    body = b"data=" + b"%5B1%2C+2%2C+3%2C+4%5D"
    spec = Takes([IDS])
    kind = b"application/x-www-form-urlencoded"
    assert feeds(body, spec, kind)["ids"].tolist() == [[1, 2, 3, 4]]
    assert feeds(b"[1, 2, 3, 4]", spec, kind)["ids"].tolist() == [[1, 2, 3, 4]]
    for wrong in (b"data=1&data=2", b"data=%ff", b"other=[1,2,3,4]"):
        with pytest.raises(BadRequest):
            feeds(wrong, spec, kind)


def test_a_text_goes_through_its_preprocessing_as_it_is():
    for body, kind in ((b"abcd", b""), (b"abcd", b"text/plain; charset=utf-8"), (b"abcd", b"application/octet-stream"),
                       ({"data": "abcd"}, b""), ("abcd", b"application/json"), form(("data", "", b"abcd")),
                       (b"abcd", b"application/x-www-form-urlencoded")):  # fmt: skip
        found = feeds(body, TEXTS, kind)
        assert found["ids"].tolist() == [[97, 98, 99, 100]]
        assert found["mask"].tolist() == [[1, 1, 1, 1]]
    assert feeds(b"[CLS] and so on", TEXTS)["ids"].tolist() == [[91, 67, 76, 83]]
    assert feeds(b"[1, 2]", TEXTS, b"text/plain")["ids"].tolist() == [[91, 49, 44, 32]]
    assert len(feeds({"instances": ["ab", {"data": "cd"}]}, TEXTS)["ids"]) == 2
    named = {"ids": [1, 2, 3, 4], "mask": [1, 1, 0, 0]}
    assert feeds(named, TEXTS)["mask"].tolist() == [[1, 1, 0, 0]]


def test_a_model_of_strings_takes_text():
    for body, kind in ((b"hello", b"text/plain"), (b"hello", b""), (["hello"], b""), ({"text": ["hello"]}, b""),
                       ({"data": "hello"}, b"")):  # fmt: skip
        assert feeds(body, WORDS, kind)["text"].tolist() == ["hello"]


@pytest.mark.parametrize(
    ("body", "takes", "kind"),
    [
        (b"", TENSORS, b""),
        (b"", IMAGES, b""),
        (b"{", TENSORS, b""),
        (b"[1, 2", TENSORS, b"application/json"),
        (b"hello", TENSORS, b"text/plain"),
        (photo(), TENSORS, b"image/jpeg"),
        (b"12345", TENSORS, b"application/octet-stream"),
        (b"no photo at all", IMAGES, b"image/png"),
        ([1, 2, 3], TENSORS, b""),
        ([[[1, 2], [3]]], TENSORS, b""),
        ({"y": [1]}, TENSORS, b""),
        ({"x": ONE.tolist(), "y": 1}, TENSORS, b""),
        ({"instances": 5}, TENSORS, b""),
        ({"instances": []}, TENSORS, b""),
        ({"instances": [[1]]}, TENSORS, b""),
        ({"instances": [{"ids": [1, 2, 3, 4]}]}, PAIR, b""),
        ({"instances": [[1, 2, 3, 4]]}, PAIR, b""),
        ({"ids": [1, 2, 3, 4]}, PAIR, b""),
        ({"ids": [1.5, 2, 3, 4], "mask": [1] * 4}, PAIR, b""),
        ({"b64": "!"}, IMAGES, b""),
        ({"b64": "aGVsbG8="}, IMAGES, b""),
        ({"b64": "aGVsbG8="}, TENSORS, b""),
        ({"instances": [{"b64": "aGVsbG8="}, [1]]}, IMAGES, b""),
        ({}, TENSORS, b""),
        (None, TENSORS, b"application/json"),
        (True, TENSORS, b"application/json"),
        (b"", TENSORS, b"multipart/form-data; boundary=B"),
        (*form(("z", "", b"1")), TENSORS),
        (*form(), TENSORS),
        (*form(("data", "", b"[1,2,3,4]"), ("ids", "", b"[1,2,3,4]")), TEXTS),
    ],
)
def test_what_fits_no_input_is_refused_with_what_would(body, takes, kind):
    if isinstance(takes, bytes):
        takes, kind = kind, takes
    with pytest.raises(BadRequest) as caught:
        check_feeds(takes.inputs, feeds(body, takes, kind))  # as every lane does
    assert caught.value.what


def test_a_deep_or_endless_body_meets_a_limit():
    for body in (b"[" * 100 + b"]" * 100, b'{"data":' * 100 + b"1" + b"}" * 100):
        with pytest.raises(Exceeded):
            feeds(body, TENSORS, b"application/json")


def test_photos_that_would_fill_the_memory_are_refused():
    large = Takes([X], "image", "x", lambda data: {"x": np.broadcast_to(np.float32(0), (1, 3, 4096, 4096))})
    with pytest.raises(Exceeded, match="too many"):
        feeds({"instances": [{"b64": "aGVsbG8="}] * 3}, large)


def words(scores):
    def best(outputs):
        row = outputs["y"].reshape(-1)
        return {scores[i]: float(row[i]) for i in np.argsort(-row)[:2]} if scores else {}

    return best


def replied(value, scores="", specs=(Y,), wrapped=False):
    return json.loads(torchserve.reply(value, specs, words(scores), wrapped))


def test_a_sample_is_answered_alone_and_a_batch_as_a_list():
    one, two = np.float32([[0.5, 0.25, 0.125, 0]]), np.float32([[1, 2, 3, 4], [4, 3, 2, 1]])
    assert replied({"y": one}) == [0.5, 0.25, 0.125, 0]
    assert replied({"y": two}) == two.tolist()
    assert replied({"y": one}, "abcd") == {"a": 0.5, "b": 0.25}
    assert list(replied({"y": two}, "abcd")[1]) == ["a", "b"]
    assert replied({"y": one}, "abcd", wrapped=True) == {"predictions": [{"a": 0.5, "b": 0.25}]}
    assert replied({"y": two}, wrapped=True) == {"predictions": two.tolist()}


def test_outputs_of_all_kinds_are_written():
    specs = (Y, TensorSpec("n", "object", (None,)))
    value = {"y": np.float32([[1, 2, 3, 4]]), "n": np.array([b"caf\xc3\xa9"], object)}
    assert replied(value, specs=specs) == {"y": [1, 2, 3, 4], "n": "café"}
    whole = TensorSpec("y", "int64", (2, 2))
    assert replied({"y": np.int64([[1, 2], [3, 4]])}, specs=(whole,)) == [[1, 2], [3, 4]]
    assert replied({"y": np.float16([1.5])}, specs=(TensorSpec("y", "float16", (None,)),)) == 1.5
    assert replied({"y": np.int8(7)}, specs=(TensorSpec("y", "int8", ()),)) == 7
    strange = replied({"y": np.float32([[np.nan, np.inf, 0, 1]])})
    assert np.isnan(strange[0])
    assert strange[1] == np.inf
    assert replied({"y": np.zeros((0, 4), np.float32)}) == []


def test_errors_have_the_fields_that_clients_read():
    missing = torchserve.refusal(NotFound("no such model", "this server has tiny"), 404, "nope", None)
    assert missing == {
        "code": 404,
        "type": "ModelNotFoundException",
        "message": "Model not found: nope",
        "error": "no such model",
        "hint": "this server has tiny",
    }
    version = torchserve.refusal(NotFound("model tiny has no such version"), 404, "tiny", "7")
    assert (version["type"], version["message"]) == (
        "ModelVersionNotFoundException",
        "Model version: 7 does not exist for model: tiny",
    )
    assert torchserve.refusal(BadRequest("no"), 400, "tiny", None)["type"] == "BadRequestException"
    assert torchserve.refusal(EdgeKitError("no"), 500, "tiny", None)["type"] == "InternalServerException"


def test_the_list_of_models_comes_in_pages():
    names = [f"m{n}" for n in range(5)]
    assert torchserve.models(names, 2, 0)["nextPageToken"] == "2"
    assert [m["modelName"] for m in torchserve.models(names, 2, 4)["models"]] == ["m4"]
    assert "nextPageToken" not in torchserve.models(names, 100, 0)
    assert torchserve.models(names, 2, 99) == {"models": []}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of our server with a model in two versions, and its admin address."""
    folder = tmp_path_factory.mktemp("served")
    bundles = [make_bundle(folder / version, version=version) for version in ("9", "10")]
    bundles.append(make_bundle(folder / "bare", name="bare"))
    raw = json.loads((folder / "bare" / "manifest.json").read_text())
    (folder / "bare" / "manifest.json").write_text(json.dumps(raw | {"labels": None, "preprocess": None}))
    admin = f"unix:{folder / 'admin.sock'}"
    command = [sys.executable, "-m", "edgekit_runtime", "serve", *bundles, "--port", "0", "--json", "--admin", admin]
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        told = process.stdout.readline()
        assert told, process.stderr.read().decode()
        try:
            yield json.loads(told)["http"], folder / "admin.sock"
        finally:
            process.terminate()
            assert b"Traceback" not in process.communicate(timeout=20)[1]


def test_what_curl_uploads_is_answered_with_labels(server, tmp_path):
    (tmp_path / "kitten.jpg").write_bytes(photo())
    (tmp_path / "x.json").write_text(json.dumps({"instances": TWO.tolist()}))
    best = sorted(enumerate(truth(apply(PHOTOS, photo())["x"])[0]), key=lambda one: -one[1])
    want = [LABELS[index] for index, _ in best]
    at = f"{server[0]}/predictions/tiny"

    def curl(*words):
        done = subprocess.run(["curl", "-sS", "--max-time", "10", *map(str, words)], capture_output=True, check=True)
        return json.loads(done.stdout)

    for words in (["-T", tmp_path / "kitten.jpg", at], ["-F", f"data=@{tmp_path / 'kitten.jpg'}", at],
                  ["--data-binary", f"@{tmp_path / 'kitten.jpg'}", f"{at}/10"],
                  ["-X", "POST", "-H", "Transfer-Encoding: chunked", "-T", tmp_path / "kitten.jpg", at]):  # fmt: skip
        found = curl(*words)
        assert list(found) == want
        assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    assert list(curl("-T", tmp_path / "kitten.jpg", f"{at}?top_k=2")) == want[:2]
    found = curl("--data-binary", f"@{tmp_path / 'x.json'}", at)
    assert [next(iter(one)) for one in found["predictions"]] == [LABELS[i] for i in truth(TWO).argmax(1)]
    found = curl("-T", tmp_path / "x.json", "-H", "Content-Type: application/json", f"{server[0]}/predictions/bare")
    np.testing.assert_allclose(found["predictions"], truth(TWO), rtol=1e-5)


def test_what_requests_posts_is_answered(server):
    at = f"{server[0]}/predictions/bare"
    for more in ({"json": ONE.tolist()}, {"json": {"data": ONE.tolist()}}, {"data": ONE.tobytes()},
                 {"files": {"data": ("x.json", json.dumps(ONE.tolist()))}}, {"files": {"x": ("x.bin", ONE.tobytes())}},
                 {"data": {"data": json.dumps(ONE.tolist())}}):  # fmt: skip
        answer = requests.post(at, timeout=10, **more)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        np.testing.assert_allclose(answer.json(), truth(ONE[None])[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("verb", "path", "status", "kind"),
    [
        ("POST", "/predictions/nope", 404, "ModelNotFoundException"),
        ("POST", "/predictions/tiny/3", 404, "ModelVersionNotFoundException"),
        ("POST", "/predictions/tiny", 400, "BadRequestException"),
        ("POST", "/predictions/tiny?top_k=0", 400, "BadRequestException"),
        ("POST", "/predictions/tiny?top_k=x", 400, "BadRequestException"),
        ("POST", "/explanations/tiny", 501, "UnsupportedOperationException"),
        ("POST", "/explanations/nope", 404, "ModelNotFoundException"),
        ("GET", "/models/nope", 404, "ModelNotFoundException"),
        ("GET", "/models/tiny/3", 404, "ModelVersionNotFoundException"),
        ("GET", "/models?limit=-1", 400, "BadRequestException"),
        ("POST", "/models?url=http://127.0.0.1:1/x.mar", 403, "InvalidKeyException"),
        ("DELETE", "/models/tiny/9", 403, "InvalidKeyException"),
        ("PUT", "/models/tiny?min_worker=3", 403, "InvalidKeyException"),
    ],
)
def test_a_refusal_has_torchserves_shape(server, verb, path, status, kind):
    answer = requests.request(verb, server[0] + path, data=b"" if verb == "GET" else b"nothing", timeout=10)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert (said["code"], said["type"]) == (status, kind)
    assert said["message"]
    assert said["error"]


def test_no_model_is_registered_even_where_admins_ask(server):
    command = ["curl", "-sS", "--max-time", "10", "--unix-socket", str(server[1]), "-X", "POST"]
    for path in ("/models?url=http://127.0.0.1:1/x.mar", "/models?url=file:///etc/passwd"):
        done = subprocess.run([*command, f"http://admin{path}"], capture_output=True, check=True)
        said = json.loads(done.stdout)
        assert said["code"] == 403
        assert "--repository" in said["hint"]


def test_models_are_listed_and_described(server):
    def get(path):
        return requests.get(server[0] + path, timeout=10).json()

    assert get("/ping") == {"status": "Healthy"}
    assert get("/models") == {"models": [{"modelName": name, "modelUrl": name} for name in ("bare", "tiny")]}
    page = get("/models?limit=1")
    assert (page["nextPageToken"], len(page["models"])) == ("1", 1)
    assert get("/models?limit=1&next_page_token=1")["models"][0]["modelName"] == "tiny"
    (one,) = get("/models/tiny")
    assert (one["modelName"], one["modelVersion"]) == ("tiny", "10")
    assert one["workers"][0]["status"] == "READY"
    assert one["jobQueueStatus"]["pendingRequests"] == 0
    assert [each["modelVersion"] for each in get("/models/tiny/all")] == ["9", "10"]
    assert get("/models/tiny/9")[0]["modelVersion"] == "9"


BITS = [b"[", b"]", b"{", b"}", b'"data"', b'"x"', b'"instances"', b":", b",", b"1", b"-", b"NaN", b'"b64"', b'"aGk="',
        b"null", b"true", b"\xff", b"\xff\xd8\xff", b"--B", b"\r\n", b"=", b"&", b"%"]  # fmt: skip
KINDS = [b"", b"application/json", b"image/png", b"text/plain", b"application/octet-stream",
         b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=B"]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("EDGEKIT_FUZZ", "600")), deadline=None)
@given(st.lists(st.sampled_from(BITS), max_size=20), st.sampled_from(KINDS))
def test_no_body_gives_anything_but_tensors_or_a_refusal(bits, kind):
    for takes in (TENSORS, IMAGES, PAIR, TEXTS, WORDS):
        try:
            found = feeds(b"".join(bits), takes, kind)
        except EdgeKitError:
            continue
        assert all(isinstance(value, np.ndarray) for value in found.values())

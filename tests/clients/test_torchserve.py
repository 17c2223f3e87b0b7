"""TorchServe's requests, as its clients and its documents send them: raw, JSON and multipart bodies; photos; ping."""

import gzip
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from tests.clients.models import ENGINES
from tests.clients.serving import Running
from tests.runtime.bundles import LABELS, some, truth

pytestmark = pytest.mark.slow

TINY = [f"tiny-{engine}" for engine in ENGINES]


@pytest.fixture(scope="module")
def photo() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def best(photo: bytes) -> str:
    """The label that the model has for the photo, by numpy."""
    small = np.asarray(Image.open(io.BytesIO(photo)).resize((2, 2), Image.Resampling.BILINEAR), np.float32)
    return LABELS[int(truth((small / 255).transpose(2, 0, 1)[None]).argmax())]


def test_a_ping_is_healthy(running: Running) -> None:
    answer = requests.get(f"{running.http}/ping", timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (200, "Healthy")


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("where", ["", "/9"])
@pytest.mark.parametrize("how", ["raw", "typed", "multipart", "body"])
def test_a_photo_gets_its_labels(running: Running, photo: bytes, model: str, where: str, how: str) -> None:
    url = f"{running.http}/predictions/{model}{where}"
    if how in ("raw", "typed"):
        headers = {"Content-Type": "image/png"} if how == "typed" else {}
        answer = requests.post(url, data=photo, headers=headers, timeout=10)
    else:
        answer = requests.post(
            url, files={"data" if how == "multipart" else "body": ("a.png", photo, "image/png")}, timeout=10
        )
    assert answer.status_code == 200, answer.text
    scores = answer.json()
    assert set(scores) <= set(LABELS)
    assert max(scores, key=scores.get) == best(photo)


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_json_body_of_numbers_gets_each_rows_labels(running: Running, model: str, wrapped: bool) -> None:
    body = {"instances": some(2).tolist()} if wrapped else some(2).tolist()
    answer = requests.post(f"{running.http}/predictions/{model}", json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"] if wrapped else answer.json()
    assert [max(row, key=row.get) for row in rows] == [LABELS[index] for index in truth(some(2)).argmax(1)]


@pytest.mark.parametrize("model", TINY)
def test_a_photo_goes_to_the_open_protocol_too_and_top_k_labels_come_back(
    running: Running, photo: bytes, model: str
) -> None:
    url, headers = f"{running.http}/v2/models/{model}/infer?top_k=2", {"Content-Type": "image/png"}
    told = requests.post(url, data=photo, headers=headers, timeout=10).json()
    assert [row["label"] for row in told["parameters"]["top"]][:1] == [best(photo)]
    assert len(told["parameters"]["top"]) == 2


def test_curl_is_served_with_a_file_and_a_form(running: Running, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo)
    url = f"{running.http}/predictions/tiny-onnx"
    for given in (["-T", "a.png"], ["-F", "data=@a.png"], ["--data-binary", "@a.png"]):
        verb = ["-X", "POST"] if given[0] == "-T" else []
        done = subprocess.run(
            ["curl", "-sS", "--fail-with-body", *verb, url, *given],
            cwd=tmp_path,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, (given, done.stdout, done.stderr)
        scores = json.loads(done.stdout)
        assert max(scores, key=scores.get) == best(photo)


def test_an_explanation_is_not_offered_and_says_so(running: Running, photo: bytes) -> None:
    answer = requests.post(f"{running.http}/explanations/tiny-onnx", data=photo, timeout=10)
    assert answer.status_code == 501
    assert answer.json()["hint"]


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("nobody", b"x", "image/png", 404),
        ("tiny-onnx/77", b"x", "image/png", 404),
        ("tiny-onnx", b"no photo", "image/png", 400),
        ("tiny-onnx", b"", "image/png", 400),
        ("tiny-onnx", b"{", "application/json", 400),
        ("tiny-onnx", b"--x\r\n", "multipart/form-data; boundary=x", 400),
        ("tiny-onnx", b"--x\r\n", "multipart/form-data", 400),
    ],
)
def test_what_is_wrong_is_told(running: Running, path: str, body: bytes, kind: str, status: int) -> None:
    url, headers = f"{running.http}/predictions/{path}", {"Content-Type": kind}
    answer = requests.post(url, data=body, headers=headers, timeout=10)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]


def test_a_packed_photo_is_unpacked(running: Running, photo: bytes) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
    url = f"{running.http}/predictions/tiny-onnx"
    answer = requests.post(url, data=gzip.compress(photo), headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text


def test_options_describe_the_server(running: Running) -> None:
    answer = requests.options(f"{running.http}/", timeout=10)
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.0")

"""A live server under damaged requests, under boofuzz and under schemathesis: it lives, never says 500, stays small."""

import gzip
import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from hypothesis import strategies as st

from edgekit.isolated import environment
from tests.clients.models import make_words
from tests.clients.serving import Running, rss, serving
from tests.fuzz.live import INFER, get, post, send, statuses
from tests.fuzz.making import damaged, fuzz
from tests.fuzz.test_parsers import FORM, photos
from tests.runtime.bundles import make_bundle, some, truth

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
GROWTH = 96.0
"""MiB that the server may grow by while all of this goes on; the body limit is a multiple of one request's."""
MAX_BODY = 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of two models, with the admin's address open too."""
    folder = tmp_path_factory.mktemp("fuzzed")
    bundles = [make_bundle(folder / "a"), make_words(folder / "b")]
    make_bundle(folder / "repository" / "spare", name="spare")
    options = ["--max-body", str(MAX_BODY), "--admin", "127.0.0.1:0", "--repository", folder / "repository"]
    with serving(bundles, *options) as found:
        yield found


@pytest.fixture
def healthy(running: Running) -> Iterator[Running]:
    """The server, looked at before and after."""
    well(running)
    before = rss(running.pid)
    yield running
    well(running)
    assert rss(running.pid) - before < GROWTH
    told = requests.get(f"{running.http}/metrics", timeout=10).text
    assert 'edgekit_http_requests_total{code="500"}' not in told


def well(running: Running) -> None:
    """It is ready and answers rightly."""
    assert requests.get(f"{running.http}/v2/health/ready", timeout=10).status_code == 200
    answer = requests.post(f"{running.http}{INFER}", data=body(), timeout=10).json()
    assert np.allclose(answer["outputs"][0]["data"], truth(some())[0], atol=1e-5)


def body(rows: int = 1) -> bytes:
    x = some(rows)
    inputs = [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]
    return json.dumps({"inputs": inputs}).encode()


def binary() -> tuple[bytes, str]:
    """A binary request, and its length header."""
    head = {"name": "x", "shape": [1, 3, 2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 48}}
    text = json.dumps({"inputs": [head]}).encode()
    return text + some().tobytes(), f"Inference-Header-Content-Length: {len(text)}"


def seeds() -> list[bytes]:
    """Good requests of every kind."""
    with_length = binary()
    chunked = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunked += b"%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (len(body()), body())
    words = b"".join(struct.pack("<I", len(word)) + word for word in (b"a", b"b"))
    text = {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(words)}}
    strings = json.dumps({"inputs": [text]}).encode()
    rows = json.dumps({"instances": some(2).tolist()}).encode()
    form = "Content-Type: multipart/form-data; boundary=b"
    return [
        get("/v2/health/ready"),
        get("/v2/models/tiny/versions/1/stats", "Accept-Encoding: gzip"),
        get("/v1/models/tiny/metadata"),
        get("/metrics", "Authorization: Bearer x"),
        get("/v2/models/tiny%2f..%2f/config?a=b&c"),
        post(INFER, body()),
        post(INFER, body()) * 3,
        post(INFER, with_length[0], with_length[1]),
        post(INFER, gzip.compress(body()), "Content-Encoding: gzip"),
        chunked,
        post("/v2/models/words/infer", strings + words, f"Inference-Header-Content-Length: {len(strings)}"),
        post("/v1/models/tiny:predict", rows),
        post("/v1/models/tiny:classify", json.dumps({"examples": [{"x": [0.5] * 12}]}).encode()),
        post("/predictions/tiny", photos()[0], "Content-Type: image/png"),
        post("/predictions/tiny", FORM.replace(b"PNG", photos()[0]), form),
        post(INFER, body(), "Expect: 100-continue", "Connection: close"),
    ]


@pytest.mark.parametrize("leave", [True, False])
def test_damaged_requests(healthy: Running, leave: bool) -> None:
    heads = st.sampled_from(seeds())
    strategy = st.one_of(damaged(seeds()), st.tuples(heads, damaged(seeds())).map(b"".join), st.binary(max_size=200))

    def check(request: bytes) -> None:
        cut = len(request) // 3
        pieces = [request[:cut], request[cut:]] if len(request) % 2 else [request]
        found = statuses(send(healthy.address, pieces, leave, seconds=0.2 if not leave else 5.0))
        assert 500 not in found

    fuzz(strategy, check)


def test_damaged_requests_to_the_admin(running: Running) -> None:
    good = [
        post("/v2/repository/index", b'{"ready": true}'),
        post("/v2/repository/models/spare/load", b'{"parameters": {}}'),
        post("/v2/repository/models/spare/unload", b'{"parameters": {"unload_dependents": false}}'),
        post("/v2/repository/models/spare/load", b'{"parameters": {"config": "{}", "file:1/m.onnx": "eA=="}}'),
        post("/v2/logging", b'{"log_verbose_level": 1}'),
        post("/v2/trace/setting", b'{"trace_level": ["OFF"]}'),
        post("/v2/models/tiny/trace/setting", b'{"trace_rate": "1"}'),
        get("/v2/openapi.json"),
    ]

    def check(request: bytes) -> None:
        assert 500 not in statuses(send(running.admin_address, [request]))

    fuzz(damaged(good), check)
    well(running)


@pytest.mark.slow
def test_boofuzz(healthy: Running, tmp_path: Path) -> None:
    python = environment("boofuzz", HERE / "requirements-boofuzz.txt", lambda _: None)
    done = subprocess.run(
        [python, HERE / "inside_boofuzz.py", healthy.address, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=7200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["cases"] > 500
    assert not told["failures"], told["failures"]

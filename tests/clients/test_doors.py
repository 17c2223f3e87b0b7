"""The doors: the Unix socket, tokens with scopes, TLS and mutual TLS, for HTTP and gRPC, by unmodified clients."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from edgekit_runtime.tokens import make_token
from tritonclient.utils import InferenceServerException

from tests.clients.serving import Running, serving
from tests.runtime.bundles import make_bundle, some, truth

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Guarded:
    """A server that asks for tokens and for clients' certificates, and what it takes to be let in."""

    running: Running
    tokens: dict[str, str]
    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def bearer(self, scope: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[scope]}"}


def openssl(folder: Path, *given: str) -> None:
    subprocess.run(["openssl", *given], cwd=folder, check=True, capture_output=True, timeout=60)


def certificates(folder: Path) -> None:
    """An authority, and a certificate from it for the server and for a client."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)


def tokens_file(path: Path) -> dict[str, str]:
    """A file of one token for each scope; gives the secrets."""
    made = {scope: make_token(f"for-{scope}", [scope]) for scope in ("infer", "metrics", "admin")}
    path.touch(0o600)
    path.write_text("".join(line + "\n" for _, line in made.values()))
    return {scope: secret for scope, (secret, _) in made.items()}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    certificates(folder)
    tokens = tokens_file(folder / "tokens")
    options = ["--tokens", folder / "tokens", "--tls-cert", folder / "server.crt", "--tls-key", folder / "server.key"]
    options += ["--tls-client-ca", folder / "ca.crt", "--grpc-port", "0", "--admin", "127.0.0.1:0"]
    with serving([make_bundle(folder / "a")], *options) as running:
        yield Guarded(running, tokens, folder)


class UnixConnection(HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


def body() -> bytes:
    inputs = [{"name": "x", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": some().ravel().tolist()}]
    return json.dumps({"inputs": inputs}).encode()


def test_a_unix_socket_serves_the_same_and_is_its_owners_alone(running: Running) -> None:
    connection = UnixConnection(str(running.unix))
    for _ in range(3):  # kept alive
        connection.request("POST", "/v2/models/tiny-onnx/infer", body())
        answer = connection.getresponse()
        assert answer.status == 200
        assert np.allclose(json.loads(answer.read())["outputs"][0]["data"], truth(some())[0], atol=1e-5)
    connection.close()
    assert os.stat(str(running.unix)).st_mode & 0o007 == 0


def test_curl_is_served_over_the_unix_socket(running: Running) -> None:
    command = ["curl", "-sS", "--unix-socket", str(running.unix), "http://device/v2/health/ready"]
    assert json.loads(subprocess.run(command, capture_output=True, check=True, timeout=10).stdout)["ready"] is True


def asked(guarded: Guarded, path: str, **how: object) -> requests.Response:
    how.setdefault("cert", (guarded.file("client.crt"), guarded.file("client.key")))
    return requests.request(
        str(how.pop("verb", "GET")),
        f"{guarded.running.http}{path}",
        verify=guarded.file("ca.crt"),
        timeout=10,
        **how,
    )


def test_health_needs_no_token_and_the_rest_does(guarded: Guarded) -> None:
    assert asked(guarded, "/v2/health/ready").status_code == 200
    for path, verb in (("/v2/models/tiny/infer", "POST"), ("/v1/models/tiny:predict", "POST"), ("/metrics", "GET")):
        answer = asked(guarded, path, verb=verb, data=body() if verb == "POST" else None)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].lower().startswith("bearer")
        assert answer.json()["error"]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "Bearer " + "x" * 5000, "bearer \xff"]
)
def test_a_wrong_token_is_refused(guarded: Guarded, header: str) -> None:
    answer = asked(guarded, "/v2/models/tiny/infer", verb="POST", data=body(), headers={"Authorization": header})
    assert answer.status_code in (400, 401)


def test_a_token_opens_what_its_scope_is_and_no_more(guarded: Guarded) -> None:
    infer, metrics = guarded.bearer("infer"), guarded.bearer("metrics")
    assert asked(guarded, "/v2/models/tiny/infer", verb="POST", data=body(), headers=infer).status_code == 200
    assert asked(guarded, "/v2/models/tiny/infer", verb="POST", data=body(), headers=metrics).status_code == 403
    assert asked(guarded, "/metrics", headers=metrics).status_code == 200
    assert asked(guarded, "/metrics", headers=infer).status_code == 403


def test_the_admin_wants_its_own_token(guarded: Guarded) -> None:
    where = f"{guarded.running.admin}/v2/repository/index"
    how = {"verify": guarded.file("ca.crt"), "cert": (guarded.file("client.crt"), guarded.file("client.key"))}
    assert requests.post(where, timeout=10, **how).status_code == 401
    assert requests.post(where, headers=guarded.bearer("infer"), timeout=10, **how).status_code == 403
    assert requests.post(where, headers=guarded.bearer("admin"), timeout=10, **how).status_code == 200


def test_a_client_without_a_certificate_is_not_let_in(guarded: Guarded) -> None:
    with pytest.raises(requests.exceptions.ConnectionError):
        asked(guarded, "/v2/health/ready", cert=None)
    assert asked(guarded, "/v2/health/ready").status_code == 200


def test_a_client_that_speaks_no_tls_is_dropped_and_the_server_lives(guarded: Guarded) -> None:
    host, port = guarded.running.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            assert b"200" not in plain.recv(100)
    assert asked(guarded, "/v2/health/ready").status_code == 200


def test_tritons_http_client_comes_in_with_certificate_and_token(guarded: Guarded) -> None:
    options = {"keyfile": guarded.file("client.key"), "certfile": guarded.file("client.crt")}
    options["ca_certs"] = guarded.file("ca.crt")
    where = guarded.running.address
    with triton_http.InferenceServerClient(where, ssl=True, ssl_options=options) as client:
        given = triton_http.InferInput("x", [1, 3, 2, 2], "FP32")
        given.set_data_from_numpy(some())
        answer = client.infer("tiny", [given], headers=guarded.bearer("infer"))
        assert np.allclose(answer.as_numpy("y"), truth(some()), atol=1e-5)
        with pytest.raises(InferenceServerException, match=r"\[401\]"):
            client.infer("tiny", [given])


def test_tritons_grpc_client_comes_in_with_certificate_and_token(guarded: Guarded) -> None:
    files = {"root_certificates": "ca.crt", "private_key": "client.key", "certificate_chain": "client.crt"}
    given = triton_grpc.InferInput("x", [1, 3, 2, 2], "FP32")
    given.set_data_from_numpy(some())
    how = {key: guarded.file(name) for key, name in files.items()}
    with triton_grpc.InferenceServerClient(guarded.running.rpc, ssl=True, **how) as client:
        assert client.is_server_ready()
        answer = client.infer("tiny", [given], headers=guarded.bearer("infer"))
        assert np.allclose(answer.as_numpy("y"), truth(some()), atol=1e-5)
        for headers, code in ((None, "UNAUTHENTICATED"), (guarded.bearer("metrics"), "PERMISSION_DENIED")):
            with pytest.raises(InferenceServerException) as said:
                client.infer("tiny", [given], headers=headers)
            assert said.value.status() == f"StatusCode.{code}"
    how = {"root_certificates": guarded.file("ca.crt")}
    with (
        triton_grpc.InferenceServerClient(guarded.running.rpc, ssl=True, **how) as client,
        pytest.raises(InferenceServerException),
    ):
        client.is_server_ready(client_timeout=5)


def test_grpc_without_tls_is_not_let_in(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.running.rpc) as channel, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(channel).result(timeout=1)


def test_beyond_loopback_a_token_is_required(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekit_runtime", "serve", make_bundle(tmp_path / "a"), "--host", "0.0.0.0"]
    done = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "token" in done.stderr

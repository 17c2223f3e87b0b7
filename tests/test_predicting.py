"""`edgekit predict` as a person uses it: against our own server, one like Triton's, and all that can go wrong."""

import io
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from PIL import Image

from edgekit.calling import Access, Place, parse_place, read_token
from edgekit.predicting import Question, predict, shown, to_json
from tests.runtime.bundles import LABELS, make_bundle, some, truth

pytestmark = pytest.mark.slow

ONE, TWO = some(1), some(2, seed=3)


class Triton(BaseHTTPRequestHandler):
    """Speaks v2 as Triton does: no list of models but an index, binary tensors, errors without hints."""

    protocol_version = "HTTP/1.1"
    models = ("tiny",)
    refuse: tuple[int, dict[str, str]] | None = None

    def do_GET(self):
        path = self.path
        if path == "/v2":
            return self.say(200, {"name": "triton", "version": "2.60", "extensions": []})
        found = re.fullmatch(r"/v2/models/([^/]+)(?:/versions/(\d+))?", path)
        if not found or found[1] not in self.models or found[2] not in (None, "1"):
            return self.say(404, {"error": f"Request for unknown model: '{found and found[1]}' is not found"})
        x = {"name": "x", "datatype": "FP32", "shape": [-1, 3, 2, 2]}
        y = {"name": "y", "datatype": "FP32", "shape": [-1, 4]}
        return self.say(200, {"name": found[1], "versions": ["1"], "platform": "p", "inputs": [x], "outputs": [y]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v2/repository/index":
            return self.say(200, [{"name": name, "version": "1", "state": "READY"} for name in self.models])
        if self.refuse:
            return self.say(self.refuse[0], {"error": "as it may be"}, self.refuse[1])
        if "Inference-Header-Content-Length" not in self.headers:
            return self.say(400, {"error": "failed to parse the request JSON buffer: Invalid value. at 0"})
        size = int(self.headers["Inference-Header-Content-Length"])
        head = json.loads(body[:size])
        (tensor,) = head["inputs"]
        assert tensor["parameters"]["binary_data_size"] == len(body) - size
        y = truth(np.frombuffer(body[size:], np.float32).reshape(tensor["shape"]))
        out = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "parameters": {"binary_data_size": y.nbytes}}
        classes = (head.get("outputs") or [{}])[0].get("parameters", {}).get("classification")
        if classes:
            best = [f"{row[i]:f}:{i}:{LABELS[i]}" for row in y for i in np.argsort(-row)[:classes]]
            out = {"name": "y", "datatype": "BYTES", "shape": [len(y), classes], "data": best}
            return self.say(200, {"model_name": "tiny", "model_version": "1", "outputs": [out]})
        text = json.dumps({"model_name": "tiny", "model_version": "1", "outputs": [out]}).encode()
        return self.send(200, text + y.tobytes(), {"Inference-Header-Content-Length": str(len(text))})

    def say(self, status, value, headers=None):
        self.send(status, json.dumps(value).encode(), headers or {})

    def send(self, status, body, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@contextmanager
def serving(handler=Triton, context=None, **more):
    """The address of a server with the handler, changed by `more`."""
    made = type("Made", (handler,), more)
    with ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        server.handle_error = lambda *given: None
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def ours(folder, *words):
    """Our own server with two versions of one model: its address, and that of its socket."""
    bundles = [make_bundle(folder / "a", version="9"), make_bundle(folder / "b", version="10")]
    command = [sys.executable, "-m", "edgekit_runtime", "serve", *bundles, "--port", "0", "--json", *words]
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        told = process.stdout.readline()
        assert told, process.stderr.read().decode()
        try:
            yield json.loads(told)["http"]
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with ours(folder, "--unix", folder / "s.sock") as at:
        yield at, folder / "s.sock"


@pytest.fixture
def files(tmp_path):
    """One file of every kind."""
    np.save(tmp_path / "x.npy", ONE)
    np.save(tmp_path / "row.npy", ONE[0].astype(np.float64))
    np.savez(tmp_path / "x.npz", x=TWO)
    np.save(tmp_path / "short.npy", np.zeros((1, 9), np.float32))
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20).save(tmp_path / "photo.png")
    (tmp_path / "words.txt").write_text("hello")
    (tmp_path / "noise.bin").write_bytes(b"\x80\x81\x82" * 9)
    return tmp_path


def ask(at, *inputs, access=None, stdin=b"", **more):
    place = parse_place(str(at))
    return predict(place, Question(tuple(map(str, inputs)), **more), access or Access(timeout=10), io.BytesIO(stdin))


def refused(at, *inputs, **more):
    """What is said, and what to type instead."""
    with pytest.raises(EdgeKitError) as caught:
        ask(at, *inputs, **more)
    assert caught.value.hint
    return f"{caught.value.what} | {caught.value.hint}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("http://pi:8000", Place("http", "pi", 8000)),
        ("pi", Place("http", "pi", 8000)),
        ("pi:9000/tiny", Place("http", "pi", 9000, name="tiny")),
        ("http://pi", Place("http", "pi", 80)),
        ("https://pi/tiny/3", Place("https", "pi", 443, name="tiny", version="3")),
        ("http://[::1]:8000/", Place("http", "::1", 8000)),
        ("http://pi:8000/v2/models/tiny/versions/3/infer", Place("http", "pi", 8000, name="tiny", version="3")),
        ("http://pi:8000/v2/models/tiny", Place("http", "pi", 8000, name="tiny")),
        ("http://pi:8000/v2", Place("http", "pi", 8000)),
    ],
)
def test_an_address_is_read_as_a_person_writes_it(text, want):
    assert parse_place(text) == want


@pytest.mark.parametrize(
    "text",
    ["", "http://a b:8000", "http://", "ftp://pi", "http://pi:99999", "http://pi:x", "http://a/b/c/d", "http://me:pw@pi",
     "http://pi/?a=1", "unix:/nowhere.sock", "http+unix:///nowhere", "unix:", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_one_that_is(text):
    with pytest.raises(EdgeKitError) as caught:
        parse_place(text)
    assert caught.value.hint


def test_a_socket_is_found_before_the_name_of_the_model(tmp_path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        path = str(tmp_path / "s")
        assert parse_place(f"unix:{path}") == Place("unix", path=path)
        assert parse_place(f"unix:{path}/tiny/2") == Place("unix", path=path, name="tiny", version="2")
        assert parse_place(f"http+unix://{path}/tiny") == Place("unix", path=path, name="tiny")
        assert parse_place(f"http+unix://{path.replace('/', '%2F')}/tiny") == Place("unix", path=path, name="tiny")


def test_a_photo_goes_to_our_server_and_labels_come_back(server, files):
    found = ask(server[0], files / "photo.png", top=3)
    pixels = np.asarray(Image.open(files / "photo.png"), np.float32).transpose(2, 0, 1)[None] / 255
    assert [label for label, _ in found.top] == [LABELS[i] for i in np.argsort(-truth(pixels)[0])[:3]]
    assert (found.model, found.version) == ("tiny", "10")
    np.testing.assert_allclose(found.outputs["y"], truth(pixels), rtol=1e-4)
    assert ask(server[0], "-", stdin=(files / "photo.png").read_bytes(), top=3).top == found.top


def test_arrays_go_to_our_server_over_tcp_and_a_socket(server, files):
    at, path = server
    for where in (at, f"{at}/tiny", f"{at}/tiny/9", f"unix:{path}", f"http+unix://{path}/tiny/9"):
        np.testing.assert_allclose(ask(where, files / "x.npy").outputs["y"], truth(ONE), rtol=1e-5)
    assert ask(f"{at}/tiny/9", files / "x.npy").version == "9"
    for given in ("x.npz", "x=x.npz"):
        name, _, file = given.rpartition("=")
        if name:
            continue
        np.testing.assert_allclose(ask(at, files / file).outputs["y"], truth(TWO), rtol=1e-5)
    np.testing.assert_allclose(ask(at, f"x={files / 'row.npy'}").outputs["y"], truth(ONE), rtol=1e-5)


def test_arrays_give_labels_where_they_are_asked_for(server, files):
    want = [LABELS[i] for i in np.argsort(-truth(ONE)[0])[:2]]
    assert [label for label, _ in ask(server[0], files / "x.npy", top=2).top] == want
    assert ask(server[0], files / "x.npy").top == ()


def test_our_server_says_what_it_has(server, files):
    at, path = server
    said = refused(f"{at}/tinny", files / "x.npy")
    assert "did you mean tiny" in said
    assert "it has tiny" in said
    assert "no version '3'" in refused(f"{at}/tiny/3", files / "x.npy")
    assert "use one of 9, 10" in refused(f"{at}/tiny/3", files / "x.npy")
    assert "no model" in refused(f"unix:{path}/other", files / "photo.png")
    assert "not an image" in refused(at, "-", stdin=b"\xff\xd8\xff nothing")


def test_a_server_like_tritons_answers_arrays(files):
    with serving() as at:
        found = ask(at, files / "x.npz")
        np.testing.assert_allclose(found.outputs["y"], truth(TWO), rtol=1e-5)
        assert found.version == "1"
        best = ask(f"{at}/tiny/1", files / "x.npy", top=2).top
        assert [label for label, _ in best] == [LABELS[i] for i in np.argsort(-truth(ONE)[0])[:2]]
        assert "triton takes arrays only" in refused(at, files / "photo.png")
        assert "did you mean tiny" in refused(f"{at}/tny", files / "x.npy")


def test_several_models_are_listed(files):
    with serving(models=("tiny", "other")) as at:
        said = refused(at, files / "x.npy")
        assert "serves 2 models: other, tiny" in said
        assert f"say {at}/other" in said
    with serving(models=()) as at:
        assert "no models now" in refused(at, files / "x.npy")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere.jpg", "does not read"),
        (".", "does not read"),
        ("noise.bin", "no photo, sound, text or array"),
        ("short.npy", "expected shape"),
        ("z=x.npy", "no such input: z"),
    ],
)
def test_an_input_that_does_not_fit_is_not_sent(files, given, words):
    name, _, file = given.rpartition("=")
    with serving() as at:
        assert words in refused(at, f"{name}={files / file}" if name else files / file)


def test_inputs_that_do_not_go_together_are_refused(files):
    with serving() as at:
        assert "twice" in refused(at, files / "x.npy", f"x={files / 'x.npy'}")
        assert "nothing can go beside it" in refused(at, files / "photo.png", files / "x.npy")
        assert "is empty" in refused(at, "-")
        np.save(files / "o.npy", np.array([object()]), allow_pickle=True)
        assert "numpy arrays" in refused(at, files / "o.npy")


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {}, "--token FILE"),
        (403, {}, "scope infer"),
        (400, {}, "refused: as it may be"),
        (413, {}, "refused: as it may be"),
        (503, {"Retry-After": "7"}, "try again in 7 s"),
        (503, {}, "in a moment"),
        (504, {}, "gave up"),
        (500, {}, "look into its log"),
        (307, {"Location": "http://evil/"}, "sends us on to http://evil/"),
    ],
)
def test_every_refusal_says_what_to_type_instead(files, status, headers, words):
    with serving(refuse=(status, headers)) as at:
        assert words in refused(at, files / "x.npy")


def test_a_token_is_sent_and_never_shown(files):
    seen = []

    class Guarded(Triton):
        def do_GET(self):
            seen.append(self.headers["Authorization"])
            super().do_GET() if seen[-1] == "Bearer secret" else self.say(401, {"error": "no"})

    with serving(Guarded) as at:
        assert "--token FILE" in refused(f"{at}/tiny", files / "x.npy")
        assert ask(f"{at}/tiny", files / "x.npy", access=Access("secret")).outputs
        assert "not allowed" in refused(at, files / "x.npy")
    assert "secret" not in repr(Access("secret"))
    (files / "token").write_text("secret\n")
    assert read_token(files / "token") == "secret"
    for broken in ("two lines\n", "a\nb", "", "ü"):
        with pytest.raises(EdgeKitError, match="plain characters"):
            Access(broken)
    with pytest.raises(EdgeKitError, match="no token"):
        read_token(files / "nowhere")


def test_nobody_listening_is_said(files):
    assert "nothing listens" in refused(f"http://127.0.0.1:{free_port()}", files / "x.npy")
    assert "no host called" in refused("http://no-such-host.invalid:8000", files / "x.npy")


def test_a_socket_nobody_listens_on_is_said(files):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(files / "s"))
        assert "nothing listens" in refused(f"unix:{files / 's'}", files / "x.npy")


@contextmanager
def answering(data):
    """The address of something that answers whatever comes with `data` (None: with nothing at all)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held = []

        def answer():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                held.append(connection)
                if data is not None:
                    connection.recv(65536)
                    connection.sendall(data)
                    connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in held:
                connection.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "no answer"),
        (b"", "closed the connection"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "not that of gRPC"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no server of the v2 protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "does not speak HTTP|closed"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "no server of the v2 protocol"),
    ],
)
def test_another_kind_of_server_is_told_apart(files, data, words):
    with answering(data) as at:
        said = refused(at, files / "x.npy", access=Access(timeout=0.5))
        assert any(word in said for word in words.split("|")), said


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"outputs": 5}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP33", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1], "data": []}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}',
        b"<html>",
    ],
)
def test_an_answer_that_does_not_read_is_no_traceback(files, answer):
    class Odd(Triton):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(200, answer, {})

    with serving(Odd) as at:
        assert "does not read as v2" in refused(f"{at}/tiny", files / "x.npy")


def test_a_connection_that_went_idle_is_made_again(files):
    class Short(Triton):
        def do_GET(self):
            super().do_GET()
            self.close_connection = True  # without saying so

    with serving(Short) as at:
        assert ask(f"{at}/tiny", files / "x.npy").outputs["y"].shape == (1, 4)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for localhost that signs itself, with its key; and another."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("one", "other"):
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                 "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout",
                 folder / f"{name}.key", "-out", folder / f"{name}.crt"]  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
        (folder / f"{name}.pem").write_text((folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text())
    return folder


def tls(folder, client=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "one.pem")
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "one.crt")
    return context


def test_tls_with_its_ca_is_trusted_and_without_it_is_not(files, certificates):
    known = Access(ca=certificates / "one.crt")
    with serving(context=tls(certificates)) as at:
        at = at.replace("127.0.0.1", "localhost")
        assert ask(at, files / "x.npy", access=known).outputs["y"].shape == (1, 4)
        assert "--ca FILE" in refused(at, files / "x.npy")
        assert "--ca FILE" in refused(at, files / "x.npy", access=Access(ca=certificates / "other.crt"))
        wrong = refused(at.replace("localhost", "127.0.0.1"), files / "x.npy", access=known)
        assert "a host name that the certificate has" in wrong
        plain = refused(at.replace("https", "http"), files / "x.npy")
        assert "https://" in plain
        for broken in (Path("nowhere"), files / "words.txt"):
            assert "--ca" in refused(at, files / "x.npy", access=Access(ca=broken))
    with serving() as at:
        assert "does not speak TLS" in refused(at.replace("http", "https"), files / "x.npy", access=known)


def test_a_client_shows_its_certificate_where_it_is_wanted(files, certificates):
    known = Access(ca=certificates / "one.crt", cert=certificates / "one.pem")
    with serving(context=tls(certificates, client=True)) as at:
        at = at.replace("127.0.0.1", "localhost")
        assert ask(at, files / "x.npy", access=known).outputs["y"].shape == (1, 4)
        assert "--cert" in refused(at, files / "x.npy", access=Access(ca=certificates / "one.crt"))
        other = Access(ca=certificates / "one.crt", cert=certificates / "other.pem")
        assert "certificate" in refused(at, files / "x.npy", access=other)
        assert "with its key" in refused(at, files / "x.npy", access=Access(ca=known.ca, cert=known.ca))


def printed(found):
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False)
    for part in shown(found):
        console.print(part)
    return out.getvalue()


def test_a_person_sees_labels_bars_and_time(server, files):
    text = printed(ask(server[0], files / "photo.png"))
    assert all(label in text for label in LABELS)
    assert "█" in text
    assert re.search(r"tiny 10 at http://.*: \d+\.\d ms", text)
    many = ask(server[0], files / "x.npy", repeat=120)
    assert len(many.times) == 120
    text = printed(many)
    assert "y  float32[1, 4]" in text
    assert re.search(r"p50 [\d.]+ ms, p99 [\d.]+ ms, n = 120", text)
    assert "slowest" in printed(ask(server[0], files / "x.npy", repeat=3))


def test_a_program_gets_everything_as_json(server, files):
    told = json.loads(json.dumps(to_json(ask(server[0], files / "photo.png", repeat=2))))
    assert len(told["ms"]) == 2
    assert len(told["top"]) == 4
    assert told["outputs"][0]["shape"] == [1, 4]


def test_what_a_server_says_cannot_drive_the_terminal(files):
    class Rude(Triton):
        models = ("ti\x1b[2Jny",)

        def do_POST(self):
            if self.path.endswith("index"):
                return super().do_POST()
            self.rfile.read(int(self.headers["Content-Length"]))
            best = [{"label": "\x1b[2J[red]cat[/]", "score": 0.5}]
            return self.say(200, {"model_name": "\x1b[1m", "outputs": [], "parameters": {"top": best}})

    with serving(Rude) as at:
        text = printed(ask(f"{at}/x", files / "photo.png"))
        assert "\x1b" not in text
        assert "[red]cat" in text
        assert "\x1b" not in refused(f"{at}/tiny", files / "x.npy")

"""The wire contracts, byte by byte, against bundles of every engine in a real server: each protocol, each datatype.

Refuses to look inside: what is asked and expected here is written in the protocols' own documents."""

import gzip
import json
import os
import socket
import struct
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from edgekit_runtime.bundle import describe
from edgekit_runtime.engines import EngineOptions, read_specs
from edgekit_runtime.manifest import Manifest, to_json
from edgekit_runtime.ports import Port

from tests.runtime.bundles import make_bundle, some, truth, write_manifest

helper = pytest.importorskip("onnx.helper")
LENGTH = "inference-header-content-length"
ENGINES = ("onnx", "openvino", "tflite")
KINDS = {
    "BOOL": ("?", [True, False, True]), "UINT8": ("<u1", [0, 255, 1]), "UINT16": ("<u2", [0, 65535, 1]),
    "UINT32": ("<u4", [0, 2**32 - 1, 1]), "UINT64": ("<u8", [0, 2**64 - 1, 2**63]), "INT8": ("<i1", [-128, 127, 0]),
    "INT16": ("<i2", [-32768, 32767, 0]), "INT32": ("<i4", [-(2**31), 2**31 - 1, 0]),
    "INT64": ("<i8", [-(2**63), 2**63 - 1, 2**53 + 1]), "FP16": ("<f2", [0.5, -65504.0, -0.0]),
    "FP32": ("<f4", [1.5, -0.0, 2.0**-149]), "FP64": ("<f8", [0.1, 1.7976931348623157e308, 5e-324]),
    "BYTES": ("", ["a", "", 'ünï \0 "\\ 😀']),
}  # fmt: skip
ONNX = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING"}


def bundle(folder, name, ins, outs, nodes, version="1", labels=()):
    """A bundle of ONNX nodes over tensors of (name, datatype, shape)."""
    folder.mkdir()
    inputs, outputs = (
        [helper.make_tensor_value_info(n, getattr(_types(), ONNX.get(kind, kind)), shape) for n, kind, shape in side]
        for side in (ins, outs)
    )
    one = helper.make_tensor("k", _types().FLOAT, [], [float(version)])
    graph = helper.make_graph(nodes, name, inputs, outputs, [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    if labels:
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    ports = [tuple(Port(spec, spec) for spec in side) for side in read_specs("onnx", folder / "model.onnx")]
    files = {path.name: describe(path) for path in sorted(folder.iterdir())}
    told = Manifest(name, version, "here", "onnx", "float32", "onnx", "model.onnx", ports[0], ports[1], files,
                    EngineOptions(threads=1), labels="labels.txt" if labels else None)  # fmt: skip
    write_manifest(folder, to_json(told))


def _types():
    from onnx import TensorProto

    return TensorProto


def fill(root):
    """All the models that are asked below."""
    for engine in ENGINES:
        make_bundle(root / engine, engine, name=engine)
    same = [helper.make_node("Identity", ["x"], ["y"])]
    for kind in KINDS:
        bundle(root / kind, kind, [("x", kind, ["n"])], [("y", kind, ["n"])], same)
    for name, shape in (("grid", ["a", "b"]), ("scalar", []), ("fixed", [2, 3])):
        bundle(root / name, name, [("x", "FP32", shape)], [("y", "FP32", shape)], same)
    labels = ("cat", "dog", "bird", "fish", "ünï")
    bundle(root / "named", "named", [("x", "FP32", ["n", 5])], [("y", "FP32", ["n", 5])], same, labels=labels)
    words = [helper.make_node("Identity", ["x"], ["y_bytes"])]
    bundle(root / "out", "out", [("x", "BYTES", ["n"])], [("y_bytes", "BYTES", ["n"])], words)
    for version in ("1", "2", "10"):
        add = [helper.make_node("Add", ["x", "k"], ["y"])]
        bundle(root / f"ver{version}", "ver", [("x", "FP32", ["n"])], [("y", "FP32", ["n"])], add, version)
    three = [("Add", ["a", "b"], ["sum"]), ("Sub", ["a", "b"], ["diff"]), ("Identity", ["s"], ["echo"])]
    ins = [("a", "FP32", ["n", 2]), ("b", "FP32", ["n", 2]), ("s", "BYTES", ["n"])]
    outs = [("sum", "FP32", ["n", 2]), ("diff", "FP32", ["n", 2]), ("echo", "BYTES", ["n"])]
    bundle(root / "multi", "multi", ins, outs, [helper.make_node(*node) for node in three])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, the path of its Unix socket) of a server in a process of its own."""
    root = tmp_path_factory.mktemp("wire")
    fill(root)
    command = [sys.executable, "-m", "edgekit_runtime", "serve", *map(str, sorted(root.iterdir())), "--port", "0"]
    command += ["--unix", str(root / "socket"), "--alias", "other=ver@2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUTF8": "1"}) as process:
        try:
            said = json.loads(process.stdout.readline())
            yield ("127.0.0.1", int(said["http"].rsplit(":", 1)[1])), str(root / "socket")
        finally:
            process.terminate()


def talk(address, data, heads=(), leave=False):
    """The answers to `data`, as many as `heads` says (True: one of HEAD): [(status, headers, body)]."""
    kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(kind) as connection:
        connection.settimeout(20)
        connection.connect(address)
        connection.sendall(data)
        if leave:
            connection.shutdown(socket.SHUT_WR)
        with closing(connection.makefile("rb")) as file:
            return [answer(file, head) for head in heads]


def answer(file, head):
    status = int(file.readline().split()[1])
    headers = {}
    while (line := file.readline().rstrip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    size = 0 if head or status < 200 else int(headers["content-length"])
    return status, headers, file.read(size)


def head(verb, path, *lines, version="1.1"):
    host = ["Host: x"] if version == "1.1" else []
    return "\r\n".join([f"{verb} {path} HTTP/{version}", *host, *lines, "", ""]).encode("latin-1")


def ask(served, verb, path, body=b"", *lines):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return talk(served[0], head(verb, path, f"Content-Length: {len(data)}", *lines) + data, [verb == "HEAD"])[0]


def tensor(name, kind, shape, data=None, **parameters):
    given = {"name": name, "datatype": kind, "shape": shape} | ({} if data is None else {"data": data})
    return given | ({"parameters": parameters} if parameters else {})


def infer(served, model, asked, blobs=b"", *lines, counted=False):
    """Ask for an inference; with the length of the JSON where binary tensors follow, or it is to be `counted`."""
    words = json.dumps(asked).encode()
    more = [f"{LENGTH}: {len(words)}"] if blobs or counted else []
    return ask(served, "POST", f"/v2/models/{model}/infer", words + blobs, *more, *lines)


def raw(kind, values):
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(word)) + word for word in (value.encode() for value in values))
    return np.array(values, KINDS[kind][0]).tobytes()


def parted(headers, body):
    """The JSON and the bytes of each output of a binary reply; none may be left over."""
    length = int(headers[LENGTH])
    told, rest, found = json.loads(body[:length]), body[length:], {}
    for output in told["outputs"]:
        if "data" not in output:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return told, found


BINARY = {"parameters": {"binary_data_output": True}}


@pytest.mark.parametrize("count", [3, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_each_datatype_comes_back_as_it_went_by_json_binary_mixed_and_raw(served, kind, count):
    values = KINDS[kind][1][:count]
    data = raw(kind, values)
    said, sized = tensor("x", kind, [count], values), tensor("x", kind, [count], binary_data_size=len(data))
    status, headers, body = infer(served, kind, {"id": "7", "inputs": [said]})
    told = json.loads(body)
    output = told["outputs"][0]
    assert (status, told["id"], told["model_name"], told["model_version"]) == (200, "7", kind, "1")
    assert (output["datatype"], output["shape"], len(output["data"])) == (kind, [count], count)
    assert raw(kind, output["data"]) == data
    assert LENGTH not in headers
    for asked, blob in (({"inputs": [said], **BINARY}, b""), ({"inputs": [sized], **BINARY}, data)):
        status, headers, body = infer(served, kind, asked, blob, counted=True)
        told, found = parted(headers, body)
        assert (status, found, told["outputs"][0]["parameters"]) == (200, {"y": data}, {"binary_data_size": len(data)})
    assert json.loads(infer(served, kind, {"inputs": [sized]}, data, counted=True)[2])["outputs"] == [output]
    if kind != "BYTES" and count:
        status, headers, body = ask(served, "POST", f"/v2/models/{kind}/infer", data, f"{LENGTH}: 0")
        assert (status, parted(headers, body)[1]) == (200, {"y": data})


@pytest.mark.parametrize("kind", KINDS)
def test_each_datatype_refuses_what_does_not_fit_it(served, kind):
    values, data = KINDS[kind][1], raw(kind, KINDS[kind][1])
    wrong = [2] if kind == "BOOL" else ["1"] if kind != "BYTES" else [1]
    if kind.startswith(("INT", "UINT")):
        info = np.iinfo(KINDS[kind][0])
        wrong += [int(info.min) - 1, int(info.max) + 1, 1.5, True]
    lies = [tensor("x", kind, [1], [value]) for value in [*wrong, None, {}, []]]
    lies += [
        tensor("x", kind, shape, values) for shape in ([2], [4], [-3], [3, 1], [3.0], [True], "3", None, [2**62, 4])
    ]
    for lie in lies:
        status, _, body = infer(served, kind, {"inputs": [lie]})
        assert status == 400, lie
        assert json.loads(body)["error"]
    size = len(data)
    for said, blob in ((size - 1, data[:-1]), (size + 1, data + b"\0"), (size, data + b"\0"), (size, data[:-1])):
        assert infer(served, kind, {"inputs": [tensor("x", kind, [3], binary_data_size=said)]}, blob)[0] == 400


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_answers_the_same_by_every_protocol(served, engine):
    photos = some(2)
    said = tensor("x", "FP32", [2, 3, 2, 2], photos.ravel().tolist())
    found = [json.loads(infer(served, engine, {"inputs": [said]})[2])["outputs"][0]["data"]]
    sized = tensor("x", "FP32", [2, 3, 2, 2], binary_data_size=photos.nbytes)
    reply = infer(served, engine, {"inputs": [sized], **BINARY}, photos.tobytes())
    found += [np.frombuffer(parted(*reply[1:])[1]["y"], "<f4")]
    for form, reply in (("instances", "predictions"), ("inputs", "outputs")):
        found += [json.loads(ask(served, "POST", f"/v1/models/{engine}:predict", {form: photos.tolist()})[2])[reply]]
    for values in found:
        assert np.allclose(np.reshape(values, (2, 4)), truth(photos), atol=1e-4)


A, B = tensor("a", "FP32", [1, 2], [1, 2]), tensor("b", "FP32", [1, 2], [10, 20])
S = tensor("s", "BYTES", [2], ["p", "q"])
ROWS = {"instances": [{"a": [1, 2], "b": [10, 20], "s": "p"}, {"a": [3, 4], "b": [30, 40], "s": "q"}]}
PAIR = [{"sum": [11, 22], "diff": [-9, -18], "echo": "p"}, {"sum": [33, 44], "diff": [-27, -36], "echo": "q"}]
V1 = {
    "rows without a name": ("grid", {"instances": [[1, 2], [3, 4]]}, {"predictions": [[1, 2], [3, 4]]}),
    "rows with a name": ("grid", {"instances": [{"x": [1, 2]}]}, {"predictions": [[1, 2]]}),
    "rows of numbers": ("ver", {"instances": [1, 2]}, {"predictions": [11, 12]}),
    "a version": ("ver/versions/2", {"instances": [1]}, {"predictions": [3]}),
    "an alias": ("other", {"instances": [1]}, {"predictions": [3]}),
    "columns without a name": ("grid", {"inputs": [[1, 2]]}, {"outputs": [[1, 2]]}),
    "columns with a name": ("grid", {"inputs": {"x": [[1, 2]]}}, {"outputs": [[1, 2]]}),
    "a scalar": ("scalar", {"inputs": 2.5}, {"outputs": 2.5}),
    "rows of many tensors": ("multi", ROWS, {"predictions": PAIR}),
    "bytes": ("BYTES", {"instances": [{"b64": "aGk="}, "ünï"]}, {"predictions": ["hi", "ünï"]}),
    "bytes by the name of the output": ("out", {"instances": ["hi"]}, {"predictions": [{"b64": "aGk="}]}),
    "its signature": ("ver", {"signature_name": "serving_default", "instances": [1]}, {"predictions": [11]}),
}  # fmt: skip


@pytest.mark.parametrize("case", V1)
def test_tensorflow_serving_predicts(served, case):
    model, asked, want = V1[case]
    status, _, body = ask(served, "POST", f"/v1/models/{model}:predict", asked)
    assert (status, json.loads(body)) == (200, want)


V2 = {
    "all outputs in the model's order": ({"inputs": [S, B, A]}, ["sum", "diff", "echo"]),
    "some outputs": ({"inputs": [A, B, S], "outputs": [{"name": "echo"}, {"name": "sum"}]}, ["echo", "sum"]),
    "no outputs named": ({"inputs": [A, B, S], "outputs": []}, ["sum", "diff", "echo"]),
    "an unknown output": ({"inputs": [A, B, S], "outputs": [{"name": "no"}]}, None),
    "an output twice": ({"inputs": [A, B, S], "outputs": [{"name": "sum"}] * 2}, None),
    "an input twice": ({"inputs": [A, A, B, S]}, None),
    "an input too few": ({"inputs": [A, S]}, None),
    "an input too many": ({"inputs": [A, B, S, {**A, "name": "z"}]}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", V2)
def test_many_inputs_and_outputs(served, case):
    asked, want = V2[case]
    status, _, body = infer(served, "multi", asked)
    told = json.loads(body)
    assert [output["name"] for output in told["outputs"]] == want if want else (status == 400 and told["error"])


def test_json_and_binary_tensors_mix_both_ways_and_each_output_has_the_last_word(served):
    words, numbers = raw("BYTES", ["p", "qq"]), raw("FP32", [10, 20])
    sized = [tensor("s", "BYTES", [2], binary_data_size=len(words)), A, tensor("b", "FP32", [1, 2], binary_data_size=8)]
    outputs = [{"name": "sum", "parameters": {"binary_data": False}}, {"name": "echo"}]
    status, headers, body = infer(served, "multi", {"inputs": sized, "outputs": outputs, **BINARY}, words + numbers)
    told, found = parted(headers, body)
    assert (status, told["outputs"][0]["data"], found) == (200, [11, 22], {"echo": words})


def test_classes_are_told_best_first_by_value_place_and_label(served):
    asked = {"inputs": [tensor("x", "FP32", [2, 5], [0.1, 0.9, 0.5, 0.3, 0.2, 0, 0, 0, 0, 1])]}
    wanted = {"name": "y", "parameters": {"classification": 2}}
    output = json.loads(infer(served, "named", {**asked, "outputs": [wanted]})[2])["outputs"][0]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert [word.split(":", 1)[1] for word in output["data"]][:3] == ["1:dog", "2:bird", "4:ünï"]


def test_words_that_are_no_utf8_are_never_altered(served):
    data = struct.pack("<I", 2) + b"\xff\xfe"
    said = {"inputs": [tensor("x", "BYTES", [1], binary_data_size=len(data))], **BINARY}
    status, headers, body = infer(served, "BYTES", said, data)
    assert status == 400 or parted(headers, body)[1]["y"] == data


ROW = b'{"instances":[1]}'
INFER = json.dumps({"inputs": [tensor("x", "FP32", [1], [1])]}).encode()
SIZE, PATH = f"Content-Length: {len(INFER)}", "/v2/models/FP32/infer"
SPACED = f"INFERENCE-header-Content-Length:  {len(INFER)} \t"
H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "Upgrade: h2c",
)
CHUNKED = head("POST", PATH, "Transfer-Encoding: CHUNKED") + b'00%X;a=b;c="d e"\r\n%s\r\n000\r\n' % (len(INFER), INFER)
ONE = head("POST", PATH, SIZE) + INFER
BYTES = {
    "three in one packet": (ONE * 3, [200] * 3),
    "one byte at the front too many": (b"\r\n\r\n" + ONE, [200]),
    "chunks with extensions and trailers": (CHUNKED + b"Content-Encoding: gzip\r\nHost: y\r\n\r\n" + ONE, [200, 200]),
    "an error in the middle": (head("POST", "/no", "Content-Length: 5") + b"hello" + ONE, [404, 200]),
    "a GET with a body": (head("GET", "/v2", "Content-Length: 5") + b"hello" + ONE, [200, 200]),
    "Java's offer of HTTP/2": ((head("POST", PATH, SIZE, *H2C) + INFER) * 2, [200, 200]),
    "white space behind values": (head("POST", PATH, f"content-LENGTH:\t{len(INFER)} \t", SPACED) + INFER, [200]),
    "HTTP/1.0 that expects": (head("POST", PATH, SIZE, "Expect: 100-continue", version="1.0") + INFER, [200]),
    "an empty Host": (b"GET /v2 HTTP/1.1\r\nHost:\r\n\r\n", [200]),
    "a percent in the path": (head("GET", "/v2/health/liv%65?a=b"), [200]),
    "a colon as a percent": (head("POST", "/v1/models/ver%3Apredict", "Content-Length: 17") + ROW, [200]),
    "a slash as a percent": (head("GET", "/v2/models/..%2f..%2fetc"), [404]),
    "a body announced too large": (head("POST", PATH, f"Content-Length: {2**26 + 1}"), [413]),
    "a body announced much too large": (head("POST", PATH, f"Content-Length: {2**40}"), [413]),
    "fifty behind one another": (head("GET", "/v2") * 50, [200] * 50),
}  # fmt: skip


@pytest.mark.parametrize("place", [0, 1], ids=["tcp", "unix"])
@pytest.mark.parametrize("case", BYTES)
def test_what_clients_send_is_understood(served, case, place):
    data, want = BYTES[case]
    assert [status for status, _, _ in talk(served[place], data, [False] * len(want))] == want


def test_a_client_that_ends_after_many_requests_gets_all_answers_and_only_the_last_closes(served):
    photo = json.dumps({"inputs": [tensor("x", "FP32", [60_000], [0.5] * 60_000)]}).encode()  # read in a thread
    found = talk(served[0], head("POST", PATH, f"Content-Length: {len(photo)}") + photo + ONE + ONE, [False] * 3, True)
    assert [status for status, _, _ in found] == [200] * 3
    assert [headers.get("connection") for _, headers, _ in found][:2] == [None, None]


ACCEPTED = {"GZIP": "gzip", "gzip;q=0, deflate": "deflate", "deflate;q=0.1, gzip;q=0.2": "gzip", "gzip ; q=0.5": "gzip",
            "identity;q=1, gzip;q=0.5": None, "*;q=0": None, "br": None, "gzip;q=0": None}  # fmt: skip


@pytest.mark.parametrize("accepted", ACCEPTED)
def test_an_answer_is_packed_as_the_client_weighs_it(served, accepted):
    said = {"inputs": [tensor("x", "FP32", [2000], [1.0] * 2000)], **BINARY}
    status, headers, body = infer(served, "FP32", said, b"", f"Accept-Encoding: {accepted}")
    assert (status, headers.get("content-encoding")) == (200, ACCEPTED[accepted])
    if headers.get("content-encoding") == "gzip":
        assert parted(headers, gzip.decompress(body))[1]["y"] == raw("FP32", [1.0] * 2000)
        assert headers["vary"].lower() == "accept-encoding"


ABOUT = {
    ("GET", "/v1/models/no"): 404, ("POST", "/v1/models/no:predict"): 404, ("GET", "/v1/models/ver/labels/no"): 404,
    ("POST", "/v1/models/ver/versions/3:predict"): 404, ("GET", "/v2/models/ver/versions/3"): 404,
    ("GET", "/v2/models/other/stats"): 200, ("PUT", "/v2/models/ver"): 405,
    ("HEAD", "/v2/models/ver/infer"): 405, ("HEAD", "/v2/models/ver"): 200, ("POST", "/v1/models/ver:explain"): 501,
    ("POST", "/v2/repository/models/ver/load"): 403, ("POST", "/predictions/no"): 404, ("TRACE", "/v2"): 405,
    ("GET", "/v2/models/%00"): 404, ("GET", "/v2/models//ready"): 404, ("OPTIONS", "/v1/models/ver:predict"): 200,
}  # fmt: skip


@pytest.mark.parametrize(("verb", "path"), ABOUT)
def test_each_path_and_verb_has_its_status_and_errors_are_json(served, verb, path):
    status, headers, body = ask(served, verb, path, b"{}" if verb == "POST" else b"")
    assert status == ABOUT[verb, path]
    assert headers.get("allow") or (status not in (405,) and verb != "OPTIONS")
    if status >= 400 and verb != "HEAD":
        assert json.loads(body)["error"]
        assert headers["content-type"] == "application/json"

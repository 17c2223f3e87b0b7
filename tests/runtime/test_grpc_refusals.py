"""What the gRPC edge refuses, with which status and counter, and that it lives on."""

import logging
import resource
import stat
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.lane import LaneOptions
from edgekit_runtime.limits import MIB, Limits
from edgekit_runtime.served import opened
from edgekit_runtime.service import Policy
from edgekit_runtime.tls import TlsFiles, read_pem
from edgekit_runtime.tokens import Tokens, add_token

from tests.runtime import certificates
from tests.runtime.bundles import make_bundle
from tests.runtime.grpc_servers import INFER, REQUEST, Slow, echo, fake, ones, raw_call, refused, serving, tensor
from tests.waiting import until

pytestmark = pytest.mark.slow

ASK = REQUEST(
    model_name="echo", inputs=[{"name": "x", "datatype": "FP32", "shape": [1]}], raw_input_contents=[bytes(4)]
).SerializeToString()


@pytest.fixture(scope="module")
def server():
    def bug(feeds):
        raise ZeroDivisionError("a secret of ours")

    with serving(echo(), fake("bug", bug)) as made:
        yield made


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.url) as made:
        yield made


def test_a_method_that_is_not_there_is_unimplemented(server):
    for path in ("/inference.GRPCInferenceService/Nope", "/nope.Nope/Nope"):
        with refused("UNIMPLEMENTED"):
            raw_call(server.url, path, b"")


def test_a_model_that_is_not_there_is_not_found(client):
    with refused("NOT_FOUND", "no such model; this server has bug, echo"):
        client.infer("nope", ones())
    with refused("NOT_FOUND", "no such version"):
        client.infer("echo", ones(), model_version="9")
    with refused("NOT_FOUND"):
        client.get_model_metadata("nope")


def test_what_does_not_fit_is_an_invalid_argument_and_counted(server, client):
    before = server.counters.counts["edgekit_refused_total", "bad_request"]
    with refused("INVALID_ARGUMENT", "x: shape [2, 2] does not fit; the model takes x: float32[?]"):
        client.infer("echo", [tensor(np.ones((2, 2), np.float32))])
    with refused("INVALID_ARGUMENT", "expected FP32, got FP64"):
        client.infer("echo", [tensor(np.ones(2), "FP64")])
    with refused("INVALID_ARGUMENT", "sequences are not supported"):
        client.infer("echo", ones(), sequence_id=3, sequence_start=True)
    assert server.counters.counts["edgekit_refused_total", "bad_request"] == before + 3
    assert server.counters.counts["edgekit_grpc_requests_total", "INVALID_ARGUMENT"] >= 3


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff", b"\x0a\x01\xff"])
def test_bytes_that_are_no_message_are_an_invalid_argument(server, data):
    with refused("INVALID_ARGUMENT", "does not read as inference.ModelInferRequest"):
        raw_call(server.url, INFER, data)


def test_a_bug_is_told_to_the_log_and_not_to_the_client(client, caplog):
    with caplog.at_level(logging.ERROR), refused("INTERNAL") as caught:
        client.infer("bug", ones())
    assert "secret" not in caught.value.message()
    assert "ZeroDivisionError: a secret of ours" in caplog.text
    assert client.is_server_live()


def test_a_full_queue_is_unavailable_and_says_when_to_come_again():
    slow, policy = Slow(), Policy(lane=LaneOptions(queue=1))
    with serving(fake("echo", slow.run), policy=policy) as server, grpc.insecure_channel(server.url) as channel:
        call = channel.unary_unary(INFER)
        first = call.future(ASK, timeout=20)
        assert slow.began.wait(10)
        second = call.future(ASK, timeout=20)
        until(lambda: server.service.find("echo").waiting == 1)
        with pytest.raises(grpc.RpcError) as caught:
            call(ASK, timeout=20)
        slow.go.set()
        assert first.result()
        assert second.result()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["retry-after"] == "1"
    assert server.counters.counts["edgekit_refused_total", "busy"] == 1


def test_the_servers_deadline_ends_a_call():
    slow = Slow()
    with serving(fake("echo", slow.run), policy=Policy(limits=Limits(deadline=0.2))) as server:
        with refused("DEADLINE_EXCEEDED", "the deadline came before the answer"):
            raw_call(server.url, INFER, ASK)
        slow.go.set()
    assert server.counters.counts["edgekit_refused_total", "late"] == 1


def test_the_parameter_timeout_ends_a_call():
    slow = Slow()
    with serving(fake("echo", slow.run)) as server, triton.InferenceServerClient(server.url) as client:
        with refused("DEADLINE_EXCEEDED", "the deadline came before the answer"):
            client.infer("echo", ones(), timeout=100_000)
        slow.go.set()


def test_the_clients_deadline_takes_its_request_out_of_the_queue():
    slow = Slow()
    with serving(fake("echo", slow.run)) as server, grpc.insecure_channel(server.url) as channel:
        first = channel.unary_unary(INFER).future(ASK, timeout=20)
        assert slow.began.wait(10)
        with refused("DEADLINE_EXCEEDED"):
            raw_call(server.url, INFER, ASK, timeout=0.3)
        until(lambda: server.service.find("echo").waiting == 0)
        slow.go.set()
        first.result()
    assert slow.runs == 1


def test_a_cancelled_call_cancels_its_inference():
    slow = Slow()
    with serving(fake("echo", slow.run)) as server, grpc.insecure_channel(server.url) as channel:
        lane = server.service.find("echo")
        first = channel.unary_unary(INFER).future(ASK, timeout=20)
        assert slow.began.wait(10)
        second = channel.unary_unary(INFER).future(ASK, timeout=20)
        until(lambda: lane.waiting == 1)
        second.cancel()
        until(lambda: lane.stats.cancelled == 1 and lane.waiting == 0)
        slow.go.set()
        first.result()
    assert slow.runs == 1


def test_a_message_beyond_the_limit_is_refused():
    with serving(policy=Policy(limits=Limits(body=MIB))) as server, triton.InferenceServerClient(server.url) as client:
        assert client.infer("echo", ones(200_000)).as_numpy("y").shape == (200_000,)
        with refused("RESOURCE_EXHAUSTED"):
            client.infer("echo", ones(300_000))
        with refused("RESOURCE_EXHAUSTED", "Decompressed message larger than max"):
            client.infer("echo", ones(300_000), compression_algorithm="gzip")


def test_a_gzip_bomb_is_refused_without_being_unpacked():
    with serving(policy=Policy(limits=Limits(body=MIB))) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        bomb = f"""
import grpc
channel = grpc.insecure_channel("{server.url}", compression=grpc.Compression.Gzip)
try:
    channel.unary_unary("{INFER}")(bytes(200 * 2**20), timeout=20)
except grpc.RpcError as error:
    print(error.code(), error.details())
"""
        done = subprocess.run([sys.executable, "-c", bomb], capture_output=True, text=True, check=True)
        assert done.stdout == "StatusCode.RESOURCE_EXHAUSTED Decompressed message larger than max\n"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_a_message_of_very_many_empty_things_is_refused_and_counted():
    with serving(policy=Policy(limits=Limits(body=MIB))) as server:
        with refused("RESOURCE_EXHAUSTED", "would take more"):
            raw_call(server.url, INFER, b"\x2a\x00" * (MIB // 3))
        assert server.counters.counts["edgekit_refused_total", "body"] == 1


def test_metadata_beyond_the_limit_is_refused():
    with serving(policy=Policy(limits=Limits(header_bytes=4096))) as server:
        assert raw_call(server.url, INFER, ASK, metadata=[("a", "b" * 1000)])
        with refused("RESOURCE_EXHAUSTED"):
            raw_call(server.url, INFER, ASK, metadata=[("a", "b" * 10_000)])


def test_connections_beyond_the_limit_are_refused():
    with serving(policy=Policy(limits=Limits(connections=2))) as server:
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(server.url, own) for _ in range(3)]
        try:
            for channel in channels[:2]:
                assert channel.unary_unary(INFER)(ASK, timeout=10)
            with refused("UNAVAILABLE"):
                channels[2].unary_unary(INFER)(ASK, timeout=20)
        finally:
            for channel in channels:
                channel.close()


def test_calls_beyond_the_limit_are_refused():
    slow = Slow()
    with (
        serving(fake("echo", slow.run), policy=Policy(limits=Limits(connections=2))) as server,
        grpc.insecure_channel(server.url) as channel,
    ):
        call = channel.unary_unary(INFER)
        held = [call.future(ASK, timeout=20) for _ in range(2)]
        until(lambda: server.service.find("echo").waiting == 1)
        with refused("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded"):
            call(ASK, timeout=20)
        slow.go.set()
        assert all(one.result() for one in held)


def test_a_call_without_a_message_does_no_harm(server):
    with grpc.insecure_channel(server.url) as channel:
        with pytest.raises(grpc.RpcError):
            channel.stream_unary(INFER)(iter([]), timeout=1)
        assert channel.unary_unary(INFER)(ASK, timeout=10)


# who may ask


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    return {scope: add_token(path, scope, [scope]) for scope in ("infer", "metrics", "admin")} | {"path": path}


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def test_tokens_are_asked_for(tokens):
    with serving(allow=Tokens(tokens["path"]).allow) as server:
        with refused("UNAUTHENTICATED", "a token is needed here"):
            raw_call(server.url, INFER, ASK)
        with refused("UNAUTHENTICATED", "not known"):
            raw_call(server.url, INFER, ASK, bearer("wrong"))
        with refused("PERMISSION_DENIED", "does not allow infer"):
            raw_call(server.url, INFER, ASK, bearer(tokens["metrics"]))
        with refused("UNAUTHENTICATED"):
            raw_call(server.url, INFER, b"\xff")
        assert raw_call(server.url, INFER, ASK, bearer(tokens["infer"]))
        with triton.InferenceServerClient(server.url) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            with refused("UNAUTHENTICATED"):
                client.get_model_metadata("echo")
            assert client.get_model_metadata("echo", headers={"authorization": f"Bearer {tokens['infer']}"})
    assert server.counters.counts["edgekit_refused_total", "unauthenticated"] == 4
    assert server.counters.counts["edgekit_refused_total", "forbidden"] == 1


def test_the_health_of_models_is_told_to_whom_may_ask_them(tokens):
    check = "/grpc.health.v1.Health/Check"
    with serving(allow=Tokens(tokens["path"]).allow) as server:
        assert raw_call(server.url, check, b"") == b"\x08\x01"
        for name in (b"\x0a\x04echo", b"\x0a\x04nope"):
            with refused("UNAUTHENTICATED"):
                raw_call(server.url, check, name)
        assert raw_call(server.url, check, b"\x0a\x04echo", bearer(tokens["infer"])) == b"\x08\x01"
        assert b"echo" not in raw_call(server.url, "/grpc.health.v1.Health/List", b"")
        assert b"echo" in raw_call(server.url, "/grpc.health.v1.Health/List", b"", bearer(tokens["infer"]))


def test_what_is_served_and_set_is_not_changed_by_just_anybody(client):
    for change in (
        lambda: client.get_model_repository_index(),
        lambda: client.load_model("echo"),
        lambda: client.unload_model("echo"),
        lambda: client.update_trace_settings(settings={"trace_rate": "5"}),
        lambda: client.update_log_settings({"log_verbose_level": 1}),
    ):
        with refused("PERMISSION_DENIED", "this is switched off here"):
            change()
    assert client.get_trace_settings().settings["trace_rate"].value == ["1000"]


def test_the_admin_address_asks_for_a_token_of_that_scope(tokens):
    headers = {scope: {"authorization": f"Bearer {tokens[scope]}"} for scope in ("infer", "admin")}
    with (
        serving(allow=Tokens(tokens["path"]).allow, admin=True) as server,
        triton.InferenceServerClient(server.url) as client,
    ):
        with refused("PERMISSION_DENIED", "does not allow admin"):
            client.get_model_repository_index(headers=headers["infer"])
        with refused("PERMISSION_DENIED", "does not allow admin"):
            client.update_trace_settings(settings={"trace_rate": "5"}, headers=headers["infer"])
        assert [one.name for one in client.get_model_repository_index(headers=headers["admin"]).models] == ["echo"]


def test_settings_change_on_the_admin_address():
    level = logging.getLogger("edgekit_runtime").level
    with serving(admin=True) as server, triton.InferenceServerClient(server.url) as client:
        settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "5"}
        assert client.update_trace_settings("echo", settings).settings["trace_rate"].value == ["5"]
        assert client.get_trace_settings("echo").settings["trace_level"].value == ["TIMESTAMPS"]
        assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]
        assert client.update_trace_settings("echo", {"trace_rate": None}).settings["trace_rate"].value == ["1000"]
        with refused("UNIMPLEMENTED", "trace file"):
            client.update_trace_settings(settings={"trace_file": "/etc/passwd"})
        with refused("INVALID_ARGUMENT"):
            client.update_trace_settings(settings={"nope": "1"})
        with refused("NOT_FOUND"):
            client.update_trace_settings("nope", {"trace_rate": "5"})
        try:
            assert client.update_log_settings({"log_verbose_level": 1}).settings["log_verbose_level"].uint32_param == 1
        finally:
            logging.getLogger("edgekit_runtime").setLevel(level)


def test_models_are_loaded_and_unloaded_on_the_admin_address(tmp_path):
    make_bundle(tmp_path / "tiny")
    policy = Policy(repository=tmp_path)
    with (
        serving(echo(), opened(open_bundle(tmp_path / "tiny")), policy=policy, admin=True) as server,
        triton.InferenceServerClient(server.url) as client,
    ):
        client.unload_model("tiny")
        assert not client.is_model_ready("tiny")
        index = {one.name: one.state for one in client.get_model_repository_index().models}
        assert index == {"echo": "READY", "tiny": "UNAVAILABLE"}
        client.load_model("tiny")
        assert client.is_model_ready("tiny")
        with refused("NOT_FOUND"):
            client.load_model("nope")
        with refused("PERMISSION_DENIED", "not taken from a request"):
            client.load_model("tiny", config="{}", files={"file:1/model.onnx": b"123"})


# where it listens


def test_a_taken_port_is_refused(server):
    with pytest.raises(EdgeKitError, match="cannot listen on"), serving(address=server.url):
        pass


def test_a_unix_socket_is_for_its_owner_and_group(tmp_path):
    path = tmp_path / "grpc.sock"
    with serving(address=f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert raw_call(f"unix:{path}", INFER, ASK)
        with pytest.raises(EdgeKitError, match="another server listens"), serving(address=f"unix:{path}"):
            pass
        assert raw_call(f"unix:{path}", INFER, ASK)
    assert not path.exists()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("ours")), certificates.make(tmp_path_factory.mktemp("others"))


def ask_over_tls(url, ca, client=None):
    pair = (None, None) if client is None else (client.client_key.read_bytes(), client.client_cert.read_bytes())
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), *pair)
    with grpc.secure_channel(url, credentials) as channel:
        return channel.unary_unary(INFER)(ASK, timeout=20)


def test_tls_is_spoken(paths):
    ours, others = paths
    with serving(pem=read_pem(TlsFiles(ours.cert, ours.key))) as server:
        assert ask_over_tls(server.url, ours.ca)
        with refused("UNAVAILABLE"):
            ask_over_tls(server.url, others.ca)
        with pytest.raises(grpc.RpcError):
            raw_call(server.url, INFER, ASK, timeout=3)


def test_clients_without_a_certificate_of_the_ca_are_refused(paths):
    ours, others = paths
    with serving(pem=read_pem(TlsFiles(ours.cert, ours.key, ours.ca))) as server:
        assert ask_over_tls(server.url, ours.ca, ours)
        for client in (None, others):
            with refused("UNAVAILABLE"):
                ask_over_tls(server.url, ours.ca, client)


def test_a_call_under_way_is_answered_before_the_server_ends():
    slow = Slow()
    with serving(fake("echo", slow.run)) as server, grpc.insecure_channel(server.url) as channel:
        held = channel.unary_unary(INFER).future(ASK, timeout=20)
        assert slow.began.wait(10)
        threading.Timer(0.3, slow.go.set).start()
        server.call(server.running.stop(10))
        assert held.result()

"""The benchmark of servers: its generator counts right answers alone, its table calls nothing reached unmeasured."""

import io
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from rich.console import Console

from benchmarks.load import Load, Told, Wrong, ask, ask_grpc, run
from benchmarks.serving import table
from benchmarks.serving_peers import BARE, EDGEKIT, MLSERVER, PEERS, Absent, Peer, Started, goals, models, peer, wire
from benchmarks.serving_peers.aside import Growth, Health, Memory
from benchmarks.serving_peers.generator import Generator, prepared
from benchmarks.serving_peers.models import ServedModel
from benchmarks.serving_peers.rounds import Measured


@pytest.fixture(scope="module")
def model() -> ServedModel:
    """The small model."""
    return models.mlp()


@pytest.fixture(scope="module")
def bare(model: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The yardstick, serving it."""
    log = tmp_path_factory.mktemp("bare") / "log"
    with peer(next(one for one in PEERS if one.title == BARE), model, log, lambda _: None) as one:
        assert isinstance(one, Started)
        yield one


@pytest.mark.parametrize("form", ["binary", "json"])
@pytest.mark.parametrize("connections", [1, 3])
def test_right_answers_are_counted(
    bare: Started, model: ServedModel, form: str, connections: int, tmp_path: Path
) -> None:
    at, wired = bare.at[form], wire.FORMS[form]
    sent, expected = prepared(tmp_path, form, at, wired.request("model", model.input, model.x))
    np.testing.assert_allclose(wired.answer(Path(expected).read_bytes()), model.y, rtol=1e-5, atol=1e-6)
    with Generator() as generator:
        told = generator.run(Load(at, sent, expected, connections, requests=50))
    assert told.requests == 50
    assert 0 < told.p50 <= told.p99 <= told.worst


def test_a_load_of_seconds_ends_after_them(bare: Started, model: ServedModel, tmp_path: Path) -> None:
    request = wire.FORMS["binary"].request("model", model.input, model.x)
    told = run(Load(bare.at["binary"], *prepared(tmp_path, "x", bare.at["binary"], request), 2, 0.2))
    assert 0.2 <= told.seconds < 20
    assert told.rate == told.requests / told.seconds


def test_one_wrong_answer_ends_the_load(bare: Started, model: ServedModel, tmp_path: Path) -> None:
    request = wire.FORMS["binary"].request("model", model.input, model.x)
    sent, expected = prepared(tmp_path, "x", bare.at["binary"], request)
    Path(expected).write_bytes(Path(expected).read_bytes()[:-1] + b"?")
    with Generator() as generator, pytest.raises(Wrong, match="status 200"):
        generator.run(Load(bare.at["binary"], sent, expected, 2, requests=50))


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nok", "status 503"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "0 content-length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", "closed a connection"),
    ],
    ids=["another status", "no length", "cut short"],
)
def test_a_reply_that_is_not_whole_and_200_is_wrong(reply: bytes, why: str, tmp_path: Path) -> None:
    for name, data in (("sent", wire.get("/")), ("expected", b"ok")):
        (tmp_path / name).write_bytes(data)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            one, _ = server.accept()
            with one:
                one.recv(1000)
                one.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Wrong, match=why):
            run(Load(f"127.0.0.1:{server.getsockname()[1]}", str(tmp_path / "sent"), str(tmp_path / "expected")))
        thread.join()


@pytest.fixture
def echo() -> Iterator[str]:
    """A gRPC server whose every unary call gives back what came."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: object) -> object:
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_grpc_answers_are_counted_and_wrong_ones_end_it(echo: str, tmp_path: Path) -> None:
    assert ask_grpc(echo, wire.INFER, b"hello") == b"hello"
    for name, data in (("sent", b"hello"), ("other", b"hullo")):
        (tmp_path / name).write_bytes(data)
    load = Load(echo, str(tmp_path / "sent"), str(tmp_path / "sent"), 2, requests=20, method=wire.INFER)
    assert run(load).requests >= 20
    with pytest.raises(Wrong, match="other bytes"):
        run(Load(echo, str(tmp_path / "sent"), str(tmp_path / "other"), 2, requests=20, method=wire.INFER))


def test_a_grpc_reply_reads_raw_and_typed() -> None:
    y = np.array([[1.5, -2.0, 300.0]], np.float32)
    field, raw = wire._field, y.tobytes()
    head = field(1, b"y") + field(2, b"FP32") + field(3, b"\x01\x03")
    for reply in (field(5, head) + field(6, raw), field(5, head + field(5, field(6, raw)))):
        np.testing.assert_array_equal(wire.FORMS["grpc"].answer(reply), y)


def test_a_peer_that_does_not_start_is_absent_with_its_last_words(model: ServedModel, tmp_path: Path) -> None:
    with peer(Peer("nobody", "no_such_peer.py", ("json",)), model, tmp_path / "log", lambda _: None) as one:
        assert isinstance(one, Absent)
        assert "no_such_peer.py" in one.why


def test_a_request_is_refused_where_nobody_listens(model: ServedModel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        ask(f"127.0.0.1:{port}", wire.get("/"))


def cells(**rates: tuple[float, ...]) -> Measured:
    """EdgeKit in JSON at 1 connection and MLServer, by requests a second in each round."""
    who = {"ours": (EDGEKIT, "json", 1), "mlserver": (MLSERVER, "json", 1)}
    return Measured(
        {
            who[name]: [Told(int(rate), 1.0, 1.0, 2.0, 3.0, int(rate)) for rate in given]
            for name, given in rates.items()
        },
        {},
        (Absent(MLSERVER, "it ended with 1"),) if "mlserver" not in rates else (),
    )


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (cells(ours=(600, 500, 10), mlserver=(100, 100, 100)), goals.REACHED),
        (cells(ours=(600, 499, 10), mlserver=(100, 100, 100)), goals.MISSED),
        (cells(ours=(600,)), goals.UNKNOWN),
    ],
    ids=["the median", "just below", "an absent peer"],
)
def test_a_target_is_judged_by_the_median_of_the_rounds(found: Measured, verdict: str) -> None:
    row = next(row for row in goals.speed(found) if "JSON, 1 conn: EdgeKit / MLServer" in row.what)
    assert row.verdict == verdict
    assert row.wanted == ">= 5"


def test_what_could_not_be_measured_is_not_reached() -> None:
    assert next(goals.resident(Memory(1, None, 1, 1))).verdict == goals.UNKNOWN
    assert next(goals.resident(Memory(0, 26 * 2**20, 1, 1))).verdict == goals.MISSED
    assert goals.growth(Growth(1000, (1,), 0.0, 0.0)).verdict == goals.UNKNOWN
    assert goals.growth(Growth(100_000, (1,), 20.0, 2.0 * 2**20)).verdict == goals.MISSED
    told = Told(10, 1.0, 1.0, 60.0, 70.0, 10)
    assert next(goals.health(Health(told, told, told, told, told, 50.0))).verdict == goals.MISSED


def test_the_table_shows_who_is_absent_and_why() -> None:
    console = Console(width=150, file=io.StringIO(), record=True)
    console.print(table("MLP", cells(ours=(600, 500, 10))))
    text = console.export_text()
    assert "MLServer" in text
    assert "absent: it ended with 1" in text
    assert "[10, 600]" in text
    assert "1,110" in text

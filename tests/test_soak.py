"""A minute of the soak, its own judgement put to the test, and a server that is killed under load."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.clients.serving import rss, serving
from tests.runtime.bundles import make_bundle
from tests.soak import soak
from tests.soak_ledger import Ledger, read_metrics

METRICS = """# HELP edgekit_http_requests_total HTTP answers sent, by status.
# TYPE edgekit_http_requests_total counter
edgekit_http_requests_total{code="200"} 90
edgekit_http_requests_total{code="404"} 8
edgekit_clients_gone_total 2
edgekit_http_requests_begun_total 101
edgekit_grpc_requests_total{code="OK"} 5
edgekit_inferences_total{model="m",version="1"} 60
edgekit_inferences_total{model="m",version="2"} 41
"""


def books() -> Ledger:
    """A run that fits METRICS."""
    ledger = Ledger(gone=3, health=[0.01] * 50)
    ledger.answers.update({200: 89, 404: 8})
    ledger.rpc["OK"] = 5
    ledger.rows["m"], ledger.maybe["m"] = 100, 2
    ledger.memory = [(second, 50.0 + (second % 2) * 0.1) for second in range(120)]
    return ledger


def test_a_run_that_adds_up_has_no_faults() -> None:
    assert books().judge(read_metrics(METRICS), 10) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda books: books.answers.update({200: 1}), "were sent and the server counts"),
        (lambda books: books.rpc.update({"OK": 1}), "gRPC calls"),
        (lambda books: books.rows.update({"m": 5}), "samples were answered"),
        (lambda books: books.rows.update({"m": -5}), "samples were answered"),
        (lambda books: books.health.extend([1.0] * 5), "health"),
        (lambda books: books.memory.extend((120 + n, 50 + n * 0.5) for n in range(60)), "memory grows"),
        (lambda books: books.fault("json: wrong numbers"), "wrong numbers"),
    ],
)
def test_a_run_that_does_not_add_up_has_a_fault(change: object, said: str) -> None:
    ledger = books()
    change(ledger)  # type: ignore[operator]
    assert any(said in fault for fault in ledger.judge(read_metrics(METRICS), 10))


@pytest.mark.slow
def test_a_minute_of_mixed_load(tmp_path: Path) -> None:
    faults, table = soak(tmp_path, 60, 120)
    assert not faults, "\n".join([table, *faults])


@pytest.mark.slow
def test_a_server_killed_under_load_is_ready_again(tmp_path: Path) -> None:
    bundle, socket = make_bundle(tmp_path / "a"), tmp_path / "s"
    x = {"name": "x", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [0.5] * 12}
    for _ in range(2):  # the second start finds what the first, killed, left behind: its socket
        with serving([bundle], "--unix", socket, killed=True) as running:
            stop = threading.Event()

            def ask(url: str, stop: threading.Event) -> None:
                with suppress(requests.ConnectionError):
                    while not stop.is_set():
                        assert requests.post(url, json={"inputs": [x]}, timeout=10).status_code in (200, 503)

            args = (f"{running.http}/v2/models/tiny/infer", stop)
            threads = [threading.Thread(target=ask, args=args) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            assert rss(running.pid) > 0
            os.kill(running.pid, signal.SIGKILL)
            stop.set()
            for thread in threads:
                thread.join(10)
    with serving([bundle], "--unix", socket) as running:
        assert requests.get(f"{running.http}/v2/health/ready", timeout=10).json()["ready"] is True
        assert (
            requests.post(f"{running.http}/v2/models/tiny/infer", json={"inputs": [x]}, timeout=10).status_code == 200
        )

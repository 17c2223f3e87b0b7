"""Under systemd: sockets that are open already, readiness, a sign of life for each real inference, and its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runtime.bundles import make_bundle
from tests.runtime.live import post

pytestmark = pytest.mark.slow

LAUNCH = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, sys.argv[1:])"
GET = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def told(tmp_path: Path) -> socket.socket:
    """Where systemd would listen for what the service says."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "notify"))
    made.settimeout(30)
    return made


def start(tmp_path: Path, sockets: dict[str, socket.socket], *words: str, **env: str) -> "subprocess.Popen[str]":
    """The server with these sockets as its descriptors 3, 4, ..."""
    bundle = make_bundle(tmp_path / "b")
    numbers = [one.fileno() for one in sockets.values()]

    def hand_over() -> None:
        spare = [os.dup(number) for number in numbers]
        for index, number in enumerate(spare):
            os.dup2(number, 3 + index)

    launch = [sys.executable, "-c", LAUNCH] if sockets else []
    command = [*launch, sys.executable, "-m", "edgekit_runtime", "serve", str(bundle), *words]
    passed = {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(sockets)} if sockets else {}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        close_fds=not sockets,
        preexec_fn=hand_over if sockets else None,
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), **passed, **env},
    )


def ask(family: int, address: object, data: bytes = GET) -> bytes:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(address)
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(65536), b""))


def end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    assert process.wait(20) == 0


def test_sockets_that_systemd_opened_are_served_and_no_other_is_taken(tmp_path: Path, told: socket.socket) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    unix, admin = (socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2))
    for name, one in (("u", unix), ("a", admin)):
        one.bind(str(tmp_path / name))
        one.listen()
    sockets = {"http": tcp, "unix": unix, "admin": admin}
    words = ("--json", "--unix", str(tmp_path / "u"), "--admin", f"unix:{tmp_path / 'a'}")
    process = start(tmp_path, sockets, *words)
    at = json.loads(process.stdout.readline())
    assert at["http"] == f"http://127.0.0.1:{tcp.getsockname()[1]}"
    assert told.recv(100) == b"READY=1"
    index = post("/v2/repository/index", b"{}")
    assert b" 200 " in ask(socket.AF_INET, tcp.getsockname())
    assert b" 403 " in ask(socket.AF_INET, tcp.getsockname(), index)
    assert b" 200 " in ask(socket.AF_UNIX, str(tmp_path / "u"))
    assert b" 200 " in ask(socket.AF_UNIX, str(tmp_path / "a"), index)
    end(process)
    assert told.recv(100) == b"STOPPING=1"


def test_the_watchdog_is_fed_while_the_engine_answers(tmp_path: Path, told: socket.socket) -> None:
    process = start(tmp_path, {}, "--port", "0", WATCHDOG_USEC="400000")
    heard = [told.recv(100) for _ in range(4)]
    assert b"READY=1" in heard
    assert heard.count(b"WATCHDOG=1") >= 3
    end(process)


def test_a_killed_server_is_ready_again_at_once(tmp_path: Path, told: socket.socket) -> None:
    path = tmp_path / "http.sock"
    first = start(tmp_path, {}, "--port", "0", "--unix", str(path))
    assert told.recv(100) == b"READY=1"
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    again = subprocess.Popen(
        [sys.executable, "-m", "edgekit_runtime", "serve", str(tmp_path / "b"), "--port", "0", "--unix", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "serving tiny" in again.stdout.readline()
    assert b" 200 " in ask(socket.AF_UNIX, str(path))
    end(again)
    deadline = time.monotonic() + 5
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.exists()

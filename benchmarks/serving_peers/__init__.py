"""The table of what is measured side by side, and how each is started: every peer in an environment of its own.

Refuses nothing: a peer that cannot be installed or does not answer is an `Absent` with the reason."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

from benchmarks.defaults import cache
from benchmarks.load import Wrong, ask
from benchmarks.serving_peers import wire
from benchmarks.serving_peers.models import ServedModel
from edgekit.isolated import ELSEWHERE, environment

HERE = Path(__file__).resolve().parent
EDGEKIT, BARE, ENGINE = "EdgeKit", "bare asyncio + httptools", "bare engine"
MLSERVER, MLSERVER_INSIDE = "MLServer", "MLServer, in-process"
LITSERVE, BENTOML, UVICORN = "LitServe", "BentoML", "uvicorn, plain ASGI"
START = 90.0
"""Seconds that a peer gets to answer its first request."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Peer:
    """A program that serves one model: `script PARTS MODEL PORT GRPC_PORT ANOTHER_PORT`, what it speaks, and the lock
    of its environment (None: this Python's)."""

    title: str
    script: str
    forms: tuple[str, ...]
    lock: str | None = None
    settings: tuple[tuple[str, str], ...] = ()


PEERS = (
    Peer(BARE, "bare.py", ("binary", "json")),
    Peer(UVICORN, "uvicorn_peer.py", ("binary", "json"), "uvicorn"),
    Peer(MLSERVER, "mlserver_peer.py", ("json", "grpc"), "mlserver"),
    Peer(MLSERVER_INSIDE, "mlserver_peer.py", ("json", "grpc"), "mlserver", (("MLSERVER_WORKERS", "0"),)),
    Peer(LITSERVE, "litserve_peer.py", ("json",), "litserve"),
    Peer(BENTOML, "bentoml_peer.py", ("bentoml",), "bentoml"),
)


@dataclass(frozen=True)
class Absent:
    """What could not be measured, and why."""

    title: str
    why: str


@dataclass(frozen=True)
class Started:
    """A server that answers: the process, where, and in which forms."""

    title: str
    process: "subprocess.Popen[bytes]"
    model: str
    at: dict[str, str]

    @property
    def cpu(self) -> float:
        """Seconds of processor that it and its children have used, as the kernel's ticks tell."""
        return cpu(self.process.pid)

    @property
    def rss(self) -> int:
        """Resident bytes of its process now; its children not counted."""
        return resident(self.process.pid)


def cpu(root: int) -> float:
    """Seconds of processor of a process and all below it."""
    used, below = dict[int, int](), dict[int, list[int]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        number = int(path.parent.name)
        used[number] = sum(map(int, fields[11:13]))
        below.setdefault(int(fields[1]), []).append(number)
    found = [root]
    for one in found:
        found += below.get(one, [])
    return sum(used.get(one, 0) for one in found) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """VmRSS of a process in bytes."""
    told = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(told[1]) * 1024 if told else 0


@contextmanager
def peer(one: Peer, model: ServedModel, log: Path, tell: Tell) -> Iterator[Started | Absent]:
    """Start it, wait until it answers, end it and all its children."""
    try:
        python = _python(one, tell)
    except EdgeKitError as error:
        yield Absent(one.title, f"cannot be installed: {error.what}")
        return
    ports = free_ports(3)
    command = [python, HERE / one.script, model.onnx, *ports]
    with running(command, log, dict(one.settings)) as process:
        at = {form: f"127.0.0.1:{ports[1] if form == 'grpc' else ports[0]}" for form in one.forms}
        why = _unready(process, at[next(form for form in one.forms if form != "grpc")], one, model)
        yield Started(one.title, process, "model", at) if why is None else Absent(one.title, f"{why} ({_last(log)})")


def _python(one: Peer, tell: Tell) -> Path:
    if one.lock is None:
        return Path(sys.executable)
    return environment(one.lock, HERE / f"{one.lock}.txt", tell, cache())


def _unready(process: "subprocess.Popen[bytes]", at: str, one: Peer, model: ServedModel) -> str | None:
    """None as soon as it answers an inference; else what is the matter."""
    form = next(form for form in one.forms if form != "grpc")
    request = wire.FORMS[form].request("model", model.input, model.x)
    until, last = time.monotonic() + START, "it does not listen"
    while time.monotonic() < until:
        if process.poll() is not None:
            return f"it ended with {process.returncode}"
        try:
            status, body = ask(at, request, 10.0)
            if status == 200:
                return None
            last = f"it answers {status}: {body[:200]!r}"
        except (OSError, Wrong):
            pass
        time.sleep(0.2)
    return last


def _last(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


@contextmanager
def running(
    command: Sequence[object], log: Path, settings: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program in a session of its own, its stderr in `log`, its stdout read by line; killed with its children."""
    words = [str(word) for word in command]
    left_out = set() if words[0] == sys.executable else ELSEWHERE
    keep = {key: value for key, value in os.environ.items() if key not in left_out}
    path = f"{Path(words[0]).parent}{os.pathsep}{keep.get('PATH', os.defpath)}"
    with log.open("wb") as told:
        process = subprocess.Popen(
            words, env={**keep, "PATH": path, **(settings or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=told, start_new_session=True, bufsize=0, cwd=log.parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        for name in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, name)
                process.wait(3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()

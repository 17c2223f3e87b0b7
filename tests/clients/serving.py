"""A real `edgekit-runtime serve` process for tests: started, waited for, ended, and looked over for bugs it logged.

Refuses a server that does not come up, that ends before it is told to, or that logged a traceback."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """Where a server listens (None: it does not), and its process. `unix` is a path; `grpc` is host:port."""

    pid: int
    http: str | None
    unix: str | None
    grpc: str | None
    admin: str | None
    admin_grpc: str | None
    errors: Path

    @property
    def address(self) -> str:
        """host:port of HTTP."""
        assert self.http is not None
        return self.http.split("//", 1)[1]

    @property
    def admin_address(self) -> str:
        """host:port of the admin's HTTP."""
        assert self.admin is not None
        return self.admin.split("//", 1)[1]

    @property
    def rpc(self) -> str:
        """host:port of gRPC."""
        assert self.grpc is not None
        return self.grpc


@contextmanager
def serving(
    bundles: Sequence[Path], *options: str | Path, env: dict[str, str] | None = None, killed: bool = False
) -> Iterator[Running]:
    """A server of `bundles` on free ports of loopback. `killed`: the body ends it by itself."""
    with tempfile.TemporaryDirectory() as scratch:
        errors = Path(scratch) / "stderr"
        with errors.open("wb") as sink, start(bundles, options, sink, env) as process:
            try:
                yield _ready(process, errors)
                if not killed:
                    assert process.poll() is None, f"the server ended by itself: {errors.read_text()[-2000:]}"
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(20) in (0, -signal.SIGTERM)
            finally:
                if process.poll() is None:
                    process.kill()
        assert "Traceback" not in errors.read_text(errors="replace"), errors.read_text(errors="replace")[-6000:]


def start(
    bundles: Sequence[Path], options: Sequence[str | Path], sink: Any, env: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """The process; its first line on stdout tells that it is ready."""
    command = [sys.executable, "-m", "edgekit_runtime", "serve", *map(str, bundles), "--port", "0", "--json"]
    return subprocess.Popen(
        [*command, *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=sink,
        env={**os.environ, **(env or {})},
    )


def _ready(process: "subprocess.Popen[bytes]", errors: Path) -> Running:
    assert process.stdout is not None
    line = process.stdout.readline()  # an ended process gives an empty line
    assert line, f"the server did not start: {errors.read_text()[-2000:]}"
    told = json.loads(line)
    places = {key: told.get(key) for key in ("http", "unix", "grpc", "admin", "admin_grpc")}
    return Running(process.pid, **places, errors=errors)


def rss(pid: int) -> float:
    """The resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def eventually(true: Any, seconds: float = 10.0) -> bool:
    """Whether `true()` becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return bool(true())

"""EdgeKit's server as a user starts it: `edgekit-runtime serve`, nothing said but the ports.

Refuses a server that does not say where it listens."""

import json
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache as once
from pathlib import Path

from benchmarks.load import Wrong
from benchmarks.serving_peers import EDGEKIT, Started, running

COMMAND = (sys.executable, "-m", "edgekit_runtime", "serve")
START = 60.0


@once
def knows(flag: str) -> bool:
    """Whether this `serve` has a flag."""
    told = subprocess.run([*COMMAND, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return flag in told


@contextmanager
def edgekit(words: Sequence[object], model: str, log: Path, grpc: bool = False) -> Iterator[Started]:
    """Serve `words` (bundles and options) by HTTP, or by gRPC too where only that is to be asked: it is off unless
    asked for, and its own threads take their share. Goes on as soon as the server has said where it listens.

    Raises:
        Wrong: it ended, or said nothing in time.
    """
    more = ["--grpc-port", "0"] if grpc else []
    command = [*COMMAND, *words, "--port", "0", *more, *(["--json"] if knows("--json") else [])]
    with running(command, log) as process:
        at = _addresses(_line(process, log))
        forms = {"grpc": at["grpc"]} if grpc else {"binary": at["http"], "json": at["http"]}
        yield Started(EDGEKIT, process, model, forms)


def _line(process: "subprocess.Popen[bytes]", log: Path) -> str:
    assert process.stdout is not None
    until = time.monotonic() + START
    while time.monotonic() < until:
        if select.select([process.stdout], [], [], 0.5)[0]:
            if line := process.stdout.readline():
                return line.decode()
            break
    raise Wrong(f"edgekit-runtime serve did not start: {log.read_text(errors='replace')[-500:]}")


def _addresses(line: str) -> dict[str, str]:
    """From the JSON line, or from the sentence: "host:port" by protocol."""
    found = json.loads(line) if line.startswith("{") else {"http": line}
    told = {key: re.search(r"127\.0\.0\.1:\d+", str(value)) for key, value in found.items()}
    return {key: match[0] for key, match in told.items() if match}

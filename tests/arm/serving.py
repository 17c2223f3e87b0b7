"""The runtime's HTTP server on an emulated core, asked from here over loopback as any client would.

Refuses to leave anything behind: the server ends with the block, and what it wrote with its folder."""

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.selftest import selftest
from edgekit_runtime.tensors import Array, Feeds

from edgekit.places.cores import CORES
from edgekit.places.emulated import command
from tests.waiting import until

NAMES = {"float32": "FP32"}
STARTS = 240.0
"""Seconds that an emulated server may take to start: its imports alone are ten on a quiet machine."""


@dataclass(frozen=True)
class Live:
    """Where it listens, and the process of the emulator."""

    url: str
    process: "subprocess.Popen[str]"

    def get(self, path: str) -> str:
        """What a GET gives."""
        with urllib.request.urlopen(self.url + path, timeout=120) as answer:
            text: str = answer.read().decode()
            return text

    def by_json(self, model: str, feeds: Feeds) -> Feeds:
        """An inference whose numbers go and come as JSON."""
        asked = {"inputs": [{**_head(name, value), "data": value.ravel().tolist()} for name, value in feeds.items()]}
        with self._post(model, json.dumps(asked).encode(), {}) as answer:
            told = json.load(answer)
        return {one["name"]: np.array(one["data"], np.float32).reshape(one["shape"]) for one in told["outputs"]}

    def by_bytes(self, model: str, feeds: Feeds) -> Feeds:
        """An inference whose numbers go and come as raw bytes after a head of JSON."""
        sent = {"parameters": {"binary_data_output": True}, "inputs": []}
        pieces = []
        for name, value in feeds.items():
            pieces.append(value.tobytes())
            sent["inputs"] += [{**_head(name, value), "parameters": {"binary_data_size": len(pieces[-1])}}]  # type: ignore[operator]
        head = json.dumps(sent).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        with self._post(model, b"".join([head, *pieces]), headers) as answer:
            body, cut = answer.read(), int(answer.headers["Inference-Header-Content-Length"])
        told, at, found = json.loads(body[:cut]), cut, {}
        for one in told["outputs"]:
            size = one["parameters"]["binary_data_size"]
            found[one["name"]] = np.frombuffer(body[at : at + size], np.float32).reshape(one["shape"])
            at += size
        assert at == len(body)
        return found

    def counted(self, metric: str, model: str) -> int:
        """The sum of a metric's lines for a model."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith(f"{metric}{{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if f'"{model}"' in line)

    def loaded(self) -> set[str]:
        """The compiled modules that the emulated Python has loaded."""
        maps = Path(f"/proc/{self.process.pid}/maps").read_text(encoding="utf-8")
        files = {Path(line.split()[-1]).name for line in maps.splitlines() if ".so" in line}
        return {name.partition(".")[0] for name in files}

    def _post(self, model: str, body: bytes, headers: dict[str, str]) -> Any:
        return urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/v2/models/{model}/infer", body, headers), timeout=120
        )


def within(bundle: Bundle, infer: Callable[[Feeds], Feeds]) -> None:
    """Fail unless the answers to all recorded inputs are the recorded ones, within the bundle's tolerance."""
    found = selftest(bundle, infer)
    assert found.passed, found


def say(core: str, code: str, scratch: Path) -> str:
    """What a few lines of Python print on a core."""
    start = command(CORES[core], scratch, ("module",))
    words = [*start.command[: start.command.index("-m")], "-c", code]
    done = subprocess.run(words, env={**start.environment}, capture_output=True, text=True, cwd=scratch, timeout=STARTS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(core: str, bundles: Sequence[Path], scratch: Path) -> Iterator[Live]:
    """`edgekit-runtime serve BUNDLES` on a core, with all that it needs below the empty folder `scratch`."""
    words = ("edgekit_runtime", "serve", *map(str, bundles), "--port", "0", "--json")
    start, said = command(CORES[core], scratch, words), scratch / "said"
    with said.open("w") as errors:
        process = subprocess.Popen(
            start.command, env={**start.environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            text=True, cwd=scratch,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, said.read_text()
        live = Live(json.loads(line)["http"], process)
        until(lambda: _ready(live), STARTS)
        yield live
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _ready(live: Live) -> bool:
    assert live.process.poll() is None, "the server ended"
    try:
        return live.get("/v2/health/ready") is not None
    except OSError:
        return False


def _head(name: str, value: Array) -> dict[str, Any]:
    return {"name": name, "datatype": NAMES[value.dtype.name], "shape": list(value.shape)}

"""What is measured beside requests a second: the first answer, memory, health under load, growth over many requests.

Refuses to go on after a wrong answer."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load import Load, Told, Wrong, ask
from benchmarks.serving_peers import HERE, Started, resident, running, wire
from benchmarks.serving_peers.generator import Generator, prepared
from benchmarks.serving_peers.models import ServedModel
from benchmarks.serving_peers.ours import edgekit, knows

MB = 2**20
NUMPY = "import numpy, sys; sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()"
PAUSE = 0.02


def first_answers(model: ServedModel, scratch: Path, rounds: int) -> list[tuple[float, float]]:
    """In turn (ms from the start of EdgeKit's process to its first answer, the same of the bare engine's)."""
    return [(_first_of_ours(model, scratch), _first_of_engine(model, scratch)) for _ in range(rounds)]


def _first_of_ours(model: ServedModel, scratch: Path) -> float:
    form = wire.FORMS["binary"]
    request, began = form.request(model.name, model.input, model.x), time.perf_counter()
    with edgekit([model.bundle], model.name, scratch / "first.log") as one:
        status, body = ask(one.at["binary"], request)
        taken = time.perf_counter() - began
    if status != 200 or not np.allclose(form.answer(body), model.y, rtol=1e-3, atol=1e-4):
        raise Wrong(f"the first answer: status {status}, {body[:200]!r}")
    return taken * 1e3


def _first_of_engine(model: ServedModel, scratch: Path) -> float:
    began = time.perf_counter()
    with running([sys.executable, HERE / "engine.py", model.onnx], scratch / "engine.log") as process:
        assert process.stdout is not None
        if not json.loads(process.stdout.readline())["ready"]:
            raise Wrong("the bare engine did not run")
        return (time.perf_counter() - began) * 1e3


@dataclass(frozen=True)
class Memory:
    """Resident bytes: of `import numpy`; of a server that listens and has answered, but opened no engine (None where
    this `serve` cannot go without a bundle); of the bare engine after a run; of a server after its first answers."""

    numpy: int
    before: int | None
    engine: int
    serving: int


def memory(model: ServedModel, scratch: Path) -> Memory:
    """Each in a fresh process."""
    with running([sys.executable, "-c", NUMPY], scratch / "numpy.log") as process:
        bare = _resident_when_ready(process)
    with running([sys.executable, HERE / "engine.py", model.onnx], scratch / "engine.log") as process:
        engine = _resident_when_ready(process)
    with edgekit([model.bundle], model.name, scratch / "serving.log") as one:
        for form in ("binary", "json"):
            _answered(one, wire.FORMS[form].request(model.name, model.input, model.x), {200})
        serving = one.rss
    return Memory(bare, _before(model, scratch), engine, serving)


def _before(model: ServedModel, scratch: Path) -> int | None:
    """A server of an empty repository, once it has answered what it can: nobody has asked for an engine."""
    if not knows("--repository"):
        return None
    (scratch / "empty").mkdir(exist_ok=True)
    with edgekit(["--repository", scratch / "empty"], "", scratch / "empty.log") as one:
        for path in ("/v2", "/v2/health/live", "/v2/models/none"):
            _answered(one, wire.get(path), {200, 404})
        for form in ("binary", "json"):
            _answered(one, wire.FORMS[form].request("none", model.input, model.x), {404})
        return one.rss


def _answered(one: Started, request: bytes, wanted: set[int]) -> None:
    status, body = ask(one.at["json"], request)
    if status not in wanted:
        raise Wrong(f"status {status}: {body[:200]!r}")


def _resident_when_ready(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout is not None
    process.stdout.readline()
    return resident(process.pid)


@dataclass(frozen=True)
class Health:
    """Latency of GET /v2/health/ready, and of the small model, on a connection each: with the server idle and with 8
    connections that keep the slow model busy; what the slow one reached; how long one run of it takes, in ms."""

    idle: Told
    loaded: Told
    other_idle: Told
    other_loaded: Told
    slow: Told
    slow_ms: float


def health(slow: ServedModel, small: ServedModel, scratch: Path, seconds: float) -> Health:
    """Three generators at once: the slow model's, health's and the small model's."""
    with edgekit([slow.bundle, small.bundle], slow.name, scratch / "health.log") as one, ThreadPoolExecutor(3) as pool:
        at = one.at["binary"]
        with Generator() as busy, Generator() as ready, Generator() as other:
            paths = [
                prepared(scratch, "slow", at, wire.FORMS["binary"].request(slow.name, slow.input, slow.x)),
                prepared(scratch, "ready", at, wire.get("/v2/health/ready")),
                prepared(scratch, "small", at, wire.FORMS["binary"].request(small.name, small.input, small.x)),
            ]

            def watch() -> list[Callable[[], Told]]:
                pairs = ((ready, paths[1]), (other, paths[2]))
                return [pool.submit(one.run, Load(at, *pair, 1, seconds, pause=PAUSE)).result for one, pair in pairs]

            idle = [one() for one in watch()]
            alone = busy.run(Load(at, *paths[0], 1, seconds / 2))
            full = pool.submit(busy.run, Load(at, *paths[0], 8, seconds + 1))
            time.sleep(0.5)
            loaded = [one() for one in watch()]
            return Health(idle[0], loaded[0], idle[1], loaded[1], full.result(), alone.p50)


@dataclass(frozen=True)
class Growth:
    """Resident bytes after each piece of `requests`; the slope in bytes a request, fitted to all but the first fifth,
    and by how much memory grew there, by that slope."""

    requests: int
    resident: tuple[int, ...]
    slope: float
    grown: float


def growth(model: ServedModel, scratch: Path, requests: int, pieces: int = 50) -> Growth:
    """Binary, JSON and refused requests in turn, on 8 connections."""
    with edgekit([model.bundle], model.name, scratch / "growth.log") as one, Generator() as generator:
        at, told = one.at["binary"], []
        wrong = wire.FORMS["binary"].request(model.name, "no-such-input", model.x)
        kinds = [
            (*prepared(scratch, "b", at, wire.FORMS["binary"].request(model.name, model.input, model.x)), 200),
            (*prepared(scratch, "j", at, wire.FORMS["json"].request(model.name, model.input, model.x)), 200),
            (*prepared(scratch, "w", at, wrong, 400), 400),
        ]
        for _ in range(pieces):
            for request, expected, status in kinds:
                count = requests // pieces // len(kinds)
                generator.run(Load(at, request, expected, 8, requests=count, status=status))
            told.append(one.rss)
    return Growth(requests, tuple(told), *_fitted(told, requests / pieces))


def _fitted(told: Sequence[int], each: float) -> tuple[float, float]:
    late = np.array(told[len(told) // 5 :], float)
    slope = float(np.polyfit(np.arange(len(late)) * each, late, 1)[0])
    return slope, slope * each * len(late)

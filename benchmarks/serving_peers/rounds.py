"""All contenders on one model, in turn: each round is one short load of each, at 1 and at 8 connections.

Refuses a wrong answer of anybody: a benchmark of wrong answers says nothing."""

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.load import Load, Told, Wrong, ask, ask_grpc
from benchmarks.serving_peers import ENGINE, HERE, Absent, Peer, Started, Tell, peer, running, wire
from benchmarks.serving_peers.generator import Generator
from benchmarks.serving_peers.models import ServedModel
from benchmarks.serving_peers.ours import edgekit, knows

CONNECTIONS = (1, 8)
Cell = tuple[str, str, int]
"""Who, in which form, on how many connections."""


@dataclass(frozen=True)
class Ratio:
    """One contender's rate (or time) in parts of another's: the median of the rounds, and the least and the most."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Measured:
    """What each cell was told in each round, the microseconds of processor that a request took the server, all its
    processes together, and who is absent."""

    cells: Mapping[Cell, Sequence[Told]]
    cpu: Mapping[Cell, Sequence[float]]
    absent: tuple[Absent, ...]

    def rates(self, cell: Cell, other: Cell) -> Ratio | None:
        """Requests a second, this to that, round by round; None where one was not measured."""
        return _ratio([one.rate for one in self.cells.get(cell, ())], [one.rate for one in self.cells.get(other, ())])

    def work(self, cell: Cell, other: Cell) -> Ratio | None:
        """Requests by a second of processor, this to that: what a busy machine disturbs less."""
        return _ratio(self.cpu.get(other, ()), self.cpu.get(cell, ()))

    def times(self, cell: Cell, other: Cell) -> Ratio | None:
        """Median latencies, this to that."""
        return _ratio([one.p50 for one in self.cells.get(cell, ())], [one.p50 for one in self.cells.get(other, ())])


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    if not ours or not theirs:
        return None
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found), len(found))


def measure(
    model: ServedModel, peers: Sequence[Peer], rounds: int, seconds: float, scratch: Path, tell: Tell
) -> Measured:
    """Start them all, check one answer of each, then take turns."""
    with ExitStack() as stack:
        generator, engine = stack.enter_context(Generator()), stack.enter_context(_engine(model, scratch))
        started, absent = _started(stack, model, peers, scratch, tell)
        loads = [(one, form, _checked(one, form, model, scratch, seconds)) for one in started for form in one.at]
        cells: dict[Cell, list[Told]] = {}
        cpu: dict[Cell, list[float]] = {}
        for turn in range(rounds):
            tell(f"{model.title}: round {turn + 1} of {rounds}")
            for count in CONNECTIONS:  # what is compared is near in time: all at 1, then all at 8
                cells.setdefault((ENGINE, "in process", count), []).append(engine(seconds))
                for one, form, load in loads:
                    cell, before = (one.title, "json" if form == "bentoml" else form, count), one.cpu
                    told = generator.run(replace(load, connections=count))
                    cells.setdefault(cell, []).append(told)
                    cpu.setdefault(cell, []).append((one.cpu - before) / told.answered * 1e6)
    return Measured(cells, cpu, tuple(absent))


def _started(
    stack: ExitStack, model: ServedModel, peers: Sequence[Peer], scratch: Path, tell: Tell
) -> tuple[list[Started], list[Absent]]:
    grpc = knows("--grpc-port")
    started, absent = [stack.enter_context(edgekit([model.bundle], model.name, scratch / "edgekit.log"))], []
    if grpc:
        started.append(stack.enter_context(edgekit([model.bundle], model.name, scratch / "edgekit-grpc.log", grpc)))
    else:
        absent.append(Absent("EdgeKit gRPC", "this serve has no --grpc-port"))
    for index, one in enumerate(peers):
        tell(f"{model.title}: starting {one.title}")
        found = stack.enter_context(peer(one, model, scratch / f"{model.name}-{index}.log", tell))
        if isinstance(found, Started):
            started.append(found)
        else:
            absent.append(found)
            tell(f"{found.title} is absent: {found.why}")
    return started, absent


def _checked(one: Started, form: str, model: ServedModel, scratch: Path, seconds: float) -> Load:
    """A load of a request whose answer is, within float's rounding, the bare engine's."""
    wired, at = wire.FORMS[form], one.at[form]
    request = wired.request(one.model, model.input, model.x)
    status, body = (200, ask_grpc(at, wired.method, request)) if wired.method else ask(at, request)
    if status != 200:
        raise Wrong(f"{one.title}, {wired.title}: status {status}, {body[:300]!r}")
    answer = wired.answer(body)
    if answer.shape != model.y.shape or not np.allclose(answer, model.y, rtol=1e-3, atol=1e-4):
        raise Wrong(f"{one.title}, {wired.title}: it answers {answer.ravel()[:5]}, the engine {model.y.ravel()[:5]}")
    stem = f"{model.name}-{one.title}-{form}".replace(" ", "").replace("/", "")
    for end, data in (("request", request), ("expected", body)):
        (scratch / f"{stem}.{end}").write_bytes(data)
    sent, expected = (str(scratch / f"{stem}.{end}") for end in ("request", "expected"))
    return Load(at, sent, expected, seconds=seconds, method=wired.method)


@contextmanager
def _engine(model: ServedModel, scratch: Path) -> Iterator[Callable[[float], Told]]:
    """A process that runs the model in a loop for as many seconds as it is told."""
    with running([sys.executable, HERE / "engine.py", model.onnx], scratch / "engine.log") as process:
        read, write = process.stdout, process.stdin
        assert read is not None
        assert write is not None
        read.readline()

        def run(seconds: float) -> Told:
            write.write(f"{seconds}\n".encode())
            return Told(**json.loads(read.readline()))

        yield run

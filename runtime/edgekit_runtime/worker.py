"""Runs artifacts for a build that is elsewhere: messages in on stdin, answers out on stdout, nothing else there.

Refuses files outside its scratch folder, artifacts that nobody opened, what `frames` refuses. Ends with its stdin."""

import argparse
import os
import queue
import resource
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from edgekit_runtime import __version__
from edgekit_runtime.detect import detect
from edgekit_runtime.endurance import endure, parse_course
from edgekit_runtime.engines import EngineOptions, open_model, parse_options
from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound
from edgekit_runtime.footprint import measure
from edgekit_runtime.frames import Message, pack, read
from edgekit_runtime.manifest import port_from_json
from edgekit_runtime.ports import Port, connect
from edgekit_runtime.tensors import Feeds, Runner

PROTOCOL = 1
WARM, ROUNDS, LONGEST = 3, 10, 3600.0
"""Runs before the clock, the least rounds on it, and the most seconds that may be asked of it."""


@dataclass(frozen=True)
class Opened:
    """An artifact that is open: `run` takes the tensors of `inputs`, or its own where there are no ports."""

    engine: str
    path: Path
    options: EngineOptions
    inputs: tuple[Port, ...] | None
    run: Runner


@dataclass(frozen=True)
class Session:
    """What is open, by the name that the build gave it, where files may be put, and where /proc and /sys are."""

    scratch: Path | None
    machine: Path = Path("/")
    opened: dict[str, Opened] = field(default_factory=dict)

    def find(self, name: str) -> Opened:
        """The artifact opened as `name`."""
        if name not in self.opened:
            raise NotFound(f"no artifact {name!r} is open", hint="open it first")
        return self.opened[name]

    def place(self, file: str) -> Path:
        """Where in the scratch folder `file` goes."""
        parts = PurePosixPath(file).parts
        if self.scratch is None or not parts or parts[0] == "/" or ".." in parts:
            raise BadRequest(f"{file!r} is not a place for a file here", hint="name a file below the scratch folder")
        return self.scratch.joinpath(*parts)


def serve(
    messages: Iterator[Message],
    send: Callable[[Message], None],
    scratch: Path | None = None,
    machine: Path = Path("/"),
) -> None:
    """Say hello, then answer each message until there are no more; a long run has an answer for each interval."""
    session = Session(scratch, machine)
    facts = {**detect(), "numpy": np.__version__, "runtime": __version__}
    send(Message({"do": "hello", "protocol": PROTOCOL, "facts": facts}))
    for message in messages:
        try:
            for answer in _answer(session, message):
                send(answer)
        except EdgeKitError as error:
            send(Message({"do": "error", "kind": type(error).__name__, "what": error.what, "hint": error.hint}))
        except Exception as error:  # an engine's own errors, of any class, and bugs: told, and the worker lives on
            traceback.print_exc()
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            send(Message({"do": "error", "kind": "EdgeKitError", "what": what, "hint": ""}))


def _answer(session: Session, message: Message) -> Iterator[Message]:
    verb = VERBS.get(str(message.head.get("do")))
    if verb is None:
        raise BadRequest(f"no such request: {message.head.get('do')!r}", hint=f"send one of {', '.join(VERBS)}")
    try:
        answer = verb(session, message.head, message.arrays)
        yield from (answer,) if isinstance(answer, Message) else answer
    except KeyError as error:
        raise BadRequest(f"a request without {error.args[0]!r}") from error


def _put(session: Session, head: Any, arrays: Feeds) -> Message:
    """A piece of a file: the first makes it, `more` ones go to its end."""
    path = session.place(head["file"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if head["more"] else "wb") as file:
        file.write(arrays["bytes"].tobytes())
    return Message({"do": "put"})


def _open(session: Session, head: Any, arrays: Feeds) -> Message:
    """Open `path` (below the scratch folder where `put` made it) by `engine`, with ports or on its own tensors."""
    path = session.place(head["path"]) if head.get("was_put") else Path(head["path"])
    options, inputs = parse_options(head["options"]), None
    run = open_model(head["engine"], path, options)
    if "inputs" in head:
        inputs, outputs = (tuple(map(port_from_json, head[side])) for side in ("inputs", "outputs"))
        run = connect(run, inputs, outputs)
    session.opened[head["name"]] = Opened(head["engine"], path, options, inputs, run)
    return Message({"do": "opened"})


def _shut(session: Session, head: Any, arrays: Feeds) -> Message:
    """Forget an artifact, and the folder that it was put into."""
    session.opened.pop(head["name"], None)
    if "folder" in head:
        shutil.rmtree(session.place(head["folder"]), ignore_errors=True)
    return Message({"do": "shut"})


def _infer(session: Session, head: Any, arrays: Feeds) -> Message:
    return Message({"do": "answer"}, session.find(head["name"]).run(arrays))


def _time(session: Session, head: Any, arrays: Feeds) -> Message:
    """Milliseconds of each run of each artifact, in turn on the same feeds for `seconds`; round by round."""
    runners = {name: session.find(name).run for name in head["names"]}
    seconds = float(head["seconds"])
    if not runners or not 0 <= seconds <= LONGEST:
        raise BadRequest(f"timing {len(runners)} artifacts for {seconds} s", hint=f"ask for at most {LONGEST:.0f} s")
    for run in runners.values():
        for _ in range(WARM):
            run(arrays)
    taken: dict[str, list[float]] = {name: [] for name in runners}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(taken.values()))) < ROUNDS:
        for name, run in runners.items():
            start = time.perf_counter()
            run(arrays)
            taken[name].append((time.perf_counter() - start) * 1000)
    return Message({"do": "timed"}, {name: np.array(times) for name, times in taken.items()})


def _endure(session: Session, head: Any, arrays: Feeds) -> Iterator[Message]:
    """What each interval of a long run took, as it ends; then that it is over."""
    one = session.find(head["name"])
    for told, taken in endure(lambda: one.run(arrays), parse_course(head), session.machine):
        yield Message(told, {"ms": taken})
    yield Message({"do": "endured"})


def _footprint(session: Session, head: Any, arrays: Feeds) -> Message:
    """Peak memory and start-up time of an artifact in a fresh process here."""
    one = session.find(head["name"])
    inside = arrays
    if one.inputs is not None:
        inside = {port.inside.name: port.inward(arrays[port.spec.name]) for port in one.inputs}
    return Message({"do": "measured", "measured": measure(one.engine, one.path, inside, one.options)})


VERBS: dict[str, Callable[[Session, Any, Feeds], Message | Iterator[Message]]] = {
    "put": _put, "open": _open, "shut": _shut, "infer": _infer, "time": _time, "footprint": _footprint,
    "endure": _endure,
}  # fmt: skip


def _arriving(stream: BinaryIO) -> Iterator[Message]:
    """The messages of the stream. Its end ends the process, even amid an inference: nobody waits for the answer."""
    come: queue.SimpleQueue[Message | EdgeKitError] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while (message := read(stream)) is not None:
                come.put(message)
        except EdgeKitError as error:
            come.put(error)
            return
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        message = come.get()
        if isinstance(message, EdgeKitError):
            raise message
        yield message


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """stdin and stdout for messages alone: whatever else reads finds nothing, whatever prints goes to stderr."""
    sys.stdout.flush()
    source, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, out


def main() -> int:
    """`python -m edgekit_runtime.worker`: serve until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m edgekit_runtime.worker", description=main.__doc__)
    parser.add_argument("--scratch", type=Path, help="where files may be put")
    parser.add_argument("--machine", type=Path, default=Path("/"), help="where /proc and /sys are")
    given = parser.parse_args()
    source, out = _own_streams()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an engine that crashes is told of, not dumped

    def send(message: Message) -> None:
        out.write(pack(message))
        out.flush()

    try:
        serve(_arriving(source), send, given.scratch, given.machine)
    except EdgeKitError as error:  # after bytes that are no message nothing can be told apart any more
        send(Message({"do": "error", "kind": type(error).__name__, "what": error.what, "hint": error.hint}))
    return 1


if __name__ == "__main__":
    sys.exit(main())

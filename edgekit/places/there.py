"""A worker at a place, and what can be asked of it: the machine's facts, a runner, times, memory.

Refuses times and memory of emulated places, which are no device's; a worker that dies or hangs becomes an error."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime import errors
from edgekit_runtime.engines import EngineOptions, options_json
from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound, Unsupported
from edgekit_runtime.frames import Message, pack, read
from edgekit_runtime.manifest import port_to_json
from edgekit_runtime.tensors import Feeds, Runner

from edgekit.model import Artifact, Tell
from edgekit.places import Place

PROTOCOL = 1
TIMEOUT = 600.0
"""Seconds that a worker may take to start, and to answer."""
PIECE = 2**24
"""Bytes of a file that travel at once."""
OPEN = 4
"""Artifacts kept open at once: a search tries dozens, a device has little memory."""
KINDS = {kind.__name__: kind for kind in (EdgeKitError, BadRequest, NotFound, errors.BadBundle, Unsupported)}
DISTRIBUTIONS = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "ai-edge-litert"}


class There:
    """A worker that is up. `machine` holds what `edgekit_runtime.detect` says there. For one thread at a time."""

    def __init__(self, place: Place, process: "subprocess.Popen[bytes]", said: Path, options: EngineOptions) -> None:
        self.place, self.options, self.timeout = place, options, TIMEOUT
        self.machine: Mapping[str, Any] = {}
        self._process, self._said = process, said
        self._open: dict[Artifact, str] = {}
        self._count = 0

    def runner(self, artifact: Artifact) -> Runner:
        """The artifact as a function on the user's tensors, run there, integers seen as real numbers.

        Raises:
            NotFound: its engine is not installed there.
            Unsupported: the engine cannot run it there.
        """
        self._opened(artifact)

        def run(feeds: Feeds) -> Feeds:
            answer = self._ask({"do": "infer", "name": self._opened(artifact)}, feeds).arrays
            self._refuse_nothing(artifact, feeds, answer)
            return answer

        return run

    def time(self, artifacts: Mapping[str, Artifact], feeds: Feeds, seconds: float = 2.0) -> dict[str, list[float]]:
        """Milliseconds of each run, by name, in turn on the same feeds; the n-th of each is of the same round.

        Raises:
            Unsupported: this is no device.
        """
        self._device("times")
        names = {name: self._opened(artifact, len(artifacts)) for name, artifact in artifacts.items()}
        asked = {"do": "time", "names": list(names.values()), "seconds": seconds}
        taken = self._ask(asked, feeds, self.timeout + seconds).arrays
        return {name: [float(ms) for ms in taken[handle]] for name, handle in names.items()}

    def footprint(self, artifact: Artifact, feeds: Feeds) -> dict[str, float]:
        """`peak_mb`, `engine_mb`, `load_s`, `first_s` of a fresh process there. Refused as `time` is."""
        self._device("memory")
        found = self._ask({"do": "footprint", "name": self._opened(artifact)}, feeds).head["measured"]
        return {key: float(value) for key, value in found.items()}

    def close(self) -> None:
        """End the worker; what it left behind is removed by whoever started it."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5 if self.place.kind == "device" else 0.5)
        except subprocess.TimeoutExpired:
            _kill(self._process)
        if self._process.stdout:
            self._process.stdout.close()

    def greet(self, before: bytes) -> None:
        """Hand over what the worker is started with, and wait for its hello."""
        hello = self._exchange(before, self.timeout)
        if hello.head.get("do") != "hello" or hello.head.get("protocol") != PROTOCOL:
            raise EdgeKitError(f"{self.place.words}: a worker of another version answered", hint="update EdgeKit")
        self.machine = hello.head["facts"]

    def _device(self, what: str) -> None:
        if self.place.kind == "emulated":
            raise Unsupported(
                f"{self.place.words}: emulated {what} are no device's",
                hint="measure on the device: --measure-on ssh://user@host",
            )

    def _refuse_nothing(self, artifact: Artifact, feeds: Feeds, answer: Feeds) -> None:
        """OpenVINO 2026.4 answers int8 files of a free batch with empty arrays on ARM cores without dot product."""
        empty = [name for name, value in answer.items() if not value.size]
        if empty and all(value.size for value in feeds.values()):
            raise Unsupported(
                f"{self.place.words}: {artifact.format} {artifact.precision} answers nothing at {', '.join(empty)}",
                hint="this engine cannot run such a file on this CPU: try another --format or --precision",
            )

    def _opened(self, artifact: Artifact, at_once: int = 1) -> str:
        """The name by which the artifact is open there; opened now if need be, in place of the one unused longest."""
        artifact = artifact.in_floats()
        if artifact in self._open:
            self._open[artifact] = self._open.pop(artifact)
            return self._open[artifact]
        engines = self.machine.get("engines", {})
        if artifact.format not in engines:
            raise NotFound(
                f"{self.place.words} has no engine for {artifact.format} (it has {', '.join(engines) or 'none'})",
                hint=f"on it: python3 -m pip install {DISTRIBUTIONS.get(artifact.format, artifact.format)}",
            )
        while len(self._open) >= max(OPEN, at_once):
            name = self._open.pop(next(iter(self._open)))
            self._ask({"do": "shut", "name": name, **({"folder": name} if self.place.kind == "device" else {})})
        name, self._count = f"artifact-{self._count}", self._count + 1
        path = str(artifact.path.resolve())
        if self.place.kind == "device":
            self._carry(artifact, name)
            path = f"{name}/{artifact.path.name}"
        sides = {"inputs": artifact.inputs, "outputs": artifact.outputs}
        asked = {
            "do": "open",
            "name": name,
            "engine": artifact.format,
            "path": path,
            "options": options_json(self.options),
        }
        ports = {side: [port_to_json(port) for port in ports] for side, ports in sides.items()}
        self._ask({**asked, **ports, "was_put": self.place.kind == "device"})
        self._open[artifact] = name
        return name

    def _carry(self, artifact: Artifact, folder: str) -> None:
        """Bring the artifact's files over, piece by piece."""
        for path in artifact.files():
            file = f"{folder}/{path.relative_to(artifact.path.parent).as_posix()}"
            with path.open("rb") as source:
                piece, more = source.read(PIECE), False
                while piece or not more:
                    array = np.frombuffer(piece, np.uint8)
                    self._ask({"do": "put", "file": file, "more": more}, {"bytes": array})
                    piece, more = source.read(PIECE), True

    def _ask(self, head: Mapping[str, Any], arrays: Feeds | None = None, timeout: float | None = None) -> Message:
        """The answer to a request; an error there is raised here."""
        answer = self._exchange(pack(Message(head, arrays or {})), timeout or self.timeout)
        if answer.head.get("do") == "error":
            kind = KINDS.get(str(answer.head.get("kind")), EdgeKitError)
            raise kind(f"{self.place.words}: {answer.head.get('what')}", hint=str(answer.head.get("hint", "")))
        return answer

    def _exchange(self, sent: bytes, timeout: float) -> Message:
        """Send bytes and read one message, within `timeout` seconds: then the worker is killed, and that is told."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            _kill(self._process)

        watch = threading.Timer(timeout, give_up)
        watch.daemon = True
        watch.start()
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.write(sent)
                self._process.stdin.flush()
            answer = read(self._process.stdout)  # type: ignore[arg-type]
        except BadRequest as error:
            answer = None
            if not late.is_set() and "ended in the middle" not in error.what:
                raise EdgeKitError(
                    f"{self.place.words}: {error.what} came in place of an answer",
                    hint="nothing but the worker may write there: silence what the login shell prints",
                ) from error
        finally:
            watch.cancel()
        if late.is_set():
            _kill(self._process)
            raise EdgeKitError(
                f"{self.place.words}: no answer within {timeout:.0f} s", hint="try a smaller model or fewer samples"
            )
        if answer is None:
            raise self._died()
        return answer

    def _died(self) -> EdgeKitError:
        """Why there is no answer: what the place makes of it, else the last line that the worker said."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        _kill(self._process)
        status = self._process.returncode
        said = self._said.read_text(encoding="utf-8", errors="replace")
        if (explained := self.place.explain(status, said)) is not None:
            return explained
        lines = [line.strip() for line in said.splitlines() if line.strip() and "TCG doesn't support" not in line]
        ended = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return EdgeKitError(
            f"{self.place.words}: the worker ended: {lines[-1][:240] if lines else ended}",
            hint="try again; if it ends again, try another --format",
        )


@contextmanager
def open_at(place: Place, options: EngineOptions, tell: Tell) -> Iterator[There]:
    """A worker at the place, its engines run as `options` say; ended afterwards, with nothing left behind.

    Raises:
        EdgeKitError: it does not start; says why.
    """
    tell(f"starting a worker on {place.words}")
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        scratch, said = Path(folder) / "scratch", Path(folder) / "said"
        scratch.mkdir()
        start = place.start(scratch)
        with said.open("wb") as errors_of_it:
            process = _launched(start.command, {**start.environment} or None, errors_of_it.fileno(), folder)
        there = There(place, process, said, options)
        try:
            there.greet(start.before)
            yield there
        finally:
            there.close()


def _launched(
    command: tuple[str, ...], environment: Mapping[str, str] | None, said: int, folder: str
) -> "subprocess.Popen[bytes]":
    """In a session of its own: Ctrl-C is for us, who then end it."""
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise EdgeKitError(f"{command[0]} does not start: {error.strerror}", hint="install it again") from error


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the session that was launched."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

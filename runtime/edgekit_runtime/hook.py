"""A command of the operator's, run when a model drifts: not by a shell, one at a time, not often, never for long.

Refuses a command that does not read or is not there; one that hangs is killed with all that it started."""

import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family, Sample

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("edgekit_runtime.hook")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a command without a slash is looked for, here and by itself: the one that systemd gives its services."""
KEPT = 2000
"""Bytes of the command's output that go into the log."""
LONGEST = 4000
"""Characters of a variable."""
PIECE = 65536
TICK_MS = 50
OUTCOMES = {
    "ok": "ended with exit code 0",
    "failed": "ended with another exit code or by a signal",
    "timeout": "did not end in time and was killed",
    "not_started": "could not be started",
    "superseded": "was not run: a later state of the model came first",
}


class Hook:
    """Runs `command` for the latest state of each model. Nothing of it waits for the command but its own thread.

    `least_seconds` lie between two runs, whatever they tell of; `seconds` is how long one may take.

    Raises:
        EdgeKitError: the command does not read, or is not there.
    """

    def __init__(self, command: str, least_seconds: float = 60.0, seconds: float = 30.0) -> None:
        self.words = _words(command)
        self._least, self._seconds = least_seconds, seconds
        self._changed = threading.Condition()
        self._next: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._closing = False
        self._thread: threading.Thread | None = None
        self._counts = dict.fromkeys(OUTCOMES, 0)

    def fire(self, facts: Mapping[str, Any]) -> None:
        """Have the command told `facts` soon; returns at once. They are JSON on its stdin; their `event`, `model`
        and `features` (in alarm) are variables as well."""
        with self._changed:
            if self._closing:
                return
            model = (str(facts.get("model", "")), str(facts.get("version", "")))
            if self._next.pop(model, None) is not None:
                self._counts["superseded"] += 1
            self._next[model] = facts
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="hook", daemon=True)
                self._thread.start()
            self._changed.notify()

    def families(self) -> list[Family]:
        """How the runs ended so far."""
        words = "Runs of the command given with --on-drift, by how they ended."
        counts = tuple(Sample(count, (("outcome", outcome),)) for outcome, count in self._counts.items())
        return [Family("edgekit_hook_runs_total", "counter", words, counts)]

    def close(self) -> None:
        """Run nothing more, and kill what runs."""
        with self._changed:
            self._closing = True
            self._next.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2.0)

    def _work(self) -> None:
        last = -self._least
        while True:
            with self._changed:
                while not self._closing and (not self._next or (left := last + self._least - time.monotonic()) > 0):
                    self._changed.wait(left if self._next else None)
                if self._closing:
                    return
                facts = self._next.pop(next(iter(self._next)))
            last = time.monotonic()
            try:
                outcome, told = self._run(facts)
            except Exception as error:  # the thread's edge: facts that cannot be told end this run, not the next
                outcome, told = "not_started", str(error)
            if self._closing:
                return
            self._counts[outcome] += 1
            if outcome != "ok":
                log.warning("the command for drift %s%s", OUTCOMES[outcome], f": {told}" if told else "")
            else:
                log.info("the command for drift %s%s", OUTCOMES[outcome], f": {told}" if told else "")

    def _run(self, facts: Mapping[str, Any]) -> tuple[str, str]:
        """Run it once; how it ended, and the end of what it printed."""
        import subprocess

        try:
            child = subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_variables(facts),
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return "not_started", str(error)
        output = bytearray()
        try:
            ended = self._attend(child, bytearray(json.dumps(_plain(facts)).encode()), output)
        finally:
            _kill(child)
        told = bytes(output[-KEPT:]).decode(errors="replace").strip()
        if not ended:
            return "timeout", told
        return ("ok", told) if child.returncode == 0 else ("failed", f"exit code {child.returncode} {told}".strip())

    def _attend(self, child: "subprocess.Popen[bytes]", told: bytearray, output: bytearray) -> bool:
        """Tell and hear the child until it ends; False where its time is over first."""
        import select

        assert child.stdin is not None
        assert child.stdout is not None
        waiting, deadline = select.poll(), time.monotonic() + self._seconds
        os.set_blocking(child.stdin.fileno(), False)
        os.set_blocking(child.stdout.fileno(), False)
        waiting.register(child.stdout, select.POLLIN)
        waiting.register(child.stdin, select.POLLOUT)
        heard = True
        while heard or not _ended(child):
            if time.monotonic() > deadline or self._closing:
                return False
            ready = dict(waiting.poll(TICK_MS))
            if child.stdin is not None and child.stdin.fileno() in ready and not _tell(child.stdin.fileno(), told):
                waiting.unregister(child.stdin)
                child.stdin.close()
                child.stdin = None
            heard = child.stdout.fileno() in ready and _hear(child.stdout.fileno(), output)
            if not heard and child.stdout.fileno() in ready:
                time.sleep(TICK_MS / 1000)  # it closed its output and goes on: asking again would not wait
        return True


def _words(command: str) -> list[str]:
    import shutil

    try:
        words = shlex.split(command)
    except ValueError as error:
        hint = "quote it as for a shell: --on-drift '/usr/local/bin/tell --to me'"
        raise EdgeKitError(f"the command {command!r} does not read: {error}", hint=hint) from error
    if not words:
        raise EdgeKitError("the command for drift is empty", hint="name a program: --on-drift /usr/local/bin/tell")
    found = shutil.which(words[0], path=PATH)
    if found is None:
        there = Path(words[0]).is_file()
        hint = f"chmod +x {words[0]}" if there else "give the whole path of a program, without a shell's ; | or >"
        raise EdgeKitError(f"no command {words[0]!r} that can be run", hint=hint)
    return [os.path.abspath(found), *words[1:]]


def _variables(facts: Mapping[str, Any]) -> dict[str, str]:
    features = facts.get("features") or ()
    named = features if isinstance(features, str) else ",".join(map(str, features))
    told = {"EVENT": facts.get("event", ""), "MODEL": facts.get("model", ""), "FEATURES": named}
    clean = {key: "".join(c if c.isprintable() else "?" for c in str(value)[:LONGEST]) for key, value in told.items()}
    return {"PATH": PATH, "LANG": "C.UTF-8", **{f"EDGEKIT_{key}": value for key, value in clean.items()}}


def _plain(value: Any) -> Any:
    """`value` in what JSON has; numbers that are none become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _tell(stdin: int, told: bytearray) -> bool:
    """Write what the pipe takes; False where all is said, or nobody listens."""
    try:
        del told[: os.write(stdin, told[:PIECE])]
    except BlockingIOError:
        return True
    except OSError:
        return False
    return bool(told)


def _hear(stdout: int, output: bytearray) -> bool:
    """Read what is there, keep the end; False where nothing comes any more."""
    try:
        piece = os.read(stdout, PIECE)
    except BlockingIOError:
        return True
    output += piece
    del output[:-KEPT]
    return bool(piece)


def _ended(child: "subprocess.Popen[bytes]") -> bool:
    """Whether it has; it is not reaped yet, so its number still stands for its group alone."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End it with what it left behind."""
    import contextlib
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    child.wait()

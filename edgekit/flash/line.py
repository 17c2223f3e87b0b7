"""The line to a device: one connection of the system's own ssh, shared by all that is done there.

Refuses to ask for a password or to take an unknown host; holds back what a device says beyond a limit."""

import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from edgekit_runtime.errors import EdgeKitError

from edgekit.places.over_ssh import QUIETLY, over_ssh

MOST = 16 * 2**20
"""Bytes of an answer."""
LONG = 900.0
"""Seconds that a step may take where nobody watches it."""
AGAIN = "run the same again: it goes on where it stopped"
LONGEST = 16_000
"""Letters of a line that are shown: a line of the journal as JSON fits."""
_TAIL = 2**17
"""Bytes of what is said beside the answer that are kept, and of the longest line."""


@dataclass(frozen=True)
class Done:
    """How a command on the device ended: its status, what it printed, what it said beside that."""

    status: int
    out: bytes
    err: str

    def last(self) -> str:
        """The last line that it said, in letters that can be shown."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return "".join(letter if letter.isprintable() else "?" for letter in (lines or ["it said nothing"])[-1][:300])


@dataclass(frozen=True)
class Line:
    """An open connection. `before` are the words that make a command root's, where that takes any."""

    where: str
    ssh: tuple[str, ...]
    explain: Callable[[int, str], EdgeKitError | None]
    before: tuple[str, ...] = ()

    def as_root(self, before: tuple[str, ...]) -> "Line":
        """The same line, with these words before each command."""
        return replace(self, before=before)

    def run(self, script: str, send: Iterable[bytes] = (), seconds: float = LONG) -> Done:
        """Run a shell script there, with `send` on its standard input.

        Raises:
            EdgeKitError: the connection was lost, it took too long, or it printed without an end.
        """
        out = bytearray()

        def keep(piece: bytes) -> None:
            out.extend(piece)
            if len(out) > MOST:
                raise EdgeKitError(f"{self.where} answers without an end", hint=f"look at it yourself: {self._look()}")

        status, err = self._run(script, send, keep, seconds)
        return Done(status, bytes(out), err)

    def follow(
        self, script: str, tell: Callable[[str], None], send: Iterable[bytes] = (), seconds: float = 4 * LONG
    ) -> Done:
        """Run a script and tell each line that it prints when it comes; `out` of the answer is all of it, up to a
        limit. Raises as `run` does."""
        kept, rest = bytearray(), b""

        def each(piece: bytes) -> None:
            nonlocal rest
            if len(kept) < MOST:
                kept.extend(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in [*lines, rest] if len(rest) > _TAIL else lines:
                tell(printable(line))
            rest = b"" if len(rest) > _TAIL else rest

        status, err = self._run(script, send, each, seconds)
        if rest:
            tell(printable(rest))
        return Done(status, bytes(kept), err)

    def _run(
        self, script: str, send: Iterable[bytes], take: Callable[[bytes], None], seconds: float
    ) -> tuple[int, str]:
        words = [*self.before, "sh", "-c", script]
        command = [*self.ssh, f"exec {shlex.join(words)}"]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
            late = threading.Timer(seconds, process.kill)
            late.start()
            try:
                _exchange(process, send, take)
                status = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                over = not late.is_alive()
                late.cancel()
            said.seek(max(0, said.seek(0, 2) - _TAIL))
            err = said.read().decode(errors="replace")
        if over and status < 0:
            raise EdgeKitError(f"{self.where} did not end what it was told within {seconds:.0f} s", hint=AGAIN)
        if status == 255 or status < 0:
            raise self._lost(status, err)
        return status, err

    def _lost(self, status: int, err: str) -> EdgeKitError:
        """What is told of a connection that ended."""
        known = self.explain(255, err)
        if known is not None and "cannot be reached" not in known.what:
            return known
        why = Done(status, b"", err).last() if err.strip() else "ssh ended"
        return EdgeKitError(f"the connection to {self.where} was lost: {why}", hint=AGAIN)

    def _look(self) -> str:
        return f"ssh {self.where.partition(':')[0]}"


def _exchange(process: "subprocess.Popen[bytes]", send: Iterable[bytes], take: Callable[[bytes], None]) -> None:
    """Write and read at once: neither side waits for the other for ever."""
    assert process.stdin is not None
    assert process.stdout is not None
    failed: list[BaseException] = []
    writer = threading.Thread(target=_write, args=(process.stdin, send, failed), daemon=True)
    writer.start()
    while piece := process.stdout.read1(65536):  # type: ignore[attr-defined]
        take(piece)
    process.wait()
    writer.join(10)
    if failed:
        raise failed[0]


def _write(to: IO[bytes], send: Iterable[bytes], failed: list[BaseException]) -> None:
    try:
        for piece in send:
            to.write(piece)
        to.close()
    except BrokenPipeError:
        pass  # the status and what it said tell why
    except BaseException as error:
        failed.append(error)  # raised by who reads
    finally:
        with suppress(OSError):
            to.close()


@contextmanager
def connected(url: str, config: Path | None = None) -> Iterator[Line]:
    """The line to `ssh://[user@]host[:port]`, by the ssh configuration `config` or the user's own.

    Raises:
        EdgeKitError: the address does not read, or the device does not let us in; says what to do.
    """
    place = over_ssh(url, config)
    parts = urlsplit(url)
    if parts.path not in ("", "/"):
        raise EdgeKitError(
            f"{url!r} names a path", hint="write ssh://user@host[:port]; folders are --device and --prefix"
        )
    folder = Path(tempfile.mkdtemp(prefix="edgekit-"))  # short: a socket's path may have 100 letters
    own = ("-o", f"ControlPath={folder}/line", *(("-F", str(config)) if config else ()))
    port = ("-p", str(parts.port)) if parts.port else ()
    user = ("-l", parts.username) if parts.username else ()
    to = (*QUIETLY, *port, *user, "--", parts.hostname or "")
    try:
        master = _master(("ssh", "-o", "ControlMaster=yes", *own, "-N", *to), folder, place.explain)
        try:
            yield Line(place.words, ("ssh", "-o", "ControlMaster=no", *own, *to), place.explain)
        finally:
            master.terminate()
            with suppress(subprocess.TimeoutExpired):
                master.wait(10)
            master.kill()
            master.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _master(
    command: tuple[str, ...], folder: Path, explain: Callable[[int, str], EdgeKitError | None]
) -> "subprocess.Popen[bytes]":
    """The process that holds the connection, once it is there."""
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if (folder / "line").exists():
            return process
        time.sleep(0.02)
    process.kill()
    status = process.wait()
    said_text = (folder / "said").read_text(errors="replace")
    wrong = explain(255 if status in (0, 255) or status < 0 else status, said_text)
    raise wrong or EdgeKitError(f"ssh ended with {status}: {Done(status, b'', said_text).last()}", hint="see `ssh -v`")


def printable(line: bytes) -> str:
    """A line of a device, without what would move a terminal's cursor."""
    text = line.decode(errors="replace").rstrip("\r")
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in text[:LONGEST])

"""The server of a device folder as other programs see it: whether it runs, what it serves, how it is told of a change.

Refuses a second server on one folder. What a server that was killed left behind is not believed: its lock is gone."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgekit_runtime.disk import REAL, make_folder, plain_errors, replace
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.held import sweep

FILE, LOCK = "serving.json", "serving.lock"
START_SECONDS = 5.0
"""How long a server waits for the one before it to end."""
MOST = 2**20
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Running:
    """A server: its process, the machine's start, the id of the version of each model that it serves, where it
    listens, and when (Unix time) it said so."""

    pid: int
    boot_id: str
    versions: Mapping[str, str]
    url: str
    when: float
    shadows: Mapping[str, str] = field(default_factory=dict)
    """The ids of the versions that answer a copy of some requests, by model."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the one server of this folder. Raises `EdgeKitError` where there is another."""
    with plain_errors(str(folder)):
        make_folder(REAL, folder)
        try:
            lock = REAL.lock(folder / LOCK, START_SECONDS)
            lock.__enter__()
        except BlockingIOError as error:
            raise EdgeKitError(
                f"another server serves {folder} already", hint="stop it first, or say another --device"
            ) from error
    try:
        _forget(folder)  # what a server that was killed left would be taken for ours, and its process be woken
        sweep()
        yield
    finally:
        _forget(folder)
        lock.__exit__(None, None, None)


def _forget(folder: Path) -> None:
    with suppress(OSError):
        (folder / FILE).unlink()


def tell(folder: Path, running: Running) -> None:
    """Write down what is served."""
    with plain_errors(str(folder / FILE)):
        replace(REAL, folder / FILE, json.dumps(asdict(running)).encode())


def is_served(folder: Path) -> bool:
    """Whether a server is there, or coming."""
    try:
        number = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # none, or not ours to look at: then it is nobody's of us
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may look at the same time
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


def server(folder: Path) -> Running | None:
    """The server, once it said what it serves; None where there is none."""
    if not is_served(folder):
        return None
    try:
        with REAL.open(folder / FILE) as file:
            raw = json.loads(file.read(MOST))
        found = Running(**raw)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    sound = (
        isinstance(found.pid, int)
        and found.pid > 1
        and isinstance(found.versions, dict)
        and isinstance(found.shadows, dict)
    )
    return found if sound else None


def wake(found: Running) -> None:
    """Have it look for what is live now."""
    try:
        os.kill(found.pid, signal.SIGHUP)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise EdgeKitError(
            "the server runs as another user, and cannot be told", hint="do this as that user, or as root"
        ) from error


def wait(folder: Path, settled: Callable[[Running | None], bool], seconds: float) -> bool:
    """Wake the server, each one that comes meanwhile once, until `settled` of what it serves; False where it was not
    within so many seconds, or nothing serves any more."""
    end, woken = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        found = server(folder)
        if settled(found):
            return True
        if found is None and not is_served(folder):
            return False
        if found is not None and found.pid != woken:
            wake(found)
            woken = found.pid
        time.sleep(POLL_SECONDS)
    return False

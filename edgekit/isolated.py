"""Virtual environments for tools that cannot live beside the rest: made on first use, kept in the user's cache.

Refuses to leave half an environment behind: one without its marker file, written last, is wiped and made again."""

import errno
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

from edgekit.model import Tell

MARKER = "complete"
ELSEWHERE = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}
"""Settings that would have Python or pip look or write outside the environment."""
HEARTBEAT = 15.0
"""Seconds between two signs of life of a program that takes long."""


def default_cache() -> Path:
    """Where EdgeKit keeps what it can make again: `$XDG_CACHE_HOME/edgekit`, by default `~/.cache/edgekit`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit"


def environment(name: str, requirements: Path, tell: Tell, cache: Path | None = None) -> Path:
    """The Python of an environment that holds exactly what `requirements` (a complete lock) lists; made if need be.

    Two builds at once make it once: the second waits for the first.

    Raises:
        EdgeKitError: it cannot be made here; says what is missing.
    """
    kind = f"{sys.version_info.major}.{sys.version_info.minor} {platform.machine()}"
    digest = hashlib.sha256(requirements.read_bytes() + kind.encode()).hexdigest()[:16]
    folder = _home(cache) / f"{name}-{digest}"
    python = folder / "bin" / "python"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked_beside(folder, tell):
            if not (folder / MARKER).exists() or not python.exists():
                _make(folder, requirements, tell)
    except OSError as error:
        raise EdgeKitError(f"the environment for {name} cannot be made: {error}", hint=_hint(error)) from error
    return python


def environments(cache: Path | None = None) -> list[tuple[str, Path, int]]:
    """What is there: (name, folder, bytes) of each environment, half-made ones too."""
    home = _home(cache)
    folders = sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    return [(folder.name.rpartition("-")[0], folder, _bytes(folder)) for folder in folders]


def remove(folder: Path, tell: Tell) -> None:
    """Delete one of `environments`, once nobody is making it. Its lock file stays: another process may hold it."""
    with _locked_beside(folder, tell):
        shutil.rmtree(folder)


def call(
    python: Path, args: Sequence[str | Path], tell: Tell, timeout: float = 1800.0
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGS...` with its environment's programs first on PATH; output (both streams as one) is captured.

    Whatever interrupts the wait, Ctrl-C too, ends the program and all that it started.

    Raises:
        EdgeKitError: it took longer than `timeout` seconds.
    """
    keep = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    env = {**keep, "PATH": f"{python.parent}{os.pathsep}{keep.get('PATH', os.defpath)}", "PYTHONNOUSERSITE": "1"}
    command = [str(python), *map(str, args)]
    name = next((Path(word).name for word in command[1:] if not word.startswith("-")), python.name)
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output = _followed(process, name, tell, timeout)
        except BaseException:
            _kill(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def _followed(process: "subprocess.Popen[str]", name: str, tell: Tell, timeout: float) -> str:
    """The program's output; a word to `tell` now and then while it runs."""
    began = time.monotonic()
    while True:
        passed = time.monotonic() - began
        try:
            return process.communicate(timeout=max(0.0, min(HEARTBEAT, timeout - passed)))[0]
        except subprocess.TimeoutExpired as error:
            passed = time.monotonic() - began
            if passed >= timeout:
                raise EdgeKitError(f"{name} took longer than {timeout:.0f} s", hint="try a smaller model") from error
            tell(f"{name}: still at it after {passed:.0f} s")


def _kill(process: "subprocess.Popen[str]") -> None:
    """End the whole session that `call` started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _make(folder: Path, requirements: Path, tell: Tell) -> None:
    """Build the environment in place (a virtual environment cannot be moved); leave nothing if that fails."""
    began = time.monotonic()
    tell(f"making an environment for {folder.name.rpartition('-')[0]}, once: some minutes on a slow line")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        _venv(folder, tell)
        _install(folder / "bin" / "python", requirements, tell)
        (folder / MARKER).write_text(requirements.read_text(encoding="utf-8"), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    tell(f"made it in {time.monotonic() - began:.0f} s: {folder} ({_bytes(folder) / 1e6:.0f} MB)")


def _venv(folder: Path, tell: Tell) -> None:
    made = call(Path(sys.executable), ["-m", "venv", folder], tell, timeout=300)
    if made.returncode == 0:
        return
    if "ensurepip" in made.stdout or "No module named venv" in made.stdout:
        what, hint = "this Python has no venv module", "apt install python3-venv, then try again"
    else:
        what, hint = f"python -m venv failed: {_telling(made.stdout)}", _hint_of(made.stdout)
    raise EdgeKitError(what, hint=hint)


def _install(python: Path, requirements: Path, tell: Tell) -> None:
    """The lock is complete and tried on this Python, so pip need not look at what packages say they require."""
    pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    made = call(python, [*pip, "--ignore-requires-python", "--only-binary=:all:", "-r", requirements], tell)
    if made.returncode:
        raise EdgeKitError(f"pip could not fill the environment: {_telling(made.stdout)}", hint=_hint_of(made.stdout))


def _telling(output: str) -> str:
    """The one line of a program's output that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "No space left" in line]
    return (errors or lines or ["it said nothing"])[-1][:300]


def _hint_of(output: str) -> str:
    full = "No space left on device" in output or "Disk quota exceeded" in output
    return _hint(OSError(errno.ENOSPC, "")) if full else "check the network and pip's package index, then try again"


def _hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free about 1 GB of disk, or set XDG_CACHE_HOME to a folder on a larger disk"
    return "set XDG_CACHE_HOME to a folder that you may write to"


def _home(cache: Path | None) -> Path:
    return (cache or default_cache()) / "environments"


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _locked_beside(folder: Path, tell: Tell) -> AbstractContextManager[None]:
    return locked(folder.with_name(f"{folder.name}.lock"), "making the same environment", tell)


@contextmanager
def locked(file: Path, doing: str, tell: Tell) -> Iterator[None]:
    """Hold the lock at `file` while `doing`; the system lets go of it when a process dies."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another EdgeKit that is {doing}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield

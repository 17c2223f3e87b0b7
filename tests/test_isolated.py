"""Environments of their own: made once, whole or absent, and nothing that they run outlives an interruption."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit import isolated
from edgekit.isolated import MARKER, call, environment, environments, remove


def silent(_: str) -> None:
    """Nobody is told."""


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A lock that lists nothing."""
    path = tmp_path / "requirements.txt"
    path.write_text("# nothing\n")
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments without pip: `venv` takes a tenth of a second then, and an empty lock needs no pip."""
    real = isolated.call
    monkeypatch.setattr(
        isolated,
        "call",
        lambda python, args, tell, timeout=60.0: (
            subprocess.CompletedProcess([], 0, "")
            if "pip" in args
            else real(python, [*args, "--without-pip"], tell, timeout)
        ),
    )


@pytest.mark.usefixtures("bare")
def test_an_environment_is_made_once(empty: Path, tmp_path: Path) -> None:
    told: list[str] = []
    first = environment("toy", empty, told.append, tmp_path)
    assert len(told) == 2
    assert environment("toy", empty, told.append, tmp_path) == first
    assert len(told) == 2
    assert first.is_relative_to(tmp_path / "environments")
    assert subprocess.run([first, "-c", "pass"], check=False).returncode == 0


@pytest.mark.usefixtures("bare")
def test_another_lock_is_another_environment(empty: Path, tmp_path: Path) -> None:
    first = environment("toy", empty, silent, tmp_path)
    empty.write_text("# something else\n")
    assert environment("toy", empty, silent, tmp_path) != first


@pytest.mark.usefixtures("bare")
def test_an_interrupted_environment_is_made_again(empty: Path, tmp_path: Path) -> None:
    folder = environment("toy", empty, silent, tmp_path).parents[1]
    (folder / MARKER).unlink()
    (folder / "rubbish").touch()
    environment("toy", empty, silent, tmp_path)
    assert (folder / MARKER).exists()
    assert not (folder / "rubbish").exists()


@pytest.mark.usefixtures("bare")
def test_an_environment_whose_python_is_gone_is_made_again(empty: Path, tmp_path: Path) -> None:
    python = environment("toy", empty, silent, tmp_path)
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert environment("toy", empty, silent, tmp_path).exists()


@pytest.mark.usefixtures("bare")
def test_two_at_once_make_it_once(empty: Path, tmp_path: Path) -> None:
    told: list[str] = []
    threads = [threading.Thread(target=environment, args=("toy", empty, told.append, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("making") for line in told) == 1


@pytest.mark.usefixtures("bare")
def test_environments_are_listed_and_removed(empty: Path, tmp_path: Path) -> None:
    assert environments(tmp_path) == []
    environment("a-tool", empty, silent, tmp_path)
    ((name, folder, size),) = environments(tmp_path)
    assert name == "a-tool"
    assert size > 0
    remove(folder, silent)
    assert environments(tmp_path) == []


@pytest.mark.slow
def test_what_pip_cannot_find_is_said_in_one_line_and_nothing_stays(empty: Path, tmp_path: Path) -> None:
    empty.write_text("no-such-package-of-edgekit @ file:///nowhere/no_such-1-py3-none-any.whl\n")
    with pytest.raises(EdgeKitError, match=r"pip could not .*No such file or directory") as caught:
        environment("toy", empty, silent, tmp_path)
    assert "\n" not in caught.value.what
    assert "network" in caught.value.hint
    assert environments(tmp_path) == []


@pytest.mark.parametrize(
    ("printed", "hint"),
    [
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "free about 1 GB"),
        ("ERROR: Could not find a version that satisfies the requirement x==1", "package index"),
    ],
)
@pytest.mark.usefixtures("bare")
def test_a_failed_pip_gets_the_hint_that_helps(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, hint: str
) -> None:
    monkeypatch.setattr(isolated, "call", lambda *_, **__: subprocess.CompletedProcess([], 1, f"noise\n{printed}\n"))
    with pytest.raises(EdgeKitError) as caught:
        isolated._install(tmp_path, empty, silent)
    assert printed in caught.value.what
    assert hint in caught.value.hint


def test_debian_without_python3_venv_is_told_to_install_it(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "The virtual environment was not created successfully because ensurepip is not\navailable."
    monkeypatch.setattr(isolated, "call", lambda *_, **__: subprocess.CompletedProcess([], 1, words))
    with pytest.raises(EdgeKitError, match="no venv module") as caught:
        environment("toy", empty, silent, tmp_path)
    assert "apt install python3-venv" in caught.value.hint
    assert environments(tmp_path) == []


def test_a_full_disk_is_named(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(isolated, "call", full)
    with pytest.raises(EdgeKitError, match="No space left") as caught:
        environment("toy", empty, silent, tmp_path)
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_a_cache_that_is_a_file_is_named(empty: Path) -> None:
    with pytest.raises(EdgeKitError, match="cannot be made"):
        environment("toy", empty, silent, empty)


def test_a_called_program_finds_its_own_tools_first() -> None:
    python = Path(sys.executable)
    ran = call(python, ["-c", "import os; print(os.environ['PATH']); raise SystemExit(3)"], silent)
    assert ran.returncode == 3
    assert ran.stdout.startswith(f"{python.parent}{os.pathsep}")


def test_a_called_program_does_not_see_our_python_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    assert call(Path(sys.executable), ["-c", "import sys; print(sys.path)"], silent).stdout.count("/ours") == 0


@pytest.mark.slow
def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "HEARTBEAT", 0.1)
    script = tmp_path / "sleeper.py"
    script.write_text(
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\nchild.wait()\n"
    )
    told: list[str] = []
    with pytest.raises(EdgeKitError, match=r"sleeper\.py took longer"):
        call(Path(sys.executable), [script], told.append, timeout=1.0)
    assert "sleeper.py" in told[0]
    assert _gone(int((tmp_path / "pid").read_text()))


def test_ctrl_c_ends_what_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "HEARTBEAT", 0.3)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    words = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        call(Path(sys.executable), ["-c", words], interrupt)
    assert _gone(int((tmp_path / "pid").read_text()))


def _gone(pid: int) -> bool:
    """Whether the process has ended; an ended orphan may wait for the system's reaper for a moment."""
    for _ in range(50):
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False

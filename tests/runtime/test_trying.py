"""A trial ends well or says how it ended, whatever the engine does in the child; and nothing of it is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edgekit_runtime.bundle import open_bundle, read_manifest
from edgekit_runtime.trying import Limits, Unfit, try_out

from tests.runtime.bundles import listed, make_bundle
from tests.runtime.examined import add_exam
from tests.waiting import until

pytestmark = pytest.mark.slow

LIMITS = Limits(4000)
BESIDE = """import os, subprocess, sys, time
from pathlib import Path
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
Path(os.environ["PIDS"] + ".part").write_text(f"{os.getpid()} {other.pid}")
os.rename(os.environ["PIDS"] + ".part", os.environ["PIDS"])
"""
MIDWAY = """import os, sys
if "edgekit_runtime.candidate" in " ".join(sys.orig_argv):
    from edgekit_runtime import {module}
    whole, calls = {module}.{name}, []
    {module}.{name} = {wrapped}
"""
FIFTH_RUN = "lambda *given: (lambda run: lambda feeds: calls.append(1) or len(calls) > 4 and os._exit(0) or run(feeds))"
Break = Callable[[str, str], None]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Puts a module in front of the real one, for child processes."""

    def put(name: str, text: str) -> None:
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / f"{name}.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"), prepend=":")

    return put


def refused(folder: Path) -> Unfit:
    with pytest.raises(Unfit) as caught:
        try_out(open_bundle(folder), LIMITS)
    return caught.value


def ends(pid: int) -> bool:
    """Whether the process is gone, or waits only for somebody to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_an_engine_that_ends_the_process_as_if_all_were_well_is_refused(tmp_path: Path, broken: Break) -> None:
    broken("onnxruntime", "import os\nos._exit(0)\n")
    error = refused(make_bundle(tmp_path / "b"))
    assert (error.reason, error.what) == ("crashed", "tiny 1 ended while opening the model")


@pytest.mark.parametrize(
    ("module", "name", "wrapped", "at"),
    [
        ("ports", "connect", f"{FIFTH_RUN}(whole(*given))", "being timed"),
        ("scored", "score", "lambda *given: os._exit(0)", "taking its exam"),
    ],
    ids=["timed", "exam"],
)
def test_what_passes_its_recordings_and_ends_before_the_rest_is_refused(
    tmp_path: Path, broken: Break, module: str, name: str, wrapped: str, at: str
) -> None:
    broken("sitecustomize", MIDWAY.format(module=module, name=name, wrapped=wrapped))
    error = refused(add_exam(make_bundle(tmp_path / "b")))
    assert (error.reason, error.what) == ("crashed", f"tiny 1 ended while {at}")


def test_a_signal_without_a_name_is_told_by_its_number(tmp_path: Path, broken: Break) -> None:
    broken("onnxruntime", "import os\nos.kill(os.getpid(), 40)\n")
    assert "crashed (signal 40) while opening" in refused(make_bundle(tmp_path / "b")).what


def test_what_an_engine_started_ends_with_the_trial(
    tmp_path: Path, broken: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    broken("onnxruntime", BESIDE + "os._exit(1)\n")
    assert refused(make_bundle(tmp_path / "b")).reason == "crashed"
    own, other = map(int, (tmp_path / "pids").read_text().split())
    assert ends(own)
    until(lambda: ends(other), 30)


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_trial_ends_with_who_began_it(
    tmp_path: Path, broken: Break, monkeypatch: pytest.MonkeyPatch, word: signal.Signals
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    broken("onnxruntime", BESIDE + "time.sleep(3600)\n")
    text = (
        "import sys\nfrom edgekit_runtime.bundle import open_bundle\nfrom edgekit_runtime.trying import *\n"
        "try_out(open_bundle(sys.argv[1]), Limits(4000))\n"
    )
    command = [sys.executable, "-c", text, str(make_bundle(tmp_path / "b"))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until((tmp_path / "pids").exists, 60)
        process.send_signal(word)
        process.wait(60)
    own, other = map(int, (tmp_path / "pids").read_text().split())
    try:
        until(lambda: ends(own), 30)
        if word == signal.SIGINT:
            until(lambda: ends(other), 30)
    finally:
        if not ends(other):  # of a process that was killed nobody is left who could
            os.kill(other, signal.SIGKILL)


def test_a_candidate_whose_parent_died_before_it_could_be_told_does_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekit_runtime.candidate", str(make_bundle(tmp_path / "b"))]
    orphan = subprocess.run([*command, f"--parent={os.getppid()}"], capture_output=True, timeout=120, check=False)
    assert (orphan.returncode, orphan.stdout) == (1, b"")
    assert b"who started this is gone" in orphan.stderr
    ours = subprocess.run([*command, f"--parent={os.getpid()}"], capture_output=True, timeout=120, check=False)
    assert (ours.returncode, b'"timed"' in ours.stdout) == (0, True)


def test_what_only_a_server_reads_is_read_in_the_trial(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "labels.txt").write_bytes(b"caf\xe9\n")
    error = refused(listed(folder, read_manifest(folder)))
    assert (error.reason, "labels.txt is not text" in error.what) == ("engine", True)


def test_a_good_one_is_told_with_its_times(tmp_path: Path) -> None:
    found = try_out(open_bundle(make_bundle(tmp_path / "b")), LIMITS)
    assert found.worst <= found.tolerance
    assert 0 < found.p50_ms <= found.p90_ms
    assert found.peak_mb > 10

"""The server of a device folder as other programs see it: what one that died left, and who looks at the same time."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from edgekit_runtime import held, running
from edgekit_runtime.running import Running


def test_a_server_that_begins_is_not_taken_for_the_one_that_died_before_it(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])  # it has the dead one's number
    try:
        running.tell(tmp_path, Running(stranger.pid, "boot", {"tiny": "0" * 12}, "http://127.0.0.1:1", 5.0))
        with running.alone(tmp_path):
            assert running.server(tmp_path) is None
            assert not running.wait(tmp_path, lambda found: found is not None, 0.5)
        time.sleep(0.1)
        assert stranger.poll() is None, "a stranger was told to reload"
    finally:
        stranger.kill()
        assert stranger.wait() == -signal.SIGKILL


def test_who_looks_whether_a_server_is_there_is_not_taken_for_one(tmp_path: Path) -> None:
    with running.alone(tmp_path):
        pass
    found: list[bool] = []

    def look() -> None:
        found.extend(running.is_served(tmp_path) for _ in range(3000))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), any(found)) == (12_000, False)


def test_what_a_server_of_another_container_holds_in_memory_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "MEMORY", tmp_path / "memory")
    held.MEMORY.mkdir()
    view = held.View()
    view.add("model.onnx", [b"weights"])
    foreign = view.folder.with_name(f"edgekit-{2**22 + 1}-other")  # no process here has that number
    os.rename(view.folder, foreign)
    with running.alone(tmp_path / "device"):
        assert (foreign / "model.onnx").read_bytes() == b"weights"

"""`make field` shows what it promises: photos are answered and judged, a slipped lens raises the alarm, all ends well.

Refuses nothing; `examples.field` is run as a reader would run it, on a free port and in a folder of its own."""

import fcntl
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import edgekit
from tests.matrix import README

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "examples.field"]
PATIENCE = 120.0


@contextmanager
def field(folder: Path, *words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and where its server listens once it is built."""
    command = [*COMMAND, "--port", "0", "--folder", str(folder), "--seconds", str(PATIENCE), *map(str, words)]
    with subprocess.Popen(command, cwd=README.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = next(filter(None, (re.match(r"open (http://\S+) in a browser", line) for line in process.stdout)))
            yield process, found[1]
        finally:
            process.terminate()


def status(url: str) -> Any:
    with urllib.request.urlopen(f"{url}/status", timeout=10) as answer:
        return json.load(answer)["models"][0]


def until(url: str, holds: Callable[[Any], bool]) -> Any:
    """The state of the model once it is so."""
    deadline = time.monotonic() + PATIENCE
    while not holds(model := status(url)):
        assert time.monotonic() < deadline, model
        time.sleep(0.25)
    return model


def test_photos_are_answered_and_judged_and_a_slipped_lens_raises_the_alarm(tmp_path: Path) -> None:
    with field(tmp_path, "--rate", 15, "--blur-after", 20) as (process, url):
        sharp = until(url, lambda model: model["drift"] and model["drift"]["n"] >= 50)
        assert not sharp["drift"]["alarm"]
        page = urllib.request.Request(url, headers={"Accept": "text/html"})
        with urllib.request.urlopen(page, timeout=10) as answer:
            assert b"<title>EdgeKit</title>" in answer.read()
        blurred = until(url, lambda model: model["drift"]["alarm"])
        assert "sharpness" in {one["name"] for one in blurred["drift"]["features"] if one["alarm"]}
        judged = until(url, lambda model: model["quality"] and model["shadow"])
        assert judged["quality"]["accuracy"] > 0.2  # of a thousand classes; most of these photos are blurred
        assert judged["requests"]["failed"] == judged["requests"]["rejected"] == 0
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        told = process.stdout.read()
        assert process.wait(30) == 0
        assert "of which 0 were refused" in told
        with pytest.raises(urllib.error.URLError):
            status(url)
    pulled = edgekit("pull-samples", tmp_path / "state", "--out", tmp_path / "pulled", "--json")
    found = pulled.json()
    assert found["labelled"] > 0


def test_a_port_that_is_taken_and_a_folder_in_use_are_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--folder", tmp_path, "--port", taken.getsockname()[1]]
        done = subprocess.run([*COMMAND, *map(str, words)], cwd=README.parent, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(f"error: port {words[-1]} cannot be had")
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = subprocess.run([*COMMAND, "--folder", tmp_path], cwd=README.parent, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith("error: another one runs in ")

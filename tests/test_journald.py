"""The server's log in a real journal: a systemd-journald of the test's own, read back with journalctl."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOURNALD = next((path for path in map(Path, ("/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"))
                 if path.is_file()), None)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        JOURNALD is None or shutil.which("journalctl") is None or os.geteuid() != 0,
        reason="needs systemd-journald and journalctl, and root to start one",
    ),
]

SAY = """
import logging, os, sys
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.logs import event, setup
setup(sys.argv[1], sys.stderr, os.environ.get("JOURNAL_STREAM", ""))
log = logging.getLogger("edgekit_runtime.test")
event(log, logging.INFO, "model-loaded", "birds 3 is loaded", model="birds", version="3")
event(log, logging.WARNING, "drift-alarm-raised", "birds drifts: brightness", model="birds", features=["brightness"])
try:
    raise ValueError("a\\nb\\x1b[2J\\u2028c" + "\\U0001f426" * 9000)
except ValueError:
    log.exception("unexpected error")
"""


class Journal:
    """A namespace of the journal: its own sockets, its own files."""

    def __init__(self, name):
        self.name = name
        self.run = Path(f"/run/systemd/journal.{name}")

    def stream(self):
        """What systemd gives a service as its stderr."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.connect(str(self.run / "stdout"))
        made.sendall(b"edgekit\n\n6\n1\n0\n0\n0\n")  # identifier, unit, priority, with prefixes, forwarded nowhere
        return made

    def ran(self, *command):
        """Run it as a service."""
        with self.stream() as stderr:
            found = os.fstat(stderr.fileno())
            env = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
            subprocess.run(command, stderr=stderr, env=env, check=True, timeout=60)

    def entries(self, count):
        """At least so many entries of ours."""
        end = time.monotonic() + 10
        while True:
            command = ["journalctl", "--namespace", self.name, "-o", "json", "--all", "-t", "edgekit"]
            lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
            if len(lines) >= count or time.monotonic() > end:
                return [json.loads(line) for line in lines]
            time.sleep(0.1)


@pytest.fixture
def journal():
    made = Journal(f"edgekit-test-{os.getpid()}")
    files = [Path(root) for root in ("/run/log/journal", "/var/log/journal")]
    with subprocess.Popen([str(JOURNALD), made.name], env={"RUNTIME_DIRECTORY": str(made.run)},
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # fmt: skip
        try:
            end = time.monotonic() + 5
            while not (made.run / "stdout").exists():
                if process.poll() is not None or time.monotonic() > end:
                    pytest.skip("systemd-journald does not start here")
                time.sleep(0.02)
            yield made
        finally:
            process.terminate()
            process.wait(10)
            shutil.rmtree(made.run, ignore_errors=True)
            for folder in [one for root in files if root.is_dir() for one in root.glob(f"*.{made.name}")]:
                shutil.rmtree(folder, ignore_errors=True)


def test_the_journal_takes_each_document_whole_with_its_priority(journal):
    journal.ran(sys.executable, "-c", SAY, "ecs")
    found = journal.entries(3)
    assert [one["PRIORITY"] for one in found] == ["6", "4", "3"]
    documents = [json.loads(one["MESSAGE"]) for one in found]  # text, not a blob, and not cut
    assert [one.get("event", {}).get("action") for one in documents] == ["model-loaded", "drift-alarm-raised", None]
    assert documents[1]["labels"] == {"model": "birds", "features": "brightness"}
    assert documents[2]["error"]["type"] == "ValueError"
    assert all(len(one["MESSAGE"]) <= 16_384 for one in found)


def test_the_journal_takes_text_line_by_line_with_its_priority(journal):
    journal.ran(sys.executable, "-c", SAY, "text")
    found = journal.entries(3)
    assert found[0]["MESSAGE"] == "WARNING edgekit_runtime.test: birds drifts: brightness"
    assert [one["PRIORITY"] for one in found] == ["4", *["3"] * (len(found) - 1)]
    assert found[1]["MESSAGE"] == "ERROR edgekit_runtime.test: unexpected error"
    assert not any("\x1b" in str(one["MESSAGE"]) for one in found)


def test_outside_the_journal_no_line_has_a_priority():
    done = subprocess.run(
        [sys.executable, "-c", SAY, "ecs"], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "JOURNAL_STREAM": "1:2"},
    )  # fmt: skip
    assert [line[0] for line in done.stderr.splitlines()] == ["{"] * 3

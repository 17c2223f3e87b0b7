"""`make demo-device` tells its story to the end, on a device behind a real ssh server."""

import subprocess
import sys

import pytest

from examples.demo import ROOT

pytestmark = pytest.mark.slow


def test_two_versions_are_kept_and_two_are_not():
    command = [sys.executable, "-m", "examples.demo_device"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout
    assert (
        told.index("version 1 answers, and is kept") < told.index("Egyptian cat") < told.index("version 2 answers, and")
    )
    assert "answers its recorded inputs otherwise here" in told
    assert told.count("version 2 answers, and is kept") == 2
    assert "rolled back" in told[told.index("What the device remembers") :]

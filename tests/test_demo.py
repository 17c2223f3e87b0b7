"""`make demo` says what it promises: three int8 bundles that know a cat, and a server that says the same."""

import subprocess
import sys

import pytest

from tests.matrix import README

pytestmark = pytest.mark.slow


def test_the_demo_shows_three_int8_bundles_that_know_the_cat() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=README.parent, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [line for line in lines if "int8" in line and line.rstrip().endswith("passed")]
    assert [row.split()[1] for row in rows] == ["TFLite", "ONNX", "OpenVINO"]
    firsts = [lines[i + 1] for i, line in enumerate(lines) if line.startswith(("$ edgekit-runtime run", "$ curl"))]
    assert len(firsts) == 4
    assert all(line.strip().startswith("Egyptian cat") for line in firsts)

"""`make wheels`: two wheels that carry all they need, under their own names."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.matrix import README


@pytest.mark.slow
def test_the_wheels_carry_targets_templates_and_locks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([*command, "./runtime", "."], cwd=README.parent, check=True)
    held = {path.name.split("-")[0]: set(zipfile.ZipFile(path).namelist()) for path in tmp_path.glob("*.whl")}
    assert held.keys() == {"edgekit_toolchain", "edgekit_runtime"}
    assert {"targets/rpi5.toml", "edgekit/report/page.html", "edgekit/converters/onnx2tf-requirements.txt"} <= held[
        "edgekit_toolchain"
    ]
    assert "edgekit_runtime/engines/tflite.py" in held["edgekit_runtime"]
    assert not any(name.startswith(("tests/", "examples/")) for names in held.values() for name in names)

"""A build that scores and times on a device, over a real OpenSSH server."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from examples.sshd import Server, programs
from tests import tiny
from tests.commands import edgekit

pytestmark = pytest.mark.slow


@pytest.fixture
def desk(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the digits, where the user's own ssh configuration is that of the server."""
    own = tmp_path / "bin"
    own.mkdir()
    real = shutil.which("ssh") or programs() / "ssh"
    (own / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {server.config} "$@"\n')
    (own / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{own}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    tiny.write_model(tmp_path)
    tiny.write_digits(tmp_path)
    return tmp_path


def test_a_build_is_scored_and_timed_on_the_device(desk: Path, server: Server) -> None:
    url = server.url(sys.executable)
    done = edgekit(
        "build", "digits.onnx", "--target", "rpi5", "--format", "onnx", "--data", "digits.npz", "--max-drop", "2pt",
        "--smaller", "--max-latency", "500ms", "--measure-on", url, "--cache", "cache", "--out", "b", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    chosen = next(one for one in done.json()[0]["candidates"] if one["chosen"])
    assert chosen["latency"]["median_ms"] > 0
    assert url in chosen["timed"]
    (scored,) = chosen["scored_on"]
    assert scored["n"] == 16
    assert scored["worst"] <= 0.01
    assert "as here" in scored["words"]
    assert json.loads((desk / "b" / "report.json").read_text())["candidates"]


def test_a_latency_that_the_device_does_not_reach_is_missed(desk: Path, server: Server) -> None:
    done = edgekit(
        "build", "digits.onnx", "--target", "rpi5", "--format", "onnx", "--data", "digits.npz", "--smaller",
        "--precision", "int8", "--max-latency", "0.001us", "--measure-on", server.url(sys.executable),
        "--cache", "cache", "--out", "b",
    )  # fmt: skip
    assert done.code == 3
    assert "--max-latency" in done.error()


def test_a_device_that_is_not_there_is_told(desk: Path) -> None:
    done = edgekit(
        "build", "digits.onnx", "--target", "rpi5", "--format", "onnx", "--data", "digits.npz",
        "--measure-on", "ssh://nobody@127.0.0.1:9", "--cache", "cache",
    )  # fmt: skip
    assert done.code == 1
    assert "127.0.0.1" in done.error()
    assert not list(desk.glob("*.edgekit"))

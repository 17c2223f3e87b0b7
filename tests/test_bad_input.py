"""Bad input: one line, a hint, exit code 1, nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.commands import edgekit

TARGET = "x86-64-v4"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the model, its data, and a cache outside it."""
    desk = tmp_path / "desk"
    desk.mkdir()
    tiny.write_model(desk)
    tiny.write_digits(desk)
    monkeypatch.chdir(desk)
    return desk


def build(desk: Path, *words: object) -> str:
    """The error of a build that must fail and leave the folder as it was."""
    before = sorted(desk.rglob("*"))
    done = edgekit("build", *words, "--cache", desk.parent / "cache")
    assert done.code == 1, done.err
    assert sorted(desk.rglob("*")) == before
    return done.error()


ORDERS = {
    "an unknown target": (("digits.onnx", "--target", "rpi55"), "did you mean"),
    "an unknown format": (("digits.onnx", "--target", TARGET, "--format", "onx"), "did you mean 'onnx'"),
    "an unknown precision": (("digits.onnx", "--target", TARGET, "--precision", "int9"), "did you mean 'int8'"),
    "an unknown metric": (
        ("digits.onnx", "--target", TARGET, "--precision", "float32", "--data", "digits.npz", "--metric", "top3"),
        "no metric",
    ),
    "no target": (("digits.onnx",), "no target"),
    "no model": ((), "no model"),
    "a model that is not there": (("no.onnx", "--target", TARGET), "no model at"),
    "a wrong suffix": (("digits.npz", "--target", TARGET), "is not a model that EdgeKit reads"),
    "a budget without a unit": (("digits.onnx", "--target", TARGET, "--max-drop", "0.5"), "no unit"),
    "a shape that does not read": (("digits.onnx", "--target", TARGET, "--shape", "x=1x-3"), "does not read"),
    "a shape for no input": (("digits.onnx", "--target", TARGET, "--shape", "y=1x64"), "y"),
    "an impossible shape": (("digits.onnx", "--target", TARGET, "--shape", "x=1x65"), "x"),
    "an output that is not there": (
        ("digits.onnx", "--target", TARGET, "--data", "digits.npz", "--output", "logits"),
        "no output",
    ),
    "int8 without data": (("digits.onnx", "--target", TARGET, "--precision", "int8"), "calibrate"),
    "data that is not there": (("digits.onnx", "--target", TARGET, "--data", "no.npz"), "no data"),
    "labels for other classes": (
        ("digits.onnx", "--target", TARGET, "--data", "digits.npz", "--labels", "edge.txt"),
        "does not read",
    ),
    "calibration that is evaluated on": (
        ("digits.onnx", "--target", TARGET, "--data", "digits.npz", "--calibration", "digits.npz"),
        "are in the evaluation data",
    ),
    "an output folder that is no bundle": (("digits.onnx", "--target", TARGET, "--out", "."), "is not a bundle"),
    "a name that is no word": (("digits.onnx", "--target", TARGET, "--name", "../up"), "plain word"),
    "preprocessing that is not there": (("digits.onnx", "--target", TARGET, "--preprocess", "no.toml"), "no file"),
    "no calibration samples": (
        ("digits.onnx", "--target", TARGET, "--data", "digits.npz", "--calibration-samples", 0),
        "0 calibration samples",
    ),
}


@pytest.mark.parametrize("what", ORDERS)
def test_an_order_that_cannot_be_carried_out_is_told_in_one_line(desk: Path, what: str) -> None:
    words, expected = ORDERS[what]
    assert expected in build(desk, *words)


def test_usage_errors_exit_with_two() -> None:
    assert edgekit("build", "--no-such-flag").code == 2
    assert edgekit("no-such-verb").code == 2


def test_data_of_another_width_is_told(desk: Path) -> None:
    np.savez(desk / "wide.npz", x=np.zeros((20, 65), np.float32))
    assert "shape" in build(desk, "digits.onnx", "--target", TARGET, "--data", "wide.npz")


def run_edgekit(desk: Path, *words: object, **options: object) -> "subprocess.Popen[str]":
    """A build of its own process, which hears Ctrl-C even where the tests run in the background and do not."""
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "edgekit", *map(str, words)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        cwd=desk,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


PHASES = ("reading", "opening", "converting", "checking", "quantizing", "scoring", "measuring", "timing", "packing")


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_leaves_nothing_behind(desk: Path, phase: str) -> None:
    before = sorted(desk.rglob("*"))
    cache = desk.parent / "cache"
    build = run_edgekit(
        desk,
        "build",
        "digits.onnx",
        "--target",
        TARGET,
        "--format",
        "onnx",
        "--data",
        "digits.npz",
        "--smaller",
        "--cache",
        cache,
    )
    assert build.stderr is not None
    for line in build.stderr:
        if line.startswith(phase):
            build.send_signal(signal.SIGINT)
            break
    rest = build.stderr.read()
    code = build.wait(60)
    if phase == "packing" and code == 0:
        return  # it was done before the signal came: whole, not half
    assert code == 1, rest
    assert "error: stopped" in rest
    assert "hint: " in rest
    assert sorted(desk.rglob("*")) == before
    assert not list(cache.rglob(".making-*"))


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing(desk: Path) -> None:
    """A real file system of 300 kB in a mount namespace of its own: the cache fits elsewhere, the bundle does not."""
    small = desk.parent / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=300k tmpfs {small} && cd {desk} && "
        f"{sys.executable} -m edgekit build digits.onnx --target {TARGET} --format onnx --precision float32 "
        f"--cache {desk.parent / 'cache'} --out {small / 'filler'} --quiet && "
        f"head -c 250k /dev/zero > {small / 'zeros'}; "
        f"{sys.executable} -m edgekit build digits.onnx --target {TARGET} --format onnx --precision float32 "
        f"--cache {desk.parent / 'cache'} --out {small / 'b'} --quiet; code=$?; ls -A {small}; exit $code"
    )
    mapping = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(["unshare", "--mount", *mapping, "sh", "-c", script], capture_output=True, text=True)
    assert "No space left" in done.stderr, done.stderr
    assert "hint:" in done.stderr
    assert done.returncode == 1
    assert "b" not in done.stdout.split()[-3:]


@pytest.mark.slow
def test_two_builds_into_one_folder_at_once_are_one(desk: Path) -> None:
    words = ("build", "digits.onnx", "--target", TARGET, "--format", "onnx", "--precision", "float32", "--out", "same")
    both = [run_edgekit(desk, *words, "--cache", desk.parent / f"cache{i}") for i in range(2)]
    codes, errors = [], []
    for build in both:
        _, err = build.communicate(timeout=120)
        codes.append(build.returncode)
        errors.append(err)
    assert sorted(codes) in ([0, 0], [0, 1])
    assert all("another build" in err for code, err in zip(codes, errors, strict=True) if code)
    assert (desk / "same" / "manifest.json").exists()
    assert not list(desk.glob(".*"))


@pytest.mark.parametrize("module", ["onnxruntime", "openvino", "ai_edge_litert", "torch", "tensorflow", "nncf"])
def test_a_missing_framework_names_the_pip_command(module: str) -> None:
    from edgekit_runtime.errors import EdgeKitError

    from edgekit.extras import needs

    with pytest.raises(EdgeKitError) as caught, needs("this"):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert "pip install '.[" in caught.value.hint
    assert "pip install edgekit" not in caught.value.hint

"""Nothing is done twice: unchanged builds, another target, another tool, builds that were killed; and bounded memory.

Refuses a cache that serves what another tool made, and an interrupted build that leaves a bundle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny, zoo

TARGET = "x86-64-v4"
PROFILE = Path(__file__).parents[1] / "targets" / f"{TARGET}.toml"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Ran:
    """What a process left: exit code, outputs, wall time and the CPU's time in s, the peak of its memory in MB.

    Comparisons are of the CPU's time, which other processes of a busy machine do not stretch as they do the wall's."""

    code: int
    out: str
    err: str
    seconds: float
    cpu: float
    peak_mb: float

    def facts(self) -> Any:
        return json.loads(self.out)[0]


def started(folder: Path, *words: object, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """`edgekit build WORDS` as a process of its own, in a session of its own, with Ctrl-C not ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgekit", "build", *map(str, words)], cwd=folder, text=True, start_new_session=True,
        stdout=(folder / "out").open("w"), stderr=subprocess.PIPE, env={**os.environ, **(env or {})},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]", folder: Path, said: str = "", begun: float | None = None) -> Ran:
    assert process.stderr is not None
    begun = begun or time.monotonic()
    said += process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    out = (folder / "out").read_text()
    (folder / "out").unlink()
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(process.returncode, out, said, time.monotonic() - begun, cpu, usage.ru_maxrss / 1024)


def ran(folder: Path, *words: object, env: Mapping[str, str] | None = None) -> Ran:
    begun = time.monotonic()
    return ended(started(folder, *words, env=env), folder, begun=begun)


def stopped(folder: Path, by: int, at: int, *words: object) -> Ran:
    """The same, sent the signal `by` when it tells for the `at`th time that it is trying a candidate."""
    process, said = started(folder, *words), ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if said.count("trying ") == at:
            os.killpg(process.pid, by)
            break
    return ended(process, folder, said)


def steps(cache: Path) -> dict[str, tuple[int, int]]:
    """Of every finished step its inode, which tells if it was made anew, and its time, which tells if it was used."""
    found = {f"{home.parent.name}/{home.name}": home.stat() for home in cache.glob("steps/*/[!.]*")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def made(cache: Path) -> dict[str, int]:
    return {name: inode for name, (inode, _) in steps(cache).items()}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits.onnx, digits.npz, and ruined.npz, calibration data by which every recipe fails."""
    folder = tmp_path_factory.mktemp("shelf")
    tiny.write_model(folder)
    tiny.write_digits(folder)
    x, _ = tiny.digits()
    np.savez(folder / "ruined.npz", x=x[:64] * 1000)
    return folder


def digits(shelf: Path, cache: Path, *words: object, target: object = TARGET) -> tuple[object, ...]:
    return (
        shelf / "digits.onnx", "--target", target, "--data", shelf / "digits.npz", "--format", "onnx",
        "--precision", "int8", "--smaller", "--max-drop", "2pt", "--cache", cache, "--out", "b", "--json", *words,
    )  # fmt: skip


def hopeless(shelf: Path, cache: Path) -> tuple[object, ...]:
    """An order that goes through every recipe and passes with none."""
    return digits(shelf, cache, "--calibration", shelf / "ruined.npz", "--max-drop", "0.5pt")


def fashion(source: str, cache: Path, out: str) -> tuple[object, ...]:
    net = zoo.fashion_cnn()
    model = (net.factory, "--weights", net.safetensors) if source == "module:factory" else (net.onnx,)
    return (
        *model, "--target", TARGET, "--data", net.test, "--calibration",
        net.calibration, "--format", "onnx", "--precision", "int8", "--smaller", "--max-drop", "0.5pt",
        "--cache", cache, "--out", out, "--json",
    )  # fmt: skip


@pytest.mark.parametrize("source", ["onnx", "module:factory"])
def test_an_unchanged_build_does_nothing_in_under_two_seconds(source: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ran(tmp_path, *fashion(source, cache, "b0"))
    assert first.code == 0, first.err
    before = made(cache)
    again = [ran(tmp_path, *fashion(source, cache, f"b{i}")) for i in (1, 2, 3)]
    spent = ", ".join(f"{one.seconds:.2f} s ({one.cpu:.2f} of the CPU)" for one in again)
    print(f"{source}: first {first.seconds:.1f} s, then {spent}")  # noqa: T201
    for one in again:
        assert (one.code, one.facts()["remembered"]) == (0, True), one.err
        assert "trying" not in one.err
    assert made(cache) == before
    assert min(one.cpu for one in again) < 2.0
    assert (tmp_path / "b3" / "manifest.json").read_bytes() == (tmp_path / "b0" / "manifest.json").read_bytes()


def test_an_unchanged_miss_makes_nothing_anew(shelf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ran(tmp_path, *hopeless(shelf, cache))
    before = made(cache)
    again = ran(tmp_path, *hopeless(shelf, cache))
    print(f"missed in {first.seconds:.1f} s, again in {again.seconds:.1f} s")  # noqa: T201
    assert (first.code, again.code) == (3, 3), first.err
    assert first.facts()["why"] == again.facts()["why"]
    assert made(cache) == before
    assert again.cpu < first.cpu


def test_another_target_takes_the_conversions_that_are_there(shelf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert ran(tmp_path, *digits(shelf, cache)).code == 0
    before = steps(cache)
    text = PROFILE.read_text().replace(f'name = "{TARGET}"', 'name = "mine"').replace("threads = 2", "threads = 1")
    (tmp_path / "mine.toml").write_text(text)
    again = ran(tmp_path, *digits(shelf, cache, "--out", "c", target=tmp_path / "mine.toml"))
    assert again.code == 0, again.err
    assert "remembered" not in again.facts()
    assert again.facts()["target"]["name"] == "mine"
    after = steps(cache)
    for step in ("onnx_to_onnx", "onnx_int8"):
        names = {name for name in after if name.startswith(f"{step}/")}
        assert names == {name for name in before if name.startswith(f"{step}/")}
        assert all(after[name][0] == before[name][0] for name in names)
        assert all(after[name][1] > before[name][1] for name in names), "it was used"
    assert not {"converting onnx to onnx", "quantizing"} & set(again.err.splitlines())


def test_another_version_of_a_tool_takes_nothing_of_what_was_made(shelf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert ran(tmp_path, *digits(shelf, cache)).code == 0
    before = steps(cache)
    newer = tmp_path / "newer" / "onnxruntime-99.0.dist-info"
    newer.mkdir(parents=True)
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 99.0\n")
    path = os.pathsep.join([str(newer.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    again = ran(tmp_path, *digits(shelf, cache, "--out", "c"), env={"PYTHONPATH": path})
    assert again.code == 0, again.err
    assert again.facts()["tools"]["onnxruntime"] == "99.0"
    assert "remembered" not in again.facts()
    assert {"converting onnx to onnx", "quantizing"} <= set(again.err.splitlines())
    after = steps(cache)
    assert {name: after[name] for name in before} == before, "a step of the older version was used"
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {name.split("/")[0] for name in before}


def test_a_killed_search_goes_on_where_it_was(shelf: Path, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    whole = ran(apart, *hopeless(shelf, apart / "cache"))
    assert whole.code == 3, whole.err
    cache = tmp_path / "cache"
    killed = stopped(tmp_path, signal.SIGKILL, 9, *hopeless(shelf, cache))
    assert killed.code == -signal.SIGKILL
    before = made(cache)
    assert len([name for name in before if name.startswith("onnx_int8/")]) >= 5
    assert not list(tmp_path.glob("b*"))
    resumed = ran(tmp_path, *hopeless(shelf, cache))
    print(f"whole {whole.cpu:.1f} s of the CPU, after the kill {resumed.cpu:.1f}")  # noqa: T201
    assert resumed.code == 3, resumed.err
    after = made(cache)
    assert {name: after[name] for name in before} == before, "a finished step was made anew"
    assert "converting onnx to onnx" not in resumed.err.splitlines()
    assert [(one["title"], one["verdict"]) for one in resumed.facts()["candidates"]] == [
        (one["title"], one["verdict"]) for one in whole.facts()["candidates"]
    ]
    assert resumed.cpu < whole.cpu


def test_what_a_killed_build_was_making_is_cleared_away_in_time(shelf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    left = cache / "steps" / "onnx_int8" / ".making-dead"
    left.mkdir(parents=True)
    (left / "half").write_bytes(bytes(1000))
    days_ago = time.time() - 3 * 86_400
    os.utime(left, (days_ago, days_ago))
    assert ran(tmp_path, *digits(shelf, cache)).code == 0
    assert not left.exists()


def test_ctrl_c_leaves_no_bundle(shelf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = stopped(tmp_path, signal.SIGINT, 2, *hopeless(shelf, cache))
    assert done.code == 1, done.err
    assert "error: stopped\n" in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not list(cache.glob("steps/*/.*"))
    assert made(cache)


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_memory_does_not_grow_with_the_calibration_data(format: str, tmp_path: Path) -> None:
    """The float file is made by the first build, whose peak is the converter's; turned images are no copies."""
    net = zoo.fashion_cnn()
    with np.load(net.test) as data:
        turned = np.rot90(data["x"][:4000], axes=(2, 3))
        np.savez(tmp_path / "calibration.npz", x=turned, label=data["label"][:4000])
        np.savez(tmp_path / "test.npz", x=data["x"][4000:], label=data["label"][4000:])
    order = (
        net.factory, "--weights", net.safetensors, "--target", TARGET, "--data", "test.npz", "--calibration",
        "calibration.npz", "--format", format, "--precision", "int8", "--smaller", "--max-drop", "90pt",
        "--cache", "cache", "--json", "--calibration-samples",
    )  # fmt: skip
    first, few, many = (ran(tmp_path, *order, count, "--out", f"b{count}") for count in (64, 256, 4000))
    assert (first.code, few.code, many.code) == (0, 0, 0), (first.err, few.err, many.err)
    assert many.facts()["data"]["calibration"]["n"] == 4000
    assert "quantizing" in few.err.splitlines()
    assert "quantizing" in many.err.splitlines()
    print(  # noqa: T201
        f"{format}: peak {few.peak_mb:.0f} MB with 256 ({few.seconds:.0f} s), {many.peak_mb:.0f} MB with 4,000 "
        f"({many.seconds:.0f} s); stated {few.facts()['peak_mb']:.0f} and {many.facts()['peak_mb']:.0f}"
    )
    assert many.peak_mb < few.peak_mb + 100
    assert many.facts()["peak_mb"] == pytest.approx(many.peak_mb, rel=0.1)

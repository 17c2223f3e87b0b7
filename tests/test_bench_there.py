"""`edgekit bench` on a device over a real OpenSSH server, and here: what it answers, keeps, and leaves behind."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from edgekit_runtime.bundle import open_bundle, read_manifest
from edgekit_runtime.endurance import Course
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.machine import scaling
from edgekit_runtime.manifest import to_json

from edgekit import benching, keys
from edgekit.stretch import Begun, Interval
from edgekit.vouching import signer_of
from examples.sshd import Server
from tests.commands import edgekit
from tests.runtime.bundles import make_bundle, write_manifest
from tests.runtime.machines import machine
from tests.runtime.signing import sign_folder
from tests.test_over_ssh import a_python, gone, worker_in
from tests.test_places import beside, silent
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """The sensors of a Raspberry Pi 5, whose clock is governed."""
    root = machine("rpi5", tmp_path / "pi")
    (root / scaling.POLICIES / "policy0/scaling_governor").write_text("ondemand\n")
    (root / scaling.POLICIES / "policy0/cpuinfo_max_freq").write_text("2400000\n")
    return root


def python_of(folder: Path, root: Path) -> Path:
    """A Python of the device, which notes where its scratch folder is, and whose worker looks for sensors in `root`."""
    note = f'case "$*" in *unpack.py*) echo "$2" >> {folder}/seen;; '
    return a_python(folder, f'{note}*edgekit_runtime.worker*) set -- "$@" --machine {root};; esac')


def scratch(folder: Path) -> Path:
    return Path((folder / "seen").read_text().splitlines()[-1]).parent


def a_command(folder: Path, *words: object) -> "subprocess.Popen[str]":
    """`edgekit WORDS` in a process of its own."""
    command = [sys.executable, "-m", "edgekit", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


def after_lines(stream: IO[str], count: int) -> list[str]:
    """What it said until the so-manieth interval."""
    lines: list[str] = []
    while sum(line.split()[1:2] == ["s"] for line in lines) < count:
        line = stream.readline()
        assert line, "".join(lines)
        lines.append(line)
    return lines


def test_a_device_is_measured_beside_its_sensors_and_the_evidence_is_kept(
    tmp_path: Path, bundle: Path, pi: Path, server: Server
) -> None:
    home = tmp_path / "keys"
    keys.new(home, "main")
    write_manifest(bundle, {**to_json(read_manifest(bundle)), "release": 5})
    sign_folder(bundle, keys.signing_key(home))
    model = (bundle / "model.onnx").read_bytes()
    url = server.url(str(python_of(tmp_path, pi)))
    done = edgekit(
        "bench", bundle, "--on", url, "--seconds", "2", "--interval", "200ms", "--threads", "1,2", "--batch", "3",
        "--keep", "--keys", home, "--csv", tmp_path / "rows.csv", "--ssh-config", server.config, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.json()
    assert [one["threads"] for one in found["runs"]] == [1, 2]
    one = found["runs"][0]
    assert (one["batch"], one["rate"], one["ended"]) == (3, None, None)
    assert one["n"] == sum(row["n"] for row in one["rows"]) > 0
    assert 0 < one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"] <= one["max_ms"]
    assert one["peak_mb"] > one["engine_mb"] > 5
    assert one["temperature"]["sensor"] == "cpu_thermal"
    assert one["clock"]["governors"] == ["ondemand"]
    assert one["throttled"] == {"undervoltage": 0}
    assert (one["energy"], one["no_energy"]) == (None, "no sensor")
    assert one["kernel"] == os.uname().release
    assert found["kept"] is True
    kept = open_bundle(bundle).manifest
    assert kept.evidence["measured"] == [{k: v for k, v in run.items() if k != "rows"} for run in found["runs"]]
    assert (kept.release, (bundle / "model.onnx").read_bytes()) == (5, model)
    assert signer_of(bundle, home).name == "main"
    shown = [
        line for line in edgekit("inspect", bundle).out.splitlines() if f"1 thread: p50 {one['p50_ms']:.4g}" in line
    ]
    assert len(shown) == 1
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(run["rows"]) for run in found["runs"])
    assert rows[0]["temperatures.cpu_thermal"] == "52.35"
    assert gone(scratch(tmp_path))


def test_a_device_that_gets_hot_amid_a_run_is_seen_to(tmp_path: Path, bundle: Path, pi: Path, server: Server) -> None:
    url = server.url(str(python_of(tmp_path, pi)))
    done = a_command(
        tmp_path, "bench", bundle, "--on", url, "--seconds", "3", "--interval", "200ms", "--rate", "100",
        "--ssh-config", server.config,
    )  # fmt: skip
    assert done.stderr is not None
    said = after_lines(done.stderr, 3)
    (pi / scaling.POLICIES / "policy0/scaling_cur_freq").write_text("1500000\n")
    (pi / "sys/devices/virtual/thermal/thermal_zone0/temp").write_text("84000\n")
    (pi / "sys/class/hwmon/hwmon2/in0_lcrit_alarm").write_text("1\n")
    out, rest = done.communicate(timeout=120)
    assert done.returncode == 0, rest
    assert "52 °C" in said[-1]
    assert "2400" in said[-1]
    last = next(line for line in reversed(rest.splitlines()) if " s " in line)
    for words in ("84 °C", "1500", "undervoltage"):
        assert words in last
    assert "52 to 84 °C (cpu_thermal)" in out
    assert "1500 to 2400 of 2400 MHz, governor ondemand" in out
    assert "undervoltage" in next(line for line in out.splitlines() if "verdict" in line)
    assert "at 100 a second" in out


def test_ctrl_c_keeps_what_was_measured_and_leaves_nothing_there(
    tmp_path: Path, bundle: Path, pi: Path, server: Server
) -> None:
    url = server.url(str(python_of(tmp_path, pi)))
    done = a_command(
        tmp_path, "bench", bundle, "--on", url, "--seconds", "600", "--interval", "200ms", "--keep", "--json",
        "--ssh-config", server.config,
    )  # fmt: skip
    assert done.stderr is not None
    after_lines(done.stderr, 3)
    worker = worker_in(scratch(tmp_path))
    done.send_signal(signal.SIGINT)
    out, said = done.communicate(timeout=120)
    assert done.returncode == 0, said
    (one,) = json.loads(out)["runs"]
    assert one["ended"] == "stopped by hand"
    assert len(one["rows"]) >= 3
    assert open_bundle(bundle).manifest.evidence["measured"][0]["ended"] == "stopped by hand"
    until(lambda: not Path(f"/proc/{worker}").exists())
    assert gone(scratch(tmp_path))


def test_a_line_that_drops_amid_a_run_is_an_error_and_what_was_measured_is_told(
    tmp_path: Path, bundle: Path, pi: Path, server: Server
) -> None:
    url = server.url(str(python_of(tmp_path, pi)))
    before = (bundle / "manifest.json").read_bytes()
    done = a_command(
        tmp_path, "bench", bundle, "--on", url, "--seconds", "600", "--interval", "200ms", "--keep",
        "--ssh-config", server.config,
    )  # fmt: skip
    assert done.stderr is not None
    after_lines(done.stderr, 3)
    for process in Path("/proc").glob("[0-9]*"):
        if ssh_of(process, done.pid):
            os.kill(int(process.name), signal.SIGKILL)
    out, said = done.communicate(timeout=120)
    assert done.returncode == 1
    assert "NOT WHOLE  ended by an error" in out
    assert "verdict" in out
    assert "error: " in said
    assert "hint: " in said
    assert "Traceback" not in said
    assert (bundle / "manifest.json").read_bytes() == before
    assert gone(scratch(tmp_path))


def ssh_of(process: Path, parent: int) -> bool:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        return int(fields[1]) == parent and (process / "comm").read_text().strip() == "ssh"
    except OSError:
        return False


def test_a_device_without_numpy_or_the_engine_says_what_to_install(
    tmp_path: Path, bundle: Path, server: Server
) -> None:
    bare = a_python(tmp_path, f'exec {sys.executable} -S "$@"', "bare")
    done = edgekit("bench", bundle, "--on", server.url(str(bare)), "--ssh-config", server.config)
    assert "has no numpy" in done.error()
    hidden = "import sys, runpy; sys.modules['onnxruntime'] = None; sys.argv = sys.argv[1:]; "
    code = f'{hidden}runpy.run_module("edgekit_runtime.worker", run_name="__main__")'
    (tmp_path / "hide.py").write_text(code)
    less = a_python(tmp_path, f'case "$1" in -m) shift; exec {sys.executable} {tmp_path}/hide.py "$@";; esac', "less")
    done = edgekit("bench", bundle, "--on", server.url(str(less)), "--ssh-config", server.config)
    assert "has no engine for onnx" in done.error()
    assert "pip install onnxruntime" in done.err


def test_the_runtime_that_is_installed_there_lends_its_python(tmp_path: Path, bundle: Path, server: Server) -> None:
    own = tmp_path / "home/.local/share/edgekit/current/bin"
    own.mkdir(parents=True)
    a_python(own, f"echo own >> {tmp_path}/used", "python")
    url = server.url()
    place = benching_place(url, server.config, "onnx", tmp_path / "home")
    done = subprocess.run(place, input=b"", capture_output=True, timeout=60)
    assert (tmp_path / "used").read_text().splitlines()[0] == "own"
    assert done.returncode != 0  # there was no archive to unpack


def benching_place(url: str, config: Path, engine: str, home: Path) -> list[str]:
    """The device's side of the command alone, run here with another home."""
    from edgekit.places.over_ssh import over_ssh

    command = over_ssh(url, config, engine).start(home).command[-1]
    return ["env", f"HOME={home}", "sh", "-c", command]


FAILS = """
import sys, time
from edgekit_runtime import worker
began, whole = [], worker.open_model
def failing(*words):
    run = whole(*words)
    def once(feeds):
        began.append(time.monotonic()) if not began else None
        if time.monotonic() > began[0] + 2: raise RuntimeError("the accelerator went away")
        return run(feeds)
    return once
worker.open_model = failing
sys.argv = ["worker", "--scratch", "files"]
sys.exit(worker.main())
"""
"""A worker whose engine fails after two seconds, as one does whose accelerator is reset."""


def seen_by(rows: list[Interval]) -> benching.Seen:
    def seen(begun: Begun, row: Interval | None) -> None:
        if row is not None:
            rows.append(row)

    return seen


def test_an_engine_that_fails_midway_leaves_what_was_measured_before(bundle: Path) -> None:
    rows: list[Interval] = []
    found = benching.stretch(
        beside(FAILS, "device"), open_bundle(bundle), EngineOptions(threads=1), (Course(600, 0.05, idle=0), None),
        silent, seen_by(rows),
    )  # fmt: skip
    assert found.error is not None
    assert "the accelerator went away" in str(found.ended)
    assert found.rows == tuple(rows)
    assert found.times.n == sum(row.n for row in rows) > 0


def test_an_emulated_place_is_refused_before_it_runs(bundle: Path) -> None:
    with pytest.raises(Unsupported, match="emulated"):
        benching.stretch(
            beside(), open_bundle(bundle), EngineOptions(threads=1), (Course(1, idle=0), None), silent, seen_by([])
        )


def test_this_machine_is_measured_the_same_way(tmp_path: Path, bundle: Path) -> None:
    done = edgekit("bench", bundle, "--seconds", "1", "--interval", "100ms")
    assert done.code == 0, done.err
    for words in ("tiny 1: onnx float32", "1 thread, back to back: n = ", "p50", "verdict", "peak"):
        assert words in done.out
    assert "a second" in done.err
    assert edgekit("bench", bundle, "--seconds", "0.3", "--json", "--quiet").json()["median_ms"] > 0


@pytest.mark.parametrize("engine", ["openvino", "tflite"])
def test_the_other_engines_are_measured_too(tmp_path: Path, engine: str) -> None:
    done = edgekit("bench", make_bundle(tmp_path / "b", engine, inside=True), "--seconds", "0.3", "--json", "--quiet")
    assert done.code == 0, done.err
    assert done.json()["runs"][0]["engine"] == engine

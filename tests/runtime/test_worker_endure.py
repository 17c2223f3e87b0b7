"""Long runs on the worker: an answer for each interval, a steady rate, and the machine's sensors beside the times."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import endurance
from edgekit_runtime.endurance import Course, endure, parse_course
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.frames import Message
from edgekit_runtime.machine import Reader, scaling
from edgekit_runtime.worker import serve

from tests.runtime.bundles import some, write_model
from tests.runtime.machines import machine
from tests.runtime.test_machine import fake_vcgencmd

pytestmark = pytest.mark.slow

OPTIONS = {"threads": 1, "device": "cpu", "precision": "float32"}


@pytest.fixture(autouse=True)
def _soon_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endurance, "WARM_SECONDS", 0.0)


def told(path: Path, course: dict[str, Any], root: Path = Path("/")) -> list[Message]:
    """What the worker says to an opening and a long run, after its hello."""
    write_model(path / "model.onnx", "onnx")
    opening = {"do": "open", "name": "m", "engine": "onnx", "path": str(path / "model.onnx"), "options": OPTIONS}
    asked = [Message(opening), Message({"do": "endure", "name": "m", **course}, {"x": some()})]
    said: list[Message] = []
    serve(iter(asked), said.append, None, root)
    return said[2:]


def taking(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


def test_a_long_run_has_an_answer_for_each_interval_and_one_for_its_end(tmp_path: Path) -> None:
    begun, *rows, end = told(tmp_path, {"seconds": 0.6, "interval": 0.1, "idle": 0})
    assert (begun.head["do"], end.head["do"]) == ("begun", "endured")
    assert begun.head["kernel"]
    assert 1 <= len(rows) <= 7
    for row in rows:
        taken = row.arrays["ms"]
        assert len(taken) == row.head["n"] > 0
        assert row.head["p50_ms"] == pytest.approx(float(np.median(taken)))
        assert row.head["p50_ms"] <= row.head["p90_ms"] <= row.head["p99_ms"] <= row.head["max_ms"]
        assert row.head["max_ms"] == pytest.approx(float(taken.max()))
        assert 0 < taken.sum() / 1000 <= row.head["seconds"]
        assert row.head["cpu_s"] >= 0
    assert [row.head["at"] for row in rows] == sorted(row.head["at"] for row in rows)
    assert rows[-1].head["at"] >= 0.6


@pytest.mark.parametrize(
    "bad",
    [
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": 1e9},
        {"seconds": "soon"},
        {"seconds": 1, "interval": 0},
        {"seconds": 1, "rate": 0},
        {"seconds": 1, "rate": float("inf")},
        {"seconds": 1, "idle": -1},
        {"seconds": 1, "rate": []},
    ],
)
def test_what_is_no_course_is_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        parse_course(bad)
    assert [one.head["do"] for one in told(tmp_path, bad)] == ["error"]


def test_a_course_without_its_length_is_refused(tmp_path: Path) -> None:
    (error,) = told(tmp_path, {})
    assert error.head["do"] == "error"


def test_an_engine_that_fails_midway_is_told_after_what_was_measured() -> None:
    count = iter(range(10**9))

    def run() -> None:
        time.sleep(0.01)
        if next(count) > 30:
            raise RuntimeError("out of memory")

    seen: list[str] = []
    course = endure(run, Course(60, 0.1, idle=0))
    with pytest.raises(RuntimeError, match="out of memory"):
        seen.extend(row["do"] for row, _ in course)
    assert seen[:3] == ["begun", "row", "row"]


def test_at_a_steady_rate_the_starts_are_so_far_apart() -> None:
    rows = [row for row, _ in endure(taking(0.0), Course(1.0, 0.25, 40, 0)) if row["do"] == "row"]
    starts = sum(row["n"] + row["missed"] for row in rows)
    assert starts == pytest.approx(40 * rows[-1]["at"], abs=3)


def test_starts_that_a_slow_run_leaves_no_time_for_are_counted_and_not_made_up_for() -> None:
    rows = [row for row, _ in endure(taking(0.05), Course(1.0, 0.5, 100, 0)) if row["do"] == "row"]
    assert sum(row["n"] for row in rows) <= 21
    assert sum(row["missed"] for row in rows) > 2 * sum(row["n"] for row in rows)


def test_a_run_longer_than_the_interval_makes_an_interval() -> None:
    rows = [(row, taken) for row, taken in endure(taking(0.15), Course(0.2, 0.05, idle=0)) if row["do"] == "row"]
    assert [row["n"] for row, _ in rows] in ([1], [1, 1])
    assert all(taken[0] >= 150 for _, taken in rows)


def test_what_the_sensors_of_a_pi_tell_is_beside_the_times(tmp_path: Path) -> None:
    root = machine("rpi5", tmp_path / "root")
    policy = root / scaling.POLICIES / "policy0"
    (policy / "scaling_governor").write_text("ondemand\n")
    (policy / "cpuinfo_max_freq").write_text("2400000\n")
    course = (row for row, _ in endure(taking(0.01), Course(60, 0.1, idle=0), root))
    begun, first = next(course), next(course)
    (policy / "scaling_cur_freq").write_text("1500000\n")
    (root / "sys/devices/virtual/thermal/thermal_zone0/temp").write_text("85000\n")
    (root / "sys/class/hwmon/hwmon2/in0_lcrit_alarm").write_text("1\n")
    second = next(course)
    assert begun["governors"] == {"0": "ondemand"}
    assert begun["fastest"] == {"0": 2_400_000_000}
    assert begun["temperatures"]["cpu_thermal"] == 52.35
    assert begun["cpus"] == 4
    assert "undervoltage" in begun["reasons"]
    assert (first["clocks"], first["temperatures"]["cpu_thermal"]) == ({"0": 2_400_000_000}, 52.35)
    assert (second["clocks"], second["temperatures"]["cpu_thermal"]) == ({"0": 1_500_000_000}, 85.0)
    assert (first["throttled"], second["throttled"]) == ([], ["undervoltage"])


def test_a_pis_firmware_is_asked_for_its_power_as_often_as_there_are_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits, asked = fake_vcgencmd(tmp_path, monkeypatch)
    bits.write_text("0x0")
    reader = Reader(machine("rpi5", tmp_path / "root"), often=1.0)
    for moment in (0.0, 0.5, 1.0, 2.0):
        reader.read(moment)
    assert asked() == asked("pmic_read_adc") == 3


def test_power_is_read_of_the_idle_machine_first_and_then_of_the_run(tmp_path: Path) -> None:
    root = machine("nuc", tmp_path / "root")
    counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.write_text("0\n")
    began = time.monotonic()

    def spend(watts: float) -> None:
        time.sleep(0.02)
        counter.write_text(f"{int((time.monotonic() - began) * watts * 1e6)}\n")

    begun, *rows = (row for row, _ in endure(lambda: spend(100.0), Course(1.5, 0.5, idle=0.5), root))
    assert begun["idle"]["rapl_package_0"] == 0
    assert not begun["locked"]
    assert np.median([row["power"]["rapl_package_0"] for row in rows[1:]]) == pytest.approx(100, rel=0.5)


def test_no_time_is_spent_on_an_idle_machine_without_a_sensor(tmp_path: Path) -> None:
    began = time.monotonic()
    begun, _ = next(endure(taking(0.0), Course(0.0, idle=60), tmp_path))
    assert begun["idle"] == {}
    assert time.monotonic() - began < 30


def test_counters_of_energy_for_root_alone_are_told_of(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "energy_uj").mkdir()  # to read it fails, as root too
    assert scaling.locked(tmp_path)
    (zone / "energy_uj").rmdir()
    (zone / "energy_uj").write_text("1\n")
    assert not scaling.locked(tmp_path)
    assert not scaling.locked(tmp_path / "nowhere")


def test_what_a_hypervisor_took_is_a_share_of_all_time(tmp_path: Path) -> None:
    stat = tmp_path / "proc/stat"
    stat.parent.mkdir()
    stat.write_text("cpu  100 0 100 700 0 0 0 100 0 0\n")
    before = scaling.ticks(tmp_path)
    stat.write_text("cpu  150 0 150 750 0 0 0 150 0 0\n")
    assert scaling.stolen(before, scaling.ticks(tmp_path)) == 0.25
    assert scaling.stolen(before, before) is None
    for bad in ("cpu 1 2", "cpu a b c d e f g h", "", "intr 1 2 3 4 5 6 7 8 9"):
        stat.write_text(bad)
        assert scaling.ticks(tmp_path) is None

"""What a machine tells of itself: this one, and four as their files show them; and what it tells when all is wrong."""

import ctypes.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from edgekit_runtime.families import text
from edgekit_runtime.machine import Gpu, Machine, Reader, families, to_json
from edgekit_runtime.machine.firmware import rails
from edgekit_runtime.machine.gpu import open_nvml

from tests.runtime.machines import NAMES, machine

PMIC = """ VDD_CORE_A current(7)=2.50000000A
   3V3_SYS_A current(1)=0.10000000A
  DDR_VDDQ_A current(4)=0.00000000A
  VDD_CORE_V volt(15)=0.80000000V
   3V3_SYS_V volt(9)=3.30000000V
  DDR_VDDQ_V volt(12)=0.60000000V
     EXT5V_V volt(24)=5.10000000V
"""


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def fake_vcgencmd(folder, monkeypatch, pmic=PMIC):
    """A program of that name, first on PATH; it answers with what `bits` holds, and notes each question."""
    program = folder / "bin" / "vcgencmd"
    program.parent.mkdir()
    (folder / "pmic").write_text(pmic)
    script = f"""#!/bin/sh
echo $1 >> {folder}/asked
case $1 in
get_throttled) echo "throttled=$(cat {folder}/bits)" ;;
pmic_read_adc) [ -s {folder}/pmic ] && cat {folder}/pmic || echo 'error=1 error_msg="Command not registered"' ;;
esac
"""
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def asked(question="get_throttled"):
        return (folder / "asked").read_text().split().count(question) if (folder / "asked").exists() else 0

    return folder / "bits", asked


def test_this_machine_is_read_as_the_kernel_tells_it(tmp_path):
    reader = Reader(disk=tmp_path)
    first = reader.read(time.monotonic())
    assert first.cpu is None
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    found = reader.read(time.monotonic())
    assert found.cpus == os.sysconf("SC_NPROCESSORS_ONLN")
    assert 0.5 / found.cpus < found.cpu <= 1  # one thread was busy all the time
    assert found.memory_total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found.memory_available < found.memory_total
    usage = shutil.disk_usage(tmp_path)
    assert found.disk_total == usage.total
    assert found.disk_free == pytest.approx(usage.free, rel=0.5)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert found.resident == pytest.approx(int(status["VmRSS"].split()[0]) * 1024, rel=0.1)
    assert found.uptime == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=60)
    assert found.load == pytest.approx(os.getloadavg()[0], abs=10)
    assert all(-50 < value < 150 for value in found.temperatures.values())


def test_a_whole_reading_costs_less_than_three_milliseconds(tmp_path):
    for root in (Path("/"), *(machine(name, tmp_path / name) for name in NAMES if not name.startswith("rpi"))):
        reader = Reader(root, tmp_path)
        reader.read(0.0)
        took = []
        for moment in range(1, 31):
            began = time.perf_counter()
            reader.read(float(moment))
            took.append(time.perf_counter() - began)
        assert min(took) < 0.003, root


def test_a_raspberry_pi_5_tells_its_sensors_once_each_and_its_power(tmp_path, monkeypatch):
    bits, _ = fake_vcgencmd(tmp_path, monkeypatch)
    bits.write_text("0x0")
    found = Reader(machine("rpi5", tmp_path / "root")).read(1.0)
    assert found.temperatures == {"cpu_thermal": 52.35, "rp1_adc": 45.123, "nvme_composite": 38.85}
    assert found.frequencies == {"0": 2_400_000_000}
    assert found.power == {"pmic_rails": pytest.approx(2.5 * 0.8 + 0.1 * 3.3)}
    assert (found.throttled, found.reasons) == ((), ("frequency_capped", "temperature", "throttled", "undervoltage"))
    assert (found.cpus, found.load, found.uptime) == (4, 0.52, 93784.21)
    assert (found.memory_total, found.memory_available) == (8254464 * 1024, 7012352 * 1024)
    assert found.resident == 21250 * os.sysconf("SC_PAGE_SIZE")
    assert found.gpus == ()
    assert found.disk_total is None


@pytest.mark.parametrize(
    ("told", "reasons"),
    [
        ("0x1", ("undervoltage",)),
        ("0x50005", ("throttled", "undervoltage")),
        ("0xe0008", ("temperature",)),
        ("0x50000", ()),  # it was, at some time since it was switched on
        ("error", None),
        ("0xfffffffffff", None),
    ],
)
def test_the_firmware_s_bits_are_reasons_in_words(tmp_path, monkeypatch, told, reasons):
    bits, _ = fake_vcgencmd(tmp_path, monkeypatch)
    bits.write_text(told)
    found = Reader(machine("rpi5", tmp_path / "root")).read(1.0)
    assert found.throttled == (reasons or ())
    assert ("throttled" in found.reasons) == (reasons is not None)
    assert "undervoltage" in found.reasons  # which the kernel's own alarm tells


def test_the_firmware_is_asked_every_ten_seconds_at_most_and_what_came_and_went_meanwhile_counts(tmp_path, monkeypatch):
    bits, asked = fake_vcgencmd(tmp_path, monkeypatch)
    bits.write_text("0x0")
    reader = Reader(machine("rpi5", tmp_path / "root"))
    assert [reader.read(moment).throttled for moment in (0.0, 1.0, 9.9)] == [()] * 3
    assert asked() == 1
    bits.write_text("0x80000")
    assert reader.read(9.95).throttled == ()
    assert reader.read(10.0).throttled == ("temperature",)  # not hot now, but it was since the last question
    assert reader.read(21.0).throttled == ()
    assert asked() == asked("pmic_read_adc") == 3


def test_a_firmware_without_power_meters_is_asked_for_them_once(tmp_path, monkeypatch):
    bits, asked = fake_vcgencmd(tmp_path, monkeypatch, pmic="")
    bits.write_text("0x0")
    reader = Reader(machine("rpi4", tmp_path / "root"))
    assert [reader.read(moment).power for moment in (0.0, 11.0, 22.0)] == [{}] * 3
    assert (asked(), asked("pmic_read_adc")) == (3, 1)


def test_a_pi_without_the_program_tells_by_the_kernel_s_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    reader = Reader(machine("rpi4", tmp_path / "root"))
    found = reader.read(0.0)
    assert found.throttled == ("throttled", "undervoltage")
    assert found.temperatures == {"cpu_thermal": 80.342}
    assert found.frequencies == {"0": 600_000_000}
    write(tmp_path / "root/sys/devices/platform/soc/soc:firmware/get_throttled", "0")
    write(tmp_path / "root/sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0")
    assert reader.read(1.0).throttled == ()


def test_a_program_that_hangs_or_fails_is_left_alone_for_a_while(tmp_path, monkeypatch):
    bits, asked = fake_vcgencmd(tmp_path, monkeypatch)
    program = tmp_path / "bin" / "vcgencmd"
    program.write_text(program.read_text() + "exit 1\n")
    bits.write_text("0x1")
    reader = Reader(machine("rpi5", tmp_path / "root"))
    assert [reader.read(moment).throttled for moment in (0.0, 11.0, 99.0, 101.0)] == [()] * 4
    assert asked() == 2
    monkeypatch.setattr("edgekit_runtime.machine.firmware.TIMEOUT", 0.2)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    began = time.monotonic()
    assert reader.read(300.0).throttled == ()
    assert time.monotonic() - began < 30


def test_no_other_machine_runs_vcgencmd(tmp_path, monkeypatch):
    bits, asked = fake_vcgencmd(tmp_path, monkeypatch)
    bits.write_text("0x1")
    for name in ("nuc", "jetson-orin"):
        assert "throttled" not in Reader(machine(name, tmp_path / name)).read(0.0).reasons
    assert asked() == 0


def test_rails_without_both_meters_are_not_summed():
    assert rails(PMIC) == pytest.approx(2.33)
    assert rails("EXT5V_V volt(24)=5.1V") is None
    assert rails('error=1 error_msg="Command not registered"') is None


def test_a_jetson_tells_its_rails_its_gpu_and_no_zone_that_is_off(tmp_path):
    found = Reader(machine("jetson-orin", tmp_path)).read(0.0)
    assert found.temperatures.keys() == {"cpu_thermal", "gpu_thermal", "soc0_thermal", "soc1_thermal", "soc2_thermal",
                                         "tj_thermal"}  # fmt: skip
    assert found.temperatures["gpu_thermal"] == 45.468
    assert found.power == {
        "vdd_gpu_soc": pytest.approx(19.864 * 0.160),
        "vdd_cpu_cv": pytest.approx(19.864 * 0.040),
        "vin_sys_5v0": pytest.approx(5.056 * 0.536),
        "vddq_vdd2_1v8ao": pytest.approx(5.056 * 0.168),
    }  # neither what is not connected nor the sum of the shunts
    assert found.frequencies == {"0": 2_201_600_000, "4": 1_344_000_000, "8": 729_600_000}
    assert found.gpus == (Gpu("integrated", 0.437),)
    assert (found.throttled, found.reasons) == ((), ("overcurrent", "temperature", "undervoltage"))


def test_a_jetson_is_throttled_while_an_alert_is_up_or_a_counter_of_its_supply_grows(tmp_path):
    reader = Reader(machine("jetson-orin", tmp_path))
    assert reader.read(0.0).throttled == ()
    write(tmp_path / "sys/class/hwmon/hwmon3/oc3_event_cnt", 38)
    assert reader.read(1.0).throttled == ("overcurrent",)
    write(tmp_path / "sys/class/thermal/cooling_device1/cur_state", 1)
    write(tmp_path / "sys/class/hwmon/hwmon3/oc1_event_cnt", 1)
    assert reader.read(2.0).throttled == ("temperature", "undervoltage")
    assert reader.read(3.0).throttled == ("temperature",)


@pytest.mark.parametrize(
    "path", ["sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load", "sys/devices/platform/17000000.gpu/load"]
)
def test_each_jetpack_s_place_of_the_gpu_s_load_is_known(tmp_path, path):
    write(tmp_path / path, 1000)
    reader = Reader(tmp_path)
    assert reader.read(0.0).gpus == (Gpu("integrated", 1.0),)
    write(tmp_path / path, 70000)
    assert reader.read(1.0).gpus == (Gpu("integrated", None),)


def test_power_comes_from_rapl_across_the_wrap_of_its_counter(tmp_path):
    reader = Reader(machine("nuc", tmp_path))
    assert reader.read(10.0).power == {}
    zones = tmp_path / "sys/class/powercap"
    write(zones / "intel-rapl:0/energy_uj", 30_000_000 - (262_143_328_850 - 262_140_000_000))
    write(zones / "intel-rapl:0:0/energy_uj", 21_000_000)
    write(zones / "intel-rapl:1/energy_uj", "gone")
    assert reader.read(12.0).power == {
        "rapl_package_0": pytest.approx(15.0),
        "rapl_package_0_core": pytest.approx(10.0),
        "rapl_package_0_uncore": 0.0,
    }
    assert reader.read(12.0).power == {}  # no time passed


def test_an_x86_is_throttled_when_its_counters_grew_since_the_last_look(tmp_path):
    reader = Reader(machine("nuc", tmp_path))
    cpu = tmp_path / "sys/devices/system/cpu"
    assert reader.read(0.0).throttled == ()  # it was, some time before
    assert reader.read(1.0).reasons == ("power", "temperature")
    write(cpu / "cpu2/thermal_throttle/core_throttle_count", 4)
    assert reader.read(2.0).throttled == ("temperature",)
    write(cpu / "cpu0/thermal_throttle/package_power_limit_count", 2)
    assert reader.read(3.0).throttled == ("power",)
    assert reader.read(4.0).throttled == ()


def test_the_sensors_of_a_nuc_are_named_by_chip_and_label(tmp_path):
    found = Reader(machine("nuc", tmp_path)).read(0.0)
    assert found.temperatures == {
        "acpitz": 27.8,
        "x86_pkg_temp": 61.0,
        "coretemp_package_id_0": 61.0,
        "coretemp_core_0": 60.0,
        "coretemp_core_1": 61.0,
    }
    assert found.frequencies == {"0": 2_300_000_000, "1": 2_400_000_000, "2": 2_500_000_000, "3": 2_600_000_000}


def test_a_sensor_that_comes_later_is_found_within_a_minute_and_two_of_a_name_are_told_apart(tmp_path):
    reader = Reader(machine("rpi4", tmp_path))
    reader.read(0.0)
    for index in (5, 6):
        write(tmp_path / f"sys/class/hwmon/hwmon{index}/name", "nvme")
        write(tmp_path / f"sys/class/hwmon/hwmon{index}/temp1_input", 40000 + index)
    assert "nvme" not in reader.read(59.0).temperatures
    found = reader.read(60.0).temperatures
    assert (found["nvme"], found["nvme_2"]) == (40.005, 40.006)


def test_the_cpu_s_share_is_of_the_time_since_the_last_look(tmp_path):
    reader = Reader(tmp_path)
    shares = []
    for line in ("100 0 100 700 100 0 0 0 900 0", "150 0 100 740 110 0 0 0 950 0", "150 0 100 740 110 0 0 0 950 0",
                 "10 0 0 0 0 0 0 0 0 0", "20 0 10 20 10 0 0 40 0 0"):  # fmt: skip
        write(tmp_path / "proc/stat", f"cpu  {line}\ncpu0 {line}")
        shares.append(reader.read(float(len(shares))).cpu)
    # half busy; no time passed; set back; 10 user, 10 system and 40 stolen of 90
    assert shares == [None, 0.5, None, None, pytest.approx(60 / 90)]


def test_the_number_of_sensors_is_bounded(tmp_path):
    for index in range(300):
        write(tmp_path / f"sys/class/hwmon/hwmon{index}/name", "chip")
        write(tmp_path / f"sys/class/hwmon/hwmon{index}/temp1_input", 40000)
        write(tmp_path / f"sys/class/thermal/thermal_zone{index}/temp", 40000)
        write(tmp_path / f"sys/devices/system/cpu/cpufreq/policy{index}/scaling_cur_freq", 1000)
    found = Reader(tmp_path).read(0.0)
    assert (len(found.temperatures), len(found.frequencies)) == (64, 64)


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"\0", b"abc", b"-1", b"-99999999", b"9" * 60, b"9" * 9000, b"1.5e400", b"\xff\xfe", "٣²".encode()],
)
@pytest.mark.parametrize("name", NAMES)
def test_nonsense_in_every_file_is_left_out_and_never_an_error(tmp_path, monkeypatch, name, nonsense):
    monkeypatch.setenv("PATH", str(tmp_path))
    root = machine(name, tmp_path / "root")
    good = Reader(root)
    good.read(0.0)
    for path in root.rglob("*"):
        if path.is_file() and path.name not in ("name", "type", "model"):
            path.write_bytes(nonsense)
    for reader in (good, Reader(root)):
        for moment in (1.0, 2.0, 70.0):
            found = reader.read(moment)
            text(families(found))
            json.dumps(to_json(found), allow_nan=False)
            assert all(-50 < value < 150 for value in found.temperatures.values())
            assert all(0 <= value < 10_000 for value in found.power.values())
            assert found.memory_total is None
            assert found.cpu is None


def test_an_empty_machine_tells_nothing_and_its_metrics_are_empty(tmp_path):
    found = Reader(tmp_path / "none", tmp_path / "none").read(0.0)
    assert found == Machine()
    assert text(families(found)) == "\n"


def test_metrics_have_the_promised_names_and_a_reason_is_one_only_now():
    gpus = (Gpu("A", 0.5, 1, 2, 60.0, 70.0, 80.0, 9, ("power",), ("power", "temperature")), Gpu("B"))
    found = Machine(0.25, 4, 0.5, {"cpu": 51.5}, ("throttled",), ("throttled", "undervoltage"), {"0": 10}, 8, 4, 2, 100,
                    50, {"rail": 2.5}, 99.5, gpus)  # fmt: skip
    lines = [line for line in text(families(found)).splitlines() if not line.startswith("#")]
    assert lines == [
        "edgekit_machine_cpu_ratio 0.25",
        "edgekit_machine_load1 0.5",
        "edgekit_machine_memory_total_bytes 8",
        "edgekit_machine_memory_available_bytes 4",
        "edgekit_machine_disk_total_bytes 100",
        "edgekit_machine_disk_free_bytes 50",
        "edgekit_machine_uptime_seconds 99.5",
        'edgekit_machine_temperature_celsius{sensor="cpu"} 51.5',
        'edgekit_machine_frequency_hertz{cpu="0"} 10',
        'edgekit_machine_power_watts{sensor="rail"} 2.5',
        'edgekit_machine_throttled{reason="throttled"} 1',
        'edgekit_machine_throttled{reason="undervoltage"} 0',
        'edgekit_gpu_utilization_ratio{gpu="0"} 0.5',
        'edgekit_gpu_memory_used_bytes{gpu="0"} 1',
        'edgekit_gpu_memory_total_bytes{gpu="0"} 2',
        'edgekit_gpu_temperature_celsius{gpu="0"} 60',
        'edgekit_gpu_power_watts{gpu="0"} 70',
        'edgekit_gpu_power_limit_watts{gpu="0"} 80',
        'edgekit_gpu_frequency_hertz{gpu="0"} 9',
        'edgekit_gpu_throttled{gpu="0",reason="power"} 1',
        'edgekit_gpu_throttled{gpu="0",reason="temperature"} 0',
    ]
    told = to_json(found)
    assert told["gpus"][1] == {"name": "B", "utilization": None, "memory_used": None, "memory_total": None,
                               "temperature": None, "power": None, "power_limit": None, "frequency": None,
                               "throttled": (), "reasons": ()}  # fmt: skip
    assert json.loads(json.dumps(told))["throttled"] == ["throttled"]


# NVML's own interface: the names, argument types and struct layouts of NVIDIA's nvml.h
NVML = r"""
#include <string.h>
typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct { unsigned int gpu; unsigned int memory; } nvmlUtilization_t;
typedef struct { unsigned long long total; unsigned long long free; unsigned long long used; } nvmlMemory_t;
typedef int nvmlReturn_t;
enum { NVML_SUCCESS = 0, NVML_ERROR_UNINITIALIZED = 1, NVML_ERROR_INVALID_ARGUMENT = 2, NVML_ERROR_NOT_SUPPORTED = 3 };
enum { nvmlClocksThrottleReasonGpuIdle = 0x1, nvmlClocksThrottleReasonSwPowerCap = 0x4,
       nvmlClocksThrottleReasonHwSlowdown = 0x8, nvmlClocksThrottleReasonHwThermalSlowdown = 0x40 };
typedef enum { NVML_CLOCK_GRAPHICS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 } nvmlClockType_t;
struct nvmlDevice_st {
    const char *name; unsigned busy, degrees, milliwatts; unsigned long long used; int old; unsigned long long slow;
};
static struct nvmlDevice_st cards[2] = {
    {"NVIDIA RTX A2000 12GB", 37, 61, 43210, 5368709120ULL, 0,
     nvmlClocksThrottleReasonSwPowerCap | nvmlClocksThrottleReasonHwThermalSlowdown | nvmlClocksThrottleReasonGpuIdle},
    {"Quadro K420", 0, 40, 0, 104857600ULL, 1, 0}};
static int ready;
nvmlReturn_t nvmlInit_v2(void) { ready = 1; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *n) {
    if (!ready) return NVML_ERROR_UNINITIALIZED;
    *n = 2; return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvmlDevice_t *d) {
    if (i > 1) return NVML_ERROR_INVALID_ARGUMENT;
    *d = &cards[i]; return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *name, unsigned int length) {
    if (length < strlen(d->name) + 1) return NVML_ERROR_INVALID_ARGUMENT;
    strcpy(name, d->name); return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u) {
    if (d->old) return NVML_ERROR_NOT_SUPPORTED;
    u->gpu = d->busy; u->memory = 99; return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m) {
    m->total = 12884901888ULL; m->used = d->used; m->free = m->total - m->used; return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, int sensor, unsigned int *degrees) {
    if (sensor != 0) return NVML_ERROR_INVALID_ARGUMENT;
    *degrees = d->degrees; return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *milliwatts) {
    if (d->old) return NVML_ERROR_NOT_SUPPORTED;
    *milliwatts = d->milliwatts; return NVML_SUCCESS;
}
"""
# what came later: a driver may be without
NVML_SINCE = r"""
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned int *limit) {
    if (d->old) return NVML_ERROR_NOT_SUPPORTED;
    *limit = 70000; return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, nvmlClockType_t type, unsigned int *megahertz) {
    *megahertz = type == NVML_CLOCK_SM ? (d->old ? 876 : 1200) : 1; return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *reasons) {
    if (d->old) return NVML_ERROR_NOT_SUPPORTED;
    *reasons = d->slow; return NVML_SUCCESS;
}
"""
SLOWED = {"throttled": ("power", "temperature"), "reasons": ("power", "temperature", "hardware")}
CARDS = (
    Gpu("NVIDIA RTX A2000 12GB", 0.37, 5368709120, 12884901888, 61.0, 43.21, 70.0, 1_200_000_000, **SLOWED),
    Gpu("Quadro K420", None, 104857600, 12884901888, 40.0, None, None, 876_000_000),
)


def compiled(folder, source):
    """A stand-in for the driver's library, which this machine lacks: the same names and layouts, made by a C compiler.
    It shows that they are called as nvml.h declares them, not that a driver answers so."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here to make a libnvidia-ml.so.1 with")
    (folder / "nvml.c").write_text(source)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "nvml.c")], check=True)
    return library


@pytest.fixture(scope="module")
def nvml(tmp_path_factory):
    """A library that answers as NVML does."""
    return compiled(tmp_path_factory.mktemp("nvml"), NVML + NVML_SINCE)


def test_nvidia_s_gpus_are_asked_through_their_library_and_what_one_does_not_know_is_left_out(nvml):
    read = open_nvml(str(nvml))
    assert read is not None
    assert read() == read() == CARDS


def test_an_old_driver_that_lacks_later_questions_answers_the_others(tmp_path):
    read = open_nvml(str(compiled(tmp_path, NVML)))
    assert read is not None
    assert read()[0] == Gpu("NVIDIA RTX A2000 12GB", 0.37, 5368709120, 12884901888, 61.0, 43.21)


def test_a_driver_without_its_library_is_told_once_and_makes_no_series(tmp_path, caplog):
    if ctypes.util.find_library("nvidia-ml"):
        pytest.skip("the driver's library is here")
    write(tmp_path / "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module")
    reader = Reader(tmp_path)
    assert (reader.read(0.0).gpus, reader.read(1.0).gpus) == ((), ())
    assert [record.getMessage() for record in caplog.records if "libnvidia-ml.so.1" in record.getMessage()] == [
        "NVIDIA's driver runs, but libnvidia-ml.so.1 does not answer: its GPUs are not told of"
    ]


def test_a_driver_makes_the_library_load_by_its_name(nvml, tmp_path):
    write(tmp_path / "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module")
    code = (
        "import sys, pathlib, json; from edgekit_runtime.machine import Reader, to_json\n"
        "print(json.dumps(to_json(Reader(pathlib.Path(sys.argv[1])).read(0.0))['gpus']))"
    )
    environ = {**os.environ, "LD_LIBRARY_PATH": str(nvml.parent)}
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environ, check=True, capture_output=True, text=True
    )
    assert json.loads(said.stdout) == json.loads(json.dumps([asdict(one) for one in CARDS]))


def test_without_a_driver_no_library_is_loaded_and_with_a_broken_one_there_are_no_gpus(tmp_path):
    code = (
        "import sys, pathlib; from edgekit_runtime.machine import Reader\n"
        "Reader(pathlib.Path(sys.argv[1])).read(0.0); print('ctypes' in sys.modules, 'subprocess' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "False"]
    assert open_nvml(str(tmp_path / "none.so")) is None
    assert open_nvml("libc.so.6") is None

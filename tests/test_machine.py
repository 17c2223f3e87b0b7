"""A whole emulated arm64 machine, flashed over ssh: it serves after a reboot and after its power failed; systemd ends
an engine that hangs, and holds one that eats memory."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from benchmarks.power_cuts import KEYS, cuts, ended, flash
from tests import weak_spots
from tests.machine import CannotBuild, machine, missing

pytestmark = pytest.mark.slow
WHY = missing()
if WHY is not None:
    pytestmark = [pytest.mark.slow, pytest.mark.skip(reason=WHY)]
INFER = f"/v2/models/{weak_spots.NAME}/infer"


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A machine that was flashed with the model of weak spots."""
    folder: Path = tmp_path_factory.mktemp("m")
    desk = folder / "desk"
    desk.mkdir()
    try:
        with machine(folder) as one:
            ended(flash(one, desk, weak_spots.bundle(desk / "weak", "rpi4", desk / KEYS), "--quiet"))
            yield one
    except CannotBuild as error:
        pytest.skip(f"the emulated machine could not be made: {error}")


def ask(there, turns, floats, seconds):
    """What the machine's own server answers to a request from the machine itself; None where it does not."""
    data = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [turns, floats]}]}
    line = f"u.Request('http://127.0.0.1:8000{INFER}', {json.dumps(data).encode()!r}), timeout={seconds}"
    try:
        found = there.ssh(f"python3 - <<'E'\nimport urllib.request as u\nprint(u.urlopen({line}).read().decode())\nE")
    except subprocess.CalledProcessError:
        return None
    return json.loads(found)


def works(there):
    """It answers."""
    there.get(f"/v2/models/{weak_spots.NAME}/ready")
    return ask(there, 1.0, 1.0, 60)["outputs"][0]["data"] == [1.0, 1.0]


def restarts(there):
    return int(there.ssh("systemctl show -P NRestarts edgekit").strip())


def test_a_reboot_leaves_it_serving(there):
    assert works(there)
    boot = there.ssh("cat /proc/sys/kernel/random/boot_id")
    there.ssh("systemd-run --quiet --on-active=1 systemctl reboot")
    there.until(f"test \"$(cat /proc/sys/kernel/random/boot_id)\" != '{boot.strip()}'")
    assert works(there)
    assert there.ssh("systemctl show -P ActiveState edgekit").strip() == "active"


def test_the_watchdog_bites_when_the_engine_hangs(there):
    assert works(there)
    before = restarts(there)
    assert ask(there, 1e15, 1.0, 5) is None
    there.until(f"test $(systemctl show -P NRestarts edgekit) -gt {before}")
    assert works(there)
    said = there.ssh("journalctl --no-pager -u edgekit")
    assert "Watchdog timeout" in said
    assert "does not answer" in said


def test_memory_beyond_the_units_is_not_had_and_the_machine_lives_on(there):
    assert works(there)
    most = int(there.ssh("systemctl show -P MemoryMax edgekit"))
    whole = int(there.ssh("awk '/MemTotal/ {print $2}' /proc/meminfo")) * 1024
    assert most < whole
    before, boot = restarts(there), there.ssh("cat /proc/sys/kernel/random/boot_id")
    assert ask(there, 1.0, float((most + whole) // 8), 120) is None
    there.until(f"test $(systemctl show -P NRestarts edgekit) -gt {before}")
    assert works(there)
    assert there.ssh("cat /proc/sys/kernel/random/boot_id") == boot
    killed = there.ssh("journalctl --no-pager -k")
    assert "oom_memcg=/system.slice/edgekit.service" in killed


def test_a_machine_whose_power_fails_in_a_flash_serves_the_old_version_or_the_new(there):
    told: list[str] = []
    found = cuts(there, there.folder / "desk", 1, random.Random(3), told.append)
    assert found.total() == 1, told
    assert works(there)

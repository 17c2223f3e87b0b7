"""An emulated arm64 machine, flashed over ssh, loses its power in the midst: it serves the old version or the new."""

import random
from pathlib import Path

import pytest

from benchmarks.power_cuts import cuts
from tests.machine import CannotBuild, machine, missing

pytestmark = pytest.mark.slow
WHY = missing()


@pytest.mark.skipif(WHY is not None, reason=str(WHY))
def test_a_machine_whose_power_fails_in_a_flash_serves_the_old_version_or_the_new(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("m")
    (folder / "desk").mkdir()
    told: list[str] = []
    try:
        with machine(folder) as there:
            found = cuts(there, folder / "desk", 1, random.Random(3), told.append)
    except CannotBuild as error:
        pytest.skip(f"the emulated machine could not be made: {error}")
    assert found.total() == 1, told

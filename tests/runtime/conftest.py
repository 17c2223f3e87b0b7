"""What tests of a device's folder share."""

from pathlib import Path

import pytest
from edgekit_runtime.device import Device

from tests.runtime.devices import Maker, device_folder


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """Makes bundles that the device trusts."""
    return Maker(tmp_path)


@pytest.fixture
def device(tmp_path: Path, maker: Maker) -> Device:
    """A device that trusts the maker, with nothing on it."""
    return Device(device_folder(tmp_path / "device", maker))

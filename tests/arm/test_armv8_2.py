"""ARM cores with 8-bit dot product (Raspberry Pi 5, servers): every engine's wheel, every bundle, as on x86."""

import pytest

from tests.arm.checking import check
from tests.arm.conftest import Show

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("core", ["cortex-a76", "neoverse-n1"])
@pytest.mark.parametrize("engine", ["tflite", "onnx", "openvino"])  # not in the order of the other files: made once
def test_every_bundle_answers_as_on_x86(core: str, engine: str, show: Show) -> None:
    check(show(core, engine))

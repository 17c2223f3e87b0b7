"""ARM cores without 8-bit dot product (Raspberry Pi 3 and 4): every engine's wheel, every bundle, as on x86."""

import pytest

from tests.arm.checking import check
from tests.arm.conftest import Show

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a72"])
@pytest.mark.parametrize("engine", ["onnx", "openvino", "tflite"])
def test_every_bundle_answers_as_on_x86(core: str, engine: str, show: Show) -> None:
    check(show(core, engine))

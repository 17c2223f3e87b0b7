"""x86-64-v2 and v3 as Nehalem and Haswell: every engine's wheel, every bundle, as on this machine."""

import pytest

from tests.arm.checking import check
from tests.arm.conftest import Show

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("core", ["Nehalem", "Haswell"])
@pytest.mark.parametrize("engine", ["openvino", "onnx", "tflite"])
def test_every_bundle_answers_as_here(core: str, engine: str, show: Show) -> None:
    check(show(core, engine))

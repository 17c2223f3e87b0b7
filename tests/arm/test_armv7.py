"""32-bit ARM (Cortex-A7): tflite-runtime with the distribution's numpy, and the server without compiled extras."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.arm.checking import check
from tests.arm.conftest import Fetch, Show
from tests.arm.exhibits import COMPILED, found
from tests.arm.replaying import RULED_OUT
from tests.arm.serving import say, serving, within

pytestmark = pytest.mark.slow

CORE = "cortex-a7"
CHOSEN = """
import json, platform
import numpy, tflite_runtime
from edgekit_runtime import parsing
from edgekit_runtime.protocols import jsons
parser = type(parsing.make_parser(None)).__name__
print(json.dumps([platform.machine(), parser, jsons._orjson()[0] is None, numpy.__file__, tflite_runtime.__version__]))
"""


def test_every_bundle_answers_as_on_x86(show: Show) -> None:
    check(show(CORE, "tflite"))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_engine_without_a_32_bit_wheel_is_ruled_out_with_the_targets_reason(engine: str, show: Show) -> None:
    cells = show(CORE, engine)
    check(cells)
    assert {cell.outcome for cell in cells} == {RULED_OUT}
    assert all("has no armv7l wheel" in cell.why for cell in cells)


def test_the_server_answers_an_http_request_under_qemu_arm(fetch: Fetch, tmp_path: Path) -> None:
    shown = [found("tflite", "convolving float32"), found("tflite", "convolving int8, one scale a dense layer")]
    with serving(fetch(CORE), [bundle.folder for bundle in shown], tmp_path) as live:
        for bundle in shown:
            within(bundle, partial(live.by_json, bundle.manifest.name))
            within(bundle, partial(live.by_bytes, bundle.manifest.name))
            answered = 2 * len(bundle.golden())
            assert live.counted("edgekit_requests_answered_total", bundle.manifest.name) == answered
        assert not live.loaded() & COMPILED
        assert "ld-linux-armhf" in live.loaded()
    assert live.process.returncode == 0


def test_http_and_json_are_read_in_python_where_nothing_compiled_is_installed(fetch: Fetch, tmp_path: Path) -> None:
    machine, parser, without_orjson, numpy, version = json.loads(say(fetch(CORE), CHOSEN, tmp_path))
    assert (machine, parser, without_orjson, version) == ("armv7l", "_H11", True, "2.14.0")
    assert "/usr/lib/python3/dist-packages/" in numpy

"""The HTTP server on every 64-bit ARM core: numbers as JSON and as bytes, all three engines behind one address."""

from functools import partial
from pathlib import Path

import pytest

from tests.arm.conftest import Fetch
from tests.arm.exhibits import COMPILED, found
from tests.arm.serving import serving, within

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"])
def test_the_server_answers_over_http_as_on_x86(core: str, fetch: Fetch, tmp_path: Path) -> None:
    shown = [found("tflite", "convolving int8"), found("onnx", "convolving int8"), found("openvino", "dense float32")]
    with serving(fetch(core), [bundle.folder for bundle in shown], tmp_path) as live:
        for bundle in shown:
            within(bundle, partial(live.by_json, bundle.manifest.name))
            within(bundle, partial(live.by_bytes, bundle.manifest.name))
            answered = 2 * len(bundle.golden())
            assert live.counted("edgekit_requests_answered_total", bundle.manifest.name) == answered
        assert live.loaded() >= COMPILED
    assert live.process.returncode == 0

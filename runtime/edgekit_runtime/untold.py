"""Import a library without the telemetry that it brings: OpenVINO and NNCF report every import to their maker.

Refuses nothing; a library that finds no `openvino_telemetry` uses a stand-in of its own that sends nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MODULE = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide `openvino_telemetry` from what is imported within."""
    modules: dict[str, Any] = sys.modules
    before = modules.get(MODULE)
    modules[MODULE] = None
    try:
        yield
    finally:
        del modules[MODULE]
        if before is not None:
            modules[MODULE] = before

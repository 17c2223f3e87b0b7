"""NNCF's `quantize` with nothing said but the samples, saved as OpenVINO saves by default.

Refuses nothing."""

from collections.abc import Sequence
from pathlib import Path

from edgekit_runtime.engines.openvino import ov, read_specs
from edgekit_runtime.tensors import Feeds
from edgekit_runtime.untold import without_telemetry

with without_telemetry():
    import nncf


def quantized(source: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """`model.xml` and its `.bin`."""
    order = [spec.name for spec in read_specs(source)[0]]
    dataset = nncf.Dataset([[feeds[name] for name in order] for feeds in samples])
    made = folder / "model.xml"
    ov.save_model(nncf.quantize(ov.Core().read_model(source), dataset), made)
    return made

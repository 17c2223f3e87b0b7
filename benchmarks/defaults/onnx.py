"""ONNX Runtime's `quantize_static` with nothing said but the samples; and after its own pre-processing.

Refuses nothing."""

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from edgekit_runtime.tensors import Feeds
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """The samples, one by one."""

    def __init__(self, samples: Sequence[Feeds]) -> None:
        self._left = iter(samples)

    def get_next(self) -> Feeds | None:
        """The next sample; None at the end."""
        return next(self._left, None)


def static(source: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """As the float file is."""
    made = folder / "model.onnx"
    quantize_static(str(source), str(made), _Reader(samples))
    return made


def preprocessed(source: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """As its documentation advises: shapes inferred and the graph optimized first."""
    before = folder / "prepared.onnx"
    with chdir(folder):  # where it fails, it leaves files in the working folder
        quant_pre_process(str(source), str(before))
    return static(before, samples, folder)

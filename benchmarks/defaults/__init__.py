"""The table of what each quantizer makes of a float file when it is left to its own defaults.

Refuses nothing: what a tool cannot do, it raises, each in its own way."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from edgekit_runtime.tensors import Feeds

Maker = Callable[[Path, Sequence[Feeds], Path], Path]
"""(float file, calibration samples as feeds of that file's tensors, an empty folder) -> the file made there."""

LOCK = Path(__file__).with_name("olive.txt")
OLIVE = "Olive OnnxStaticQuantization"


@dataclass(frozen=True)
class Default:
    """A tool as its users call it first: `maker` is "module:function"; `tools` are distributions that it runs."""

    title: str
    format: str
    maker: str
    tools: tuple[str, ...]

    def make(self, source: Path, samples: Sequence[Feeds], folder: Path) -> Path:
        """Quantize `source` into `folder`."""
        module, function = self.maker.split(":")
        found: Maker = getattr(import_module(module), function)
        return found(source, samples, folder)

    def version(self) -> str:
        """A digest of all that decides what it makes, beside the file and the samples."""
        module = self.maker.partition(":")[0].rpartition(".")[2]
        told = [Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"), LOCK.read_text(encoding="utf-8")]
        told += [f"{tool}={metadata.version(tool)}" for tool in self.tools]
        return hashlib.sha256("\0".join([self.title, *told]).encode()).hexdigest()


DEFAULTS = (
    Default("onnxruntime quantize_static", "onnx", "benchmarks.defaults.onnx:static", ("onnxruntime", "onnx")),
    Default("the same, pre-processed", "onnx", "benchmarks.defaults.onnx:preprocessed", ("onnxruntime", "onnx")),
    Default(OLIVE, "onnx", "benchmarks.defaults.olive:static", ()),
    Default("nncf.quantize", "openvino", "benchmarks.defaults.openvino:quantized", ("nncf", "openvino")),
    Default("ai-edge-quantizer static_wi8_ai8", "tflite", "benchmarks.defaults.tflite:static", ("ai-edge-quantizer",)),
)


def cache() -> Path:
    """Where the environment of Olive and what the tools made stay."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-benchmarks"

"""Latency and throughput on an NVIDIA GPU, by EdgeKit's engine and by bare ONNX Runtime, side by side in one process.

`python -m benchmarks.gpu [--device cuda|tensorrt|cpu] [--seconds 3]`. Refuses a machine without the device: exits 1."""

import argparse
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort
from edgekit_runtime.engines import EngineOptions, nvidia, open_model, placement
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.machine.gpu import open_nvml
from edgekit_runtime.tensors import Array, Feeds, Runner

from edgekit.timing import interleaved
from tests.gpu import nets

PRECISIONS = ("float32", "float16", "int8")
BATCHES = (1, 8, 32)
SIDE, WIDTH, DEPTH = 224, 64, 6


def main(device: str, seconds: float) -> int:
    """Each precision at each batch: p50 and p90 in ms, inputs a second, and both beside the bare session's."""
    options = {one: EngineOptions(device=device, precision="float16" if one == "float16" else "float32")
               for one in PRECISIONS}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        model = nets.cnn(side=SIDE, width=WIDTH, depth=DEPTH)
        paths = {precision: nets.write(Path(scratch), precision, model) for precision in PRECISIONS}
        try:
            runners = {one: (open_model("onnx", path, options[one]), bare(path, options[one]))
                       for one, path in paths.items()}  # fmt: skip
        except EdgeKitError as error:
            click.echo(f"error: {error.what}\nhint:  {error.hint}", err=True)
            return 1
        _about(device)
        for precision, path in paths.items():
            if (found := placement("onnx", path, options[precision])) is not None:
                click.echo(f"{precision}: {found.text()}")
        click.echo(
            f"{'':<10}{'batch':>6}  {'p50 ms':>8} {'p90 ms':>8} {'inputs/s':>9}   bare: {'p50 ms':>8} {'inputs/s':>9}"
        )
        for precision, (ours, theirs) in runners.items():
            for rows in BATCHES:
                _line(precision, rows, ours, theirs, seconds)
    return 0


def bare(path: Path, options: EngineOptions) -> Runner:
    """The same session as it is used by most: arrays in, arrays out."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    providers = [("CPUExecutionProvider", {})] if options.device == "cpu" else nvidia.providers(path, options)
    session = ort.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)
    names = [one.name for one in session.get_outputs()]

    def run(feeds: Feeds) -> Feeds:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


def _line(precision: str, rows: int, ours: Runner, theirs: Runner, seconds: float) -> None:
    feeds: Feeds = {"x": nets.photos(rows, SIDE)}
    worst = _apart(ours(feeds)["y"], theirs(feeds)["y"])
    found = interleaved({"bare": theirs, "ours": ours}, feeds, seconds)
    mine, other = found["ours"], found["bare"]
    click.echo(
        f"{precision:<10}{rows:>6}  {mine.median_ms:8.3f} {mine.p90_ms:8.3f} {1000 * rows / mine.median_ms:9.0f}"
        f"         {other.median_ms:8.3f} {1000 * rows / other.median_ms:9.0f}   {mine.ratio:.2f} of bare's time"
        f" (n = {mine.n}), answers apart by {worst:.1g} of the largest"
    )


def _apart(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def _about(device: str) -> None:
    read = open_nvml() if device != "cpu" else None
    for card in read() if read else ():
        memory = f"{card.memory_total / 2**20:.0f} MiB" if card.memory_total else "unknown memory"
        slowed = f", slowed down: {', '.join(card.throttled)}" if card.throttled else ""
        click.echo(f"{card.name}, {memory}{slowed}; ONNX Runtime {ort.__version__}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "tensorrt", "cpu"])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each precision and batch")
    said = parser.parse_args()
    sys.exit(main(said.device, said.seconds))

"""Olive's OnnxStaticQuantization pass with nothing said but the samples, in an environment of its own, made once.

Refuses nothing. Its telemetry is off: it reports a start even when OLIVE_DISABLE_TELEMETRY is 1, unless CI is set."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click
from edgekit_runtime.tensors import Feeds

from benchmarks.defaults import LOCK, cache
from edgekit.isolated import environment


def static(source: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """By `olive run-pass`, fed by its RawDataContainer: a file of raw numbers for each sample and input.

    Raises:
        RuntimeError: it wrote no file; what it said.
    """
    python = environment("olive", LOCK, lambda line: click.echo(line, err=True), cache())
    for name in samples[0]:
        (folder / "data" / name).mkdir(parents=True)
        for index, feeds in enumerate(samples):
            feeds[name].tofile(folder / "data" / name / f"{index:06d}.bin")
    params = {
        "data_dir": str(folder / "data"),
        "input_names": list(samples[0]),
        "input_shapes": [list(value.shape) for value in samples[0].values()],
        "input_types": [str(value.dtype) for value in samples[0].values()],
    }
    data = {"name": "calibration", "type": "RawDataContainer", "load_dataset_config": {"params": params}}
    command = [
        str(python.with_name("olive")), "run-pass", "--pass-name", "OnnxStaticQuantization",
        "--pass-config", json.dumps({"data_config": data}), "-m", str(source), "-o", "out", "--disable_telemetry",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder), capture_output=True, text=True, timeout=1200, check=False
    )
    made = folder / "out" / "model.onnx"
    if not made.is_file():
        raise RuntimeError(f"olive wrote nothing: {(done.stderr or done.stdout).strip()[-300:]}")
    return made


def _environment(folder: Path) -> dict[str, str]:
    """Without telemetry, and with a home of its own, where Olive would keep an id of the device."""
    ours = {"OLIVE_DISABLE_TELEMETRY": "1", "CI": "1", "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return {**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, **ours}

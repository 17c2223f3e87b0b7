"""What an artifact takes of a machine: peak memory and start-up time, in a process of its own.

Refuses to guess: what the process itself does not report is an error. Linux only, from VmHWM."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekit_runtime.engines import EngineOptions, engine_module, open_model, options_json, parse_options, read_specs
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.tensors import Array, Feeds

RUNS = 3


def measure(engine: str, path: Path, feeds: Mapping[str, Array], options: EngineOptions) -> dict[str, float]:
    """Run the artifact in a fresh process on `feeds` (the artifact's own, inside tensors).

    Gives `peak_mb`, `engine_mb` (before the artifact is opened), `load_s`, `first_s`.

    Raises:
        Unsupported: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "feeds.npz"
        np.savez(file, **{f"in/{name}": value for name, value in feeds.items()})  # type: ignore[arg-type]
        command = [sys.executable, "-m", "edgekit_runtime.footprint", engine, str(path), str(file)]
        command += ["--options", json.dumps(options_json(options))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
        raise Unsupported(f"{path.name} does not run in a process of its own: {reason[:300] or done.returncode}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def look(engine: str, path: Path, file: Path, options: EngineOptions) -> dict[str, float]:
    """Measure in this very process, which should have done nothing else."""
    with np.load(file, allow_pickle=False) as arrays:
        given = {key: arrays[key] for key in arrays.files}
    engine_module(engine)
    engine_mb = _peak_mb()
    start = time.perf_counter()
    run = open_model(engine, path, options)
    loaded = time.perf_counter()
    feeds = _named(given, engine, path)
    ready = time.perf_counter()
    run(feeds)
    first = time.perf_counter()
    for _ in range(RUNS - 1):
        run(feeds)
    return {
        "peak_mb": round(_peak_mb(), 1),
        "engine_mb": round(engine_mb, 1),
        "load_s": round(loaded - start, 4),
        "first_s": round(first - ready, 4),
    }


def _named(given: Feeds, engine: str, path: Path) -> Feeds:
    """Keys are "in/NAME" (as `measure` writes), an input's name, or its position."""
    if all(key.startswith("in/") for key in given):
        return {key.removeprefix("in/"): value for key, value in given.items()}
    if not all(key.isdigit() for key in given):
        return given
    names = [spec.name for spec in read_specs(engine, path)[0]]
    return {names[int(key)]: value for key, value in given.items()}


def _peak_mb() -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    except (OSError, StopIteration) as error:
        raise EdgeKitError("this system does not tell a process's peak memory", hint="measure on Linux") from error


def main() -> int:
    """`python -m edgekit_runtime.footprint ENGINE PATH FEEDS.npz`: print the measures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m edgekit_runtime.footprint", description=main.__doc__)
    parser.add_argument("engine")
    parser.add_argument("path", type=Path)
    parser.add_argument("feeds", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="how the engine runs, as in a manifest")
    given = parser.parse_args()
    options = parse_options(given.options)
    try:
        measured = look(given.engine, given.path, given.feeds, options)
    except EdgeKitError as error:
        sys.stderr.write(f"error: {error.what}\n")
        return 1
    sys.stdout.write(json.dumps(measured) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

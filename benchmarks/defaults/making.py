"""The files that are compared: float and EdgeKit's pick by the command line, the tools' defaults by their makers.

Refuses nothing: what cannot be made is an `Absent` with the reason."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from edgekit_runtime.bundle import is_bundle, open_bundle
from edgekit_runtime.engines import EngineOptions, open_model, read_specs
from edgekit_runtime.ports import Port, connect
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec

from benchmarks.defaults import Default, cache
from benchmarks.defaults.models import Case
from edgekit.quiet import quiet
from examples.fetch import whole


@dataclass(frozen=True)
class Entry:
    """A file in a format, its tensors inside and out, how its engine runs it, and whose it is."""

    title: str
    format: str
    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    options: EngineOptions

    def scores(self, x: Array) -> Array:
        """The answers to all samples, the batch cut into pieces."""
        run = connect(self._opened(), self.inputs, self.outputs)
        (name,), told = [port.spec.name for port in self.inputs], self.outputs[0].spec.name
        return np.concatenate([run({name: x[i : i + 100]})[told] for i in range(0, len(x), 100)])

    def timed(self, sample: Array, bare: bool = False) -> Runner:
        """A function from this sample to real numbers, whatever it is given; layout is changed beforehand.

        Where the file takes or gives integers, rounding to them and back is timed too, in as little numpy as it
        takes; not so if `bare`.
        """
        run = self._opened()
        real = replace(self.inputs[0], inside=replace(self.inputs[0].inside, dtype="float32", scale=None))
        inside, (told, *_) = self.inputs[0].inside, [port.inside for port in self.outputs]
        given = (self.inputs[0] if bare or inside.scale is None else real).inward(sample)

        def floats(_: Feeds) -> Feeds:
            value = given if given.dtype == inside.dtype else _integers(given, inside)
            answer = run({inside.name: value})[told.name]
            if not bare and told.scale is not None and told.zero_point is not None:
                answer = (answer.astype(np.float32) - np.float32(told.zero_point)) * np.float32(told.scale)
            return {told.name: answer}

        return floats

    @property
    def integers(self) -> bool:
        """Whether its input is integer inside."""
        return self.inputs[0].inside.scale is not None

    def size(self) -> int:
        """Bytes of the file and what belongs to it."""
        return sum(path.stat().st_size for path in _files(self.path))

    def _opened(self) -> Runner:
        with quiet():
            return open_model(self.format, self.path, self.options)


@dataclass(frozen=True)
class Absent:
    """What could not be had, and why."""

    title: str
    format: str
    why: str


def _integers(value: Array, spec: TensorSpec) -> Array:
    assert spec.scale is not None
    limits = np.iinfo(spec.dtype)
    rounded: Array = np.rint(value * np.float32(1 / spec.scale) + np.float32(spec.zero_point or 0))
    return np.asarray(rounded.clip(limits.min, limits.max).astype(spec.dtype))


def built(case: Case, title: str, words: Sequence[str], folder: Path) -> Entry | Absent:
    """What `edgekit build` makes of the model for a machine like this one, by these words."""
    format = words[words.index("--format") + 1] if "--format" in words else ""
    command = [sys.executable, "-m", "edgekit", "build", *case.words, "--json", "--out", str(folder), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not is_bundle(folder):
        return Absent(title, format, f"exit {done.returncode}: {_why(done.stdout)}")
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    options = replace(manifest.options, threads=1)
    named = f"{title}, {manifest.precision}" if manifest.precision != "float32" or "float" not in title else title
    return Entry(named, manifest.format, folder / manifest.entry, manifest.inputs, manifest.outputs, options)


@once
def knows(flag: str) -> bool:
    """Whether this `edgekit build` has a flag."""
    command = [sys.executable, "-m", "edgekit", "build", "--help"]
    return flag in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def default(one: Default, source: Entry, calibration: Array, tell: Callable[[str], None]) -> Entry | Absent:
    """What a tool makes of the float file, now or before."""
    digest = hashlib.sha256(one.version().encode() + calibration.tobytes())
    for path in _files(source.path):
        digest.update(path.read_bytes())
    kept = cache() / "made" / digest.hexdigest()[:24]
    name = {"openvino": "model.xml"}.get(one.format, f"model.{one.format}")
    if not kept.is_dir():
        tell(f"quantizing by {one.title}")
        try:
            _make(one, source, calibration, kept, name)
        except Exception as error:  # a tool raises whatever it meets, and that is what is told of it
            return Absent(one.title, one.format, f"failed: {' '.join(str(error).split())[:200]}")
    inputs, outputs = (
        _ports(ports, *(read_specs(one.format, path)[side] for path in (source.path, kept / name)))
        for side, ports in enumerate((source.inputs, source.outputs))
    )
    return Entry(one.title, one.format, kept / name, inputs, outputs, untold(one.format))


def untold(format: str) -> EngineOptions:
    """How an engine runs one thread when it is told nothing else: OpenVINO picks bfloat16 where the CPU has it."""
    if format != "openvino":
        return EngineOptions()
    from edgekit_runtime.engines.openvino import ov

    hint = ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    return EngineOptions(precision={"bf16": "bfloat16", "f16": "float16"}.get(hint, "float32"))


def _make(one: Default, source: Entry, calibration: Array, kept: Path, name: str) -> None:
    """Keep the file alone, under the usual name."""
    samples: list[Feeds] = [
        {port.inside.name: port.inward(calibration[i : i + 1]) for port in source.inputs}
        for i in range(len(calibration))
    ]
    with whole(kept) as fresh, TemporaryDirectory(prefix="edgekit-") as work:
        with quiet():
            made = one.make(source.path, samples, Path(work))
        for path in _files(made):
            shutil.copy(path, fresh / f"{Path(name).stem}{path.suffix}")


def _ports(ports: Sequence[Port], before: Sequence[object], after: Sequence[object]) -> tuple[Port, ...]:
    """The tools rename tensors, but leave them in their places."""
    names = [spec.name for spec in before]  # type: ignore[attr-defined]
    return tuple(replace(port, inside=after[names.index(port.inside.name)]) for port in ports)  # type: ignore[arg-type]


def _files(path: Path) -> list[Path]:
    weights = path.with_suffix(".bin")
    return [path, weights] if path.suffix == ".xml" and weights.exists() else [path]


def _why(answer: str) -> str:
    try:
        return str(json.loads(answer)[0]["why"])
    except (ValueError, LookupError, TypeError):
        return "no answer"

"""The bundles that every core is shown: the demo's three, and two small networks at every precision in every format.

Refuses nothing: what no quantizer makes is no exhibit. Each is made once, and kept in the user's cache."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from edgekit_runtime.bundle import Bundle, open_bundle, write_golden
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.manifest import Golden, Manifest

from edgekit.building import Prepared, prepare
from edgekit.bundle import copy_files, seal
from edgekit.cache import user_cache
from edgekit.isolated import locked
from edgekit.job import Job, open_job
from edgekit.making import float_artifact, quantized_artifact
from edgekit.model import Artifact
from edgekit.ordering import Words, parse_order
from edgekit.packing import allowed
from edgekit.plan import Wishes, make_plan
from edgekit.target import PRECISIONS, Target, find_target
from examples.demo import EXAMPLE, TARGETS
from tests import tiny, zoo
from tests.commands import edgekit

NETS = {"dense": ("x=batch,64", (64,)), "convolving": ("x=batch,1,8,8", (1, 8, 8))}
"""The small networks: --shape, and the shape of a sample."""
PLAIN, NARROW, OLD = "x86-64-v4", "x86-64-v3", "armv7"
"""Targets whose engines need nothing special, want 7-bit weights, and know but one scale for a dense layer."""
COMPILED = {"orjson", "parser", "url_parser"}
"""What a server loads where orjson and httptools are installed."""
BATCHES = (1, 1, 4)
"""Samples in each recorded input."""
DEMO = dict(zip(("tflite", "onnx", "openvino"), TARGETS, strict=True))


WORDS = {"saturates": "7-bit weights", "dense_per_tensor": "one scale a dense layer"}
"""What a target may want of its files, by the field that names the engines for which it does."""
FOR = {"saturates": ("int8",), "dense_per_tensor": ("int8", "int8-weights")}


def wanted(target: Target, field: str, format: str, precision: str) -> bool:
    """Whether `target` wants that of files of this format and precision."""
    return format in getattr(target, field) and precision in FOR[field]


@dataclass(frozen=True)
class Exhibit:
    """A bundle to be shown: `name` says what it holds, `target` what it was built for, `ops` what words its operators
    have: a target's rules speak of them."""

    name: str
    format: str
    precision: str
    target: str
    ops: tuple[str, ...]

    @property
    def title(self) -> str:
        """Such as "dense int8, 7-bit weights"."""
        field = self.wants()
        return f"{self.name} {self.precision}" + (f", {WORDS[field]}" if field else "")

    def wants(self) -> str | None:
        """What it was made with, for the sake of its target: a field of `Target` that names its engine."""
        target = find_target(self.target)
        return next((field for field in WORDS if wanted(target, field, self.format, self.precision)), None)


def exhibits(format: str) -> list[Exhibit]:
    """All of a format."""
    found = []
    for net in NETS:
        ops = ("conv", "linear") if net == "convolving" else ("linear",)
        for precision in PRECISIONS:
            if (net, precision) != ("convolving", "int4-weights"):  # it has next to nothing for 4 bits
                found.append(Exhibit(net, format, precision, PLAIN, ops))
        for target in (NARROW, OLD):
            special = [Exhibit(net, format, precision, target, ops) for precision in ("int8", "int8-weights")]
            found += [one for one in special if one.wants()]
    return [*found, Exhibit("efficientnet-lite0", format, "int8", DEMO[format], ("conv", "linear"))]


def found(format: str, title: str) -> Bundle:
    """The exhibit of that title."""
    return opened(next(one for one in exhibits(format) if one.title == title))


def opened(one: Exhibit) -> Bundle:
    """The bundle, made now or before."""
    return open_bundle(_demo(one) if one.name == "efficientnet-lite0" else _small(one))


def artifact(bundle: Bundle) -> Artifact:
    """What a worker at another place opens of a bundle."""
    manifest = bundle.manifest
    return Artifact(
        manifest.format, manifest.precision, bundle.place(manifest.entry), manifest.inputs, manifest.outputs
    )


@cache
def _demo(one: Exhibit) -> Path:
    """The demo's bundle for its target, built as the demo builds it, but for the signature: keys come and go."""
    it = zoo.efficientnet_lite0()

    def fill(folder: Path) -> None:
        done = edgekit(
            "build", it.factory, "--weights", it.weights, "--data", it.photos.evaluation,
            "--calibration", it.photos.calibration, "--labels", EXAMPLE / "labels.txt", "--metric", "cosine",
            "--max-drop", "8%", "--name", one.name, "--unsigned", "--target", one.target, "--out", folder / "bundle",
            "--json",
        )  # fmt: skip
        assert done.code == 0, done.err

    return _kept(one, [str(it.weights)], fill)


@cache
def _small(one: Exhibit) -> Path:
    def fill(folder: Path) -> None:
        prepared, job = _job(one.name)
        wishes = Wishes(one.format, one.precision, data=True)
        plan = make_plan(prepared.model.facts, prepared.routes, find_target(one.target), wishes)
        made, _ = float_artifact(job, plan.candidates[0].steps, one.format)
        if made.precision != one.precision:
            made, _ = quantized_artifact(job, plan.candidates[0], made)
        (folder / "bundle").mkdir()
        _pack(one, job, made, folder / "bundle")

    return _kept(one, [Path(__file__).with_name("nets.py").read_text(), BATCHES], fill)


def _kept(one: Exhibit, more: object, fill: Callable[[Path], None]) -> Path:
    """The bundle's folder in the user's cache; two that want it at once make it once."""
    with _alone(f"{one.name}-{one.format}"):
        basis = {"exhibit": vars(one), "target": asdict(find_target(one.target)), "more": more}
        return user_cache().folder("arm", basis, fill) / "bundle"


@contextmanager
def _alone(name: str) -> Iterator[None]:
    folder = user_cache().root / "tests" / "arm"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{name}.lock", f"making {name}", lambda words: None):
        yield


@cache
def _job(net: str) -> tuple[Prepared, Job]:
    """The network read, with calibration data opened."""
    shape, sample = NETS[net]
    folder = Path(_scratch().name)
    x, _ = tiny.digits()
    np.savez(folder / f"{net}.npz", x=x[:64].reshape(-1, *sample))
    words = Words(
        model=f"{Path(__file__).with_name('nets.py')}:{net}", target=(PLAIN,), shape=(shape,),
        calibration=str(folder / f"{net}.npz"),
    )  # fmt: skip
    prepared = prepare(parse_order(words), lambda said: None)
    job = open_job(prepared.order, prepared.model, prepared.fingerprint, user_cache(), lambda said: None)
    return prepared, job


@cache
def _scratch() -> "TemporaryDirectory[str]":
    return TemporaryDirectory(prefix="edgekit-arm-")


def _pack(one: Exhibit, job: Job, made: Artifact, folder: Path) -> None:
    """A bundle of the artifact, with what it answers here."""
    copy_files(made.path.parent, folder)
    assert job.calibration is not None
    run, at, pairs = made.open_model(), 0, []
    for size in BATCHES:
        feeds = next(job.calibration.take(range(at, at + size)).batches(size))
        pairs.append((feeds, run(feeds)))
        at += size
    write_golden(folder / "golden.npz", pairs)
    tolerance = allowed(one.precision, ())  # nothing was scored elsewhere
    manifest = Manifest(
        name=f"{one.name}-{one.format}-{one.precision}", version="1", target=one.target, format=one.format,
        precision=one.precision, engine=one.format,
        entry=made.path.name, inputs=made.inputs, outputs=made.outputs, files={}, options=EngineOptions(threads=1),
        golden=Golden("golden.npz", len(pairs), tolerance), evidence={"notes": list(made.notes)},
    )  # fmt: skip
    seal(folder, manifest)

"""The models that are served: an ONNX file for the peers and a bundle of the same file for EdgeKit, made on first use.

Refuses nothing; EfficientNet-Lite0 is what `make demo` left, else it is built."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from edgekit_runtime.bundle import open_bundle, write_golden
from edgekit_runtime.engines import EngineOptions, open_model, read_specs
from edgekit_runtime.manifest import Golden, Manifest
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import Array
from onnx import TensorProto, helper, numpy_helper

from benchmarks.defaults import cache
from edgekit.bundle import seal
from examples.fetch import whole

ROOT = Path(__file__).resolve().parents[2]
LITE = "efficientnet-lite0"
Shape = Sequence[str | int]
SLOW_MS = 50.0
WIDE = 512


@dataclass(frozen=True)
class ServedModel:
    """A model by `name`: the file, the bundle, its input, a sample and what the bare engine answers to it."""

    name: str
    title: str
    onnx: Path
    bundle: Path
    input: str
    x: Array
    y: Array


def mlp() -> ServedModel:
    """784 floats, 512 hidden, 10 scores: some 27 us in ONNX Runtime."""
    return _small("mlp", "MLP of 784 floats", lambda path: _write_mlp(path, (784, WIDE, 10)), 1)


def slow() -> ServedModel:
    """16 floats in, one out, and some 50 ms of matrix products between, which the engine does without Python's lock."""
    steps = _steps()
    return _small(f"slow{steps}", f"{SLOW_MS:.0f} ms of matrix products", lambda path: _write_slow(path, steps), 2)


def lite0(tell: Callable[[str], None]) -> ServedModel:
    """EfficientNet-Lite0 in int8 for ONNX Runtime, as `edgekit build` makes it."""
    bundle = ROOT / "demo" / "bundles" / f"{LITE}-x86-64-v3.edgekit"
    if not (bundle / "manifest.json").exists():
        bundle = cache() / "serving" / f"{LITE}.edgekit"
    if not (bundle / "manifest.json").exists():
        _build(bundle, tell)
    manifest = open_bundle(bundle).manifest
    assert manifest.format == "onnx", f"{bundle} is not for ONNX Runtime"
    assert all(port.spec == port.inside for port in (*manifest.inputs, *manifest.outputs))
    return _served(LITE, "EfficientNet-Lite0 int8", bundle / manifest.entry, bundle, (1, 3, 224, 224))


def _small(name: str, title: str, write: Callable[[Path], None], version: int) -> ServedModel:
    """One of our own models: written and packed unless it is in the cache."""
    bundle = cache() / "serving" / f"{name}-{version}.edgekit"
    if not bundle.is_dir():
        with whole(bundle) as fresh:
            write(fresh / "model.onnx")
            _pack(fresh, name)
    path = bundle / "model.onnx"
    return _served(name, title, path, bundle, tuple(n or 1 for n in read_specs("onnx", path)[0][0].shape))


def _served(name: str, title: str, path: Path, bundle: Path, shape: tuple[int, ...]) -> ServedModel:
    x = np.round(np.random.default_rng(0).random(shape), 4).astype(np.float32)
    spec = read_specs("onnx", path)[0][0]
    (y,) = open_model("onnx", path, EngineOptions())({spec.name: x}).values()
    return ServedModel(name, title, path, bundle, spec.name, x, y)


def _pack(folder: Path, name: str) -> None:
    """Make a bundle of the `model.onnx` in `folder`, with one recorded answer."""
    inputs, outputs = read_specs("onnx", folder / "model.onnx")
    feeds = {spec.name: np.full([n or 1 for n in spec.shape], 0.5, np.float32) for spec in inputs}
    write_golden(folder / "golden.npz", [(feeds, open_model("onnx", folder / "model.onnx")(feeds))])
    ports = [tuple(Port(spec, spec) for spec in side) for side in (inputs, outputs)]
    seal(
        folder,
        Manifest(
            name=name, version="1", target="x86-64-v3", format="onnx", precision="float32", engine="onnx",
            entry="model.onnx", inputs=ports[0], outputs=ports[1], files={}, golden=Golden("golden.npz", 1, 1e-3),
        ),
    )  # fmt: skip


def _write_mlp(path: Path, sizes: Sequence[int]) -> None:
    chance = np.random.default_rng(0)
    nodes, held, current = [], [], "x"
    for step, (wide, narrow) in enumerate(pairwise(sizes)):
        last = step == len(sizes) - 2
        held.append(numpy_helper.from_array(_normal(chance, (wide, narrow), wide), f"w{step}"))
        held.append(numpy_helper.from_array(_normal(chance, (narrow,), 100), f"b{step}"))
        nodes.append(helper.make_node("Gemm", [current, f"w{step}", f"b{step}"], ["y" if last else f"h{step}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{step}"], [f"r{step}"]))
            current = f"r{step}"
    _save(path, nodes, held, (["batch", sizes[0]], ["batch", sizes[-1]]))


def _write_slow(path: Path, steps: int) -> None:
    chance = np.random.default_rng(0)
    held = [
        numpy_helper.from_array(_normal(chance, (WIDE, WIDE), WIDE), "w"),
        numpy_helper.from_array(_normal(chance, (1, WIDE, WIDE), 1), "start"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["scale"]),
        helper.make_node("Mul", ["start", "scale"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{step}", "w"], [f"m{step + 1}"]) for step in range(steps)),
        helper.make_node("ReduceMean", [f"m{steps}"], ["y"], axes=[1, 2], keepdims=0),
    ]
    held.append(numpy_helper.from_array(np.array([2]), "axis"))
    _save(path, nodes, held, ([1, 16], [1]))


def _steps() -> int:
    """How many products of WIDE x WIDE take 50 ms here, in tens."""
    with TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "model.onnx"
        _write_slow(path, 10)
        run, feeds = open_model("onnx", path), {"x": np.ones((1, 16), np.float32)}
        taken = []
        for _ in range(6):
            began = time.perf_counter()
            run(feeds)
            taken.append(time.perf_counter() - began)
    return max(10, round(SLOW_MS / 1e3 / min(taken)) * 10)


def _normal(chance: np.random.Generator, shape: tuple[int, ...], wide: int) -> Array:
    return np.asarray(chance.standard_normal(shape) / np.sqrt(wide), np.float32)


def _save(path: Path, nodes: list[onnx.NodeProto], held: list[onnx.TensorProto], shapes: tuple[Shape, Shape]) -> None:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip("xy", shapes, strict=True)
    )
    graph = helper.make_graph(nodes, path.stem, [x], [y], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _build(bundle: Path, tell: Callable[[str], None]) -> None:
    """`edgekit build`, as `make demo` calls it, for one target."""
    from examples.demo import EXAMPLE
    from examples.efficientnet_lite0.photos import photos
    from examples.efficientnet_lite0.weights import weights

    work = cache() / "serving" / "photos"
    file, folders = weights(work, tell), photos(work, tell)
    words = [
        "build", f"{EXAMPLE / 'model.py'}:model", "--weights", file, "--data", folders.evaluation,
        "--calibration", folders.calibration, "--labels", EXAMPLE / "labels.txt", "--metric", "cosine",
        "--max-drop", "8%", "--name", LITE, "--target", "x86-64-v3", "--format", "onnx", "--out", bundle,
    ]  # fmt: skip
    tell("building EfficientNet-Lite0")
    subprocess.run([sys.executable, "-m", "edgekit", *map(str, words)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)

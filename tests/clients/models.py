"""The bundles that the clients ask: the tiny layer in each engine's format, and ONNX models of every tensor type.

Refuses nothing: they are all whole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from edgekit_runtime.bundle import describe, write_golden
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.manifest import Golden, Manifest, to_json
from edgekit_runtime.ports import Port
from edgekit_runtime.protocols.v2_tensors import DATATYPES
from edgekit_runtime.tensors import TensorSpec

from tests.runtime.bundles import make_bundle, write_manifest

ENGINES = ("onnx", "tflite", "openvino")
KINDS = tuple(kind for kind in DATATYPES if kind != "BF16")  # numpy has no bfloat16
"""The protocol's tensor types; the model `every` has an input and an output of each."""


def some_of(kind: str, count: int = 3) -> np.ndarray:
    """`count` values of a type, the largest and smallest of it among them."""
    dtype = np.dtype(DATATYPES[kind])
    if kind == "BYTES":
        words = np.empty(count, dtype=object)
        words[:] = [b"plain", "\u00fc\u4e2d\U0001f600".encode(), b"", b"x" * 300][:count]
        return words
    if kind == "BOOL":
        return np.resize(np.array([True, False, True]), count)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.resize(np.array([limits.min, 1, limits.max], dtype), count)


def all_bundles(folder: Path) -> list[Path]:
    """Every bundle: `tiny-ENGINE` (onnx in two versions), `small-ENGINE` (int8 inside), and the typed ones."""
    made = [make_bundle(folder / f"tiny-{engine}", engine, name=f"tiny-{engine}", version="9") for engine in ENGINES]
    made += [make_bundle(folder / f"small-{engine}", engine, True, f"small-{engine}") for engine in ENGINES]
    made.append(make_bundle(folder / "tiny-onnx-10", name="tiny-onnx", version="10"))
    return [*made, make_words(folder / "words"), make_half(folder / "half"), make_every(folder / "every")]


def make_words(folder: Path) -> Path:
    """`words`: strings in, the same strings out."""
    words = TensorSpec("text", "object", (None,))
    return _bundle(folder, "words", [words], [TensorSpec("same", "object", (None,))], [("Identity", "text", "same")])


def make_half(folder: Path) -> Path:
    """`half`: [n, 2] float16 in, its negative out."""
    spec = TensorSpec("h", "float16", (None, 2))
    return _bundle(folder, "half", [spec], [TensorSpec("negative", "float16", (None, 2))], [("Neg", "h", "negative")])


def make_every(folder: Path) -> Path:
    """`every`: a vector of each type in, the same out, named by the type and OUT_type."""
    inputs = [TensorSpec(kind, DATATYPES[kind], (None,)) for kind in KINDS]
    outputs = [TensorSpec(f"OUT_{kind}", DATATYPES[kind], (None,)) for kind in KINDS]
    return _bundle(folder, "every", inputs, outputs, [("Identity", kind, f"OUT_{kind}") for kind in KINDS])


def _bundle(
    folder: Path,
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    nodes: Sequence[tuple[str, str, str]],
) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(_onnx(inputs, outputs, nodes))
    numbers = [spec for spec in inputs if spec.dtype != "object"]
    golden = None
    if len(numbers) == len(inputs):  # recorded inputs hold no objects
        x = {spec.name: np.ones([n or 1 for n in spec.shape], spec.dtype) for spec in inputs}
        write_golden(folder / "golden.npz", [(x, {outputs[0].name: -x[inputs[0].name]})])
        golden = Golden("golden.npz", 1, 0.01)
    manifest = Manifest(
        name=name,
        version="1",
        target="here",
        format="onnx",
        precision="float32",
        engine="onnx",
        entry="model.onnx",
        inputs=tuple(Port(spec, spec) for spec in inputs),
        outputs=tuple(Port(spec, spec) for spec in outputs),
        files={path.name: describe(path) for path in sorted(folder.iterdir())},
        options=EngineOptions(threads=1),
        golden=golden,
    )
    write_manifest(folder, to_json(manifest))
    return folder


def _onnx(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], nodes: Sequence[tuple[str, str, str]]) -> bytes:
    from onnx import helper

    def info(spec: TensorSpec, side: str) -> object:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        return helper.make_tensor_value_info(spec.name, kind, [side if n is None else n for n in spec.shape])

    graph = helper.make_graph(
        [helper.make_node(what, [took], [gave]) for what, took, gave in nodes],
        "typed",
        [info(spec, f"n_{spec.name}") for spec in inputs],
        [info(spec, f"n_{spec.name.removeprefix('OUT_')}") for spec in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())

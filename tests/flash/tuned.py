"""Two versions of a real model for tests: int8 weights trained on scikit-learn's digits, and the same fine-tuned.

Refuses nothing; takes a second."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from edgekit_runtime.bundle import write_golden
from edgekit_runtime.engines import EngineOptions, open_model
from edgekit_runtime.manifest import Golden, Manifest
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import Array, TensorSpec
from onnx import TensorProto, helper, numpy_helper

from edgekit import keys
from edgekit.bundle import seal
from tests.tiny import digits

SIZES = (64, 256, 256, 10)
X, Y = TensorSpec("x", "float32", (None, 64)), TensorSpec("y", "float32", (None, 10))


def bundles(folder: Path) -> tuple[Path, Path]:
    """Version 1, and version 2 with the weights of 1 trained further on digits that are a little darker."""
    x, label = digits()
    dice = np.random.default_rng(4)
    begun = [dice.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32) for a, b in pairwise(SIZES)]
    first = trained(begun, x[:1200], label[:1200], 0.05, 15)
    second = trained(first, x[1200:] * 0.9, label[1200:], 0.01, 2)
    return _bundle(folder / "one", 1, first), _bundle(folder / "two", 2, second)


def trained(weights: Sequence[Array], x: Array, label: Array, rate: float, rounds: int) -> list[Array]:
    """By gradient descent on batches."""
    found = [one.copy() for one in weights]
    for _ in range(rounds):
        for at in range(0, len(x), 32):
            inner = [x[at : at + 32]]
            for one in found[:-1]:
                inner.append(np.maximum(inner[-1] @ one, 0))
            scores = np.exp((raw := inner[-1] @ found[-1]) - raw.max(1, keepdims=True))
            wrong = scores / scores.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[label[at : at + 32]]
            for index in reversed(range(len(found))):
                step = inner[index].T @ wrong / len(wrong)
                wrong = (wrong @ found[index].T) * (inner[index] > 0)
                found[index] = (found[index] - rate * step).astype(np.float32)
    return found


def _bundle(folder: Path, number: int, weights: Sequence[Array]) -> Path:
    folder.mkdir(parents=True)
    onnx.save(_model(weights), folder / "model.onnx")
    run = open_model("onnx", folder / "model.onnx")
    feeds = [{"x": digits()[0][index : index + 1]} for index in range(3)]
    write_golden(folder / "golden.npz", [(one, run(one)) for one in feeds])
    manifest = Manifest(
        name="digits", version=str(number), target="here", format="onnx", precision="int8", engine="onnx",
        entry="model.onnx", inputs=(Port(X, X),), outputs=(Port(Y, Y),), files={}, options=EngineOptions(threads=1),
        golden=Golden("golden.npz", 3, 0.01), evidence={"quality": {"metric": "top-1", "value": 0.91, "n": 100}},
    )  # fmt: skip
    seal(folder, replace(manifest, release=number), keys.signing_key(keys.default_home()))
    return folder


def _model(weights: Sequence[Array]) -> onnx.ModelProto:
    nodes, held, before = [], [], "x"
    for index, one in enumerate(weights):
        scale = np.float32(np.abs(one).max() / 127)
        held.append(numpy_helper.from_array(np.rint(one / scale).astype(np.int8), f"w{index}"))
        held.append(numpy_helper.from_array(scale, f"s{index}"))
        last = index + 1 == len(weights)
        nodes.append(helper.make_node("DequantizeLinear", [f"w{index}", f"s{index}"], [f"f{index}"]))
        nodes.append(helper.make_node("MatMul", [before, f"f{index}"], ["y" if last else f"m{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"m{index}"], [f"r{index}"]))
        before = f"r{index}"
    values = [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["n", spec.shape[1]]) for spec in (X, Y)]
    graph = helper.make_graph(nodes, "digits", values[:1], values[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

"""A few kB of real model and data: a small network on scikit-learn's digits, fitted in closed form, in ONNX.

Refuses nothing; 1,797 samples, so that int8's loss can be told from chance."""

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN = 256


@cache
def _table() -> np.ndarray:
    """The digits as scikit-learn ships them: 64 pixels from 0 to 16 and a label in a row; its import is slow."""
    found = find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz") as file:
        return np.loadtxt(file, delimiter=",")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(x [1797, 64] float32 from 0 to 1, labels [1797] int64), shuffled."""
    x, label = _table()[:, :-1], _table()[:, -1]
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32), label[order].astype(np.int64)


def write_digits(folder: Path) -> Path:
    """`digits.npz` with x and label."""
    x, label = digits()
    np.savez(folder / "digits.npz", x=x, label=label)
    return folder / "digits.npz"


def write_model(folder: Path, name: str = "digits.onnx", batch: str | int = "batch") -> Path:
    """A network of random features and fitted scores: x [batch, 64] -> scores [batch, 10]; right on about 96 %."""
    onnx.save(_model(batch), folder / name)
    return folder / name


@cache
def _model(batch: str | int) -> onnx.ModelProto:
    x, label = digits()
    chance = np.random.default_rng(1)
    inner = chance.normal(0, 0.5, (64, HIDDEN)).astype(np.float32)
    bias = chance.normal(0, 0.5, HIDDEN).astype(np.float32)
    features = np.maximum(x @ inner + bias, 0)
    wanted = np.eye(10, dtype=np.float32)[label]
    outer = np.linalg.solve(features.T @ features + 10 * np.eye(HIDDEN), features.T @ wanted).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "inner", "bias"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["features"]),
            helper.make_node("MatMul", ["features", "outer"], ["scores"]),
        ],
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(a, n) for a, n in ((inner, "inner"), (bias, "bias"), (outer, "outer"))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

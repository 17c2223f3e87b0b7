"""A model whose engine hangs, or eats memory, by what a client sends: in tests of what a machine does about it.

`x` is (turns, floats): it counts to the first number, holds so many floats as the second says, and answers x. Refuses
nothing, which is what it is for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from edgekit_runtime.bundle import write_golden
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.manifest import Golden, Manifest
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import TensorSpec
from onnx import TensorProto, helper, numpy_helper

from edgekit import keys
from edgekit.bundle import seal

X, Y = TensorSpec("x", "float32", (1, 2)), TensorSpec("y", "float32", (1, 2))
NAME = "weak"


def bundle(folder: Path, target: str, secret_of: Path) -> Path:
    """The bundle, for a target, signed with the key in that folder."""
    folder.mkdir(parents=True)
    onnx.save(_model(), folder / "model.onnx")
    once = {"x": np.ones((1, 2), np.float32)}
    write_golden(folder / "golden.npz", [(once, {"y": once["x"]})])
    manifest = Manifest(
        name=NAME, version="1", target=target, format="onnx", precision="float32", engine="onnx", entry="model.onnx",
        inputs=(Port(X, X),), outputs=(Port(Y, Y),), files={}, options=EngineOptions(threads=1), release=1,
        golden=Golden("golden.npz", 1, 0.01), evidence={"quality": {"metric": "top-1", "value": 1.0, "n": 1}},
    )  # fmt: skip
    seal(folder, manifest, keys.signing_key(secret_of))
    return folder


def _model() -> onnx.ModelProto:
    counting = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Mul", ["held", "one"], ["next"])],
        "counting", [_value("turn", TensorProto.INT64, []), _value("go", TensorProto.BOOL, []), _value("held")],
        [_value("go_on", TensorProto.BOOL, []), _value("next")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["turns_f"], axis=1),
        helper.make_node("Gather", ["x", "second"], ["floats_f"], axis=1),
        helper.make_node("ReduceMax", ["turns_f"], ["turns_0"], keepdims=0),
        helper.make_node("Cast", ["turns_0"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Cast", ["floats_f"], ["floats"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "x"], ["counted"], body=counting),
        helper.make_node("ConstantOfShape", ["floats"], ["many"], value=_of(np.ones(1, np.float32), "v")),
        helper.make_node("ReduceMin", ["many"], ["least"], keepdims=0),
        helper.make_node("Mul", ["counted", "least"], ["y"]),
    ]
    held = [_of(np.array(0), "first"), _of(np.array(1), "second"), _of(np.ones(1, np.float32), "one")]
    graph = helper.make_graph(nodes, NAME, [_value("x")], [_value("y")], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _value(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[int] = (1, 2)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _of(value: np.ndarray, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)

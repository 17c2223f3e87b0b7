"""Small ONNX nets with random weights, made without a training framework, and artifacts and samples for them.

Refuses nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edgekit_runtime.engines import read_specs
from edgekit_runtime.tensors import Array, Feeds
from onnx import TensorProto, helper, numpy_helper

from edgekit.model import Artifact, plain
from edgekit.quantizers import Wish, quantize
from edgekit.recipes import Recipe

MakeNet = Callable[[Path], Artifact]


class Net:
    """An ONNX graph that grows node by node; `add` gives the name of the new tensor."""

    def __init__(self, shape: list[int | str], dtype: int = TensorProto.FLOAT, opset: int = 18) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("x", dtype, shape)
        self.random, self.opset = np.random.default_rng(0), opset

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """A random constant, of the size that keeps activations near 1."""
        spread = scale if scale is not None else (2.0 / max(1, int(np.prod(shape[1:])))) ** 0.5
        return self.constant(self.random.standard_normal(shape).astype(np.float32) * np.float32(spread))

    def constant(self, value: Array) -> str:
        """A given constant."""
        self.constants.append(numpy_helper.from_array(value, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """One more node."""
        names = [f"{op.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"n{len(self.nodes)}", **attributes))
        return names[-1]

    def save(self, last: str, shape: list[int | str], path: Path) -> Artifact:
        """The artifact whose output is `last`."""
        self.nodes.append(helper.make_node("Identity", [last], ["y"]))
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "net", [self.input], [output], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return artifact("onnx", path)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> str:
        """A convolution that keeps height and width."""
        weight = self.weight(outputs, inputs // groups, kernel, kernel)
        bias = self.weight(outputs, scale=0.1)
        return self.add("Conv", x, weight, bias, pads=[kernel // 2] * 4, group=groups, kernel_shape=[kernel] * 2)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """A Gemm as torch writes it."""
        return self.add("Gemm", x, self.weight(outputs, inputs), self.weight(outputs, scale=0.1), transB=1)


def conv_net(path: Path, batch: int | str = "batch", opset: int = 18) -> Artifact:
    """Convolutions, ReLU and a dense layer on [batch, 3, 16, 16]."""
    net = Net([batch, 3, 16, 16], opset=opset)
    x = net.add("Relu", net.conv("x", 3, 16))
    x = net.add("Relu", net.conv(x, 16, 32))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.save(net.add("Softmax", net.dense(x, 32, 5)), [batch, 5], path)


def hard_swish_net(path: Path) -> Artifact:
    """Depthwise convolutions, hard-swish and squeeze-and-excitation on [batch, 3, 32, 32]."""
    net = Net(["batch", 3, 32, 32])
    x = net.add("HardSwish", net.conv("x", 3, 16))
    for _ in range(2):
        x = net.add("HardSwish", net.conv(x, 16, 16, groups=16))
        axes = net.constant(np.array([2, 3], np.int64))
        gate = net.add("Relu", net.conv(net.add("ReduceMean", x, axes, keepdims=1), 16, 8, 1))
        gate = net.add("HardSigmoid", net.conv(gate, 8, 16, 1), alpha=1 / 6, beta=0.5)
        x = net.conv(net.add("Mul", x, gate), 16, 16, 1)
    x = net.add("ReduceMean", x, net.constant(np.array([2, 3], np.int64)), keepdims=0)
    return net.save(net.dense(x, 16, 5), ["batch", 5], path)


def dense_net(path: Path) -> Artifact:
    """Two wide dense layers on [batch, 64]."""
    net = Net(["batch", 64])
    x = net.add("Relu", net.dense("x", 64, 128))
    return net.save(net.dense(x, 128, 5), ["batch", 5], path)


def token_net(path: Path) -> Artifact:
    """Embedding, one head of attention and a dense layer on int64 [batch, 12]."""
    net = Net(["batch", 12], TensorProto.INT64)
    x = net.add("Gather", net.weight(200, 64, scale=1.0), "x")
    q, k, v = (net.add("MatMul", x, net.weight(64, 64)) for _ in range(3))
    scores = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1]))
    scaled = net.add("Mul", scores, net.constant(np.array(0.125, np.float32)))
    x = net.add("MatMul", net.add("Softmax", scaled, axis=-1), v)
    x = net.add("ReduceMean", x, net.constant(np.array([1], np.int64)), keepdims=0)
    return net.save(net.dense(x, 64, 4), ["batch", 4], path)


def lstm_net(path: Path) -> Artifact:
    """An LSTM of 32 units on [batch, 10, 8] and a dense layer on its last state."""
    net = Net(["batch", 10, 8])
    x = net.add("Transpose", "x", perm=[1, 0, 2])
    weights = [net.weight(1, 128, 8, scale=0.3), net.weight(1, 128, 32, scale=0.2), net.weight(1, 256, scale=0.1)]
    state = net.add("LSTM", x, *weights, outputs=2, hidden_size=32)
    state = net.add("Squeeze", state, net.constant(np.array([0], np.int64)))
    return net.save(net.dense(state, 32, 4), ["batch", 4], path)


def artifact(format: str, path: Path) -> Artifact:
    """A float artifact whose user sees what the file holds."""
    inputs, outputs = read_specs(format, path)
    return Artifact(format, "float32", path, tuple(map(plain, inputs)), tuple(map(plain, outputs)))


def with_user_of(fixed: Artifact, free: Artifact) -> Artifact:
    """`fixed`, seen by its user as `free` is."""
    inputs = tuple(replace(port, spec=other.spec) for port, other in zip(fixed.inputs, free.inputs, strict=True))
    outputs = tuple(replace(port, spec=other.spec) for port, other in zip(fixed.outputs, free.outputs, strict=True))
    return replace(fixed, inputs=inputs, outputs=outputs)


def samples(artifact: Artifact, count: int = 16, seed: int = 0) -> Iterator[Feeds]:
    """Random samples, each with a batch of one."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield {
            port.spec.name: _value(random, (1, *(n or 1 for n in port.spec.shape[1:])), port.spec.dtype)
            for port in artifact.inputs
        }


def wish(artifact: Artifact, precision: str, integer_io: bool = False, **recipe: Any) -> Wish:
    """A wish with sixteen random samples, drawn anew each time."""
    return Wish(Recipe(precision, **recipe), lambda: samples(artifact), 16, integer_io)


def quantized(artifact: Artifact, precision: str, folder: Path, **settings: Any) -> Artifact:
    """The artifact at `precision`, in a fresh folder."""
    folder.mkdir()
    return quantize(artifact, wish(artifact, precision, **settings), folder, lambda words: None)


def likeness(one: Artifact, other: Artifact) -> float:
    """The smallest cosine between the first outputs of both, over eight samples that calibration did not see."""
    run, again = one.open_model(), other.open_model()
    name, found = one.outputs[0].spec.name, []
    for feeds in samples(one, 8, seed=7):
        a, b = run(feeds)[name].ravel(), again(feeds)[name].ravel()
        found.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
    return min(found)


def _value(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if np.issubdtype(np.dtype(dtype), np.integer):
        return random.integers(0, 100, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def wide_norm_net(path: Path) -> Artifact:
    """A convolution, a LayerNormalization over three axes, and a dense layer on [batch, 3, 8, 8]."""
    net = Net(["batch", 3, 8, 8])
    x = net.conv("x", 3, 16)
    x = net.add("LayerNormalization", x, net.weight(16, 8, 8, scale=1.0), net.weight(16, 8, 8), axis=1)
    x = net.add("Flatten", net.add("Relu", x))
    return net.save(net.dense(x, 1024, 5), ["batch", 5], path)

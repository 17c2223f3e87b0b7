"""Nets that int8 ruins though in float they are as good as any: what one layer makes too large, the next makes small.

Refuses nothing."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from edgekit.model import Artifact
from tests.quantizers.small import Net


def uneven_net(path: Path) -> Artifact:
    """Convolutions on [batch, 3, 16, 16]; between each two a quarter of the channels is a thousand times as large as
    the others, and multiplied by a thousandth there."""
    net = Net(["batch", 3, 16, 16])
    widths, before = (3, 16, 32), np.ones(3, np.float32)
    x = "x"
    for inputs, outputs in pairwise(widths):
        factor = np.where(np.arange(outputs) % 4 == 0, 1000, 1).astype(np.float32)
        weight = net.random.standard_normal((outputs, inputs, 3, 3)) * (2 / (9 * inputs)) ** 0.5
        weight = weight * factor[:, None, None, None] / before[:, None, None]
        bias = net.random.standard_normal(outputs) * 0.1 * factor
        constants = [net.constant(value.astype(np.float32)) for value in (weight, bias)]
        x = net.add("Relu", net.add("Conv", x, *constants, pads=[1] * 4, kernel_shape=[3, 3], strides=[2, 2]))
        before = factor
    x = net.add("Flatten", net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    weight = net.random.standard_normal((5, 32 * 4)) * 0.1 / np.repeat(before, 4)
    last = net.add("Gemm", x, net.constant(weight.astype(np.float32)), net.weight(5, scale=0.1), transB=1)
    return net.save(last, ["batch", 5], path)


def outlier_net(path: Path, decomposed: bool = False) -> Artifact:
    """A LayerNormalization on [batch, 6, 64] that makes four channels five hundred times as large as the others, and
    two matrices that make up for it; `decomposed` writes its scale and shift as Mul and Add."""
    net = Net(["batch", 6, 64])
    factor = np.where(np.arange(64) % 16 == 3, 500, 1).astype(np.float32)
    shift = net.constant(factor * np.float32(0.1))
    if decomposed:
        ones, zeros = net.constant(np.ones(64, np.float32)), net.constant(np.zeros(64, np.float32))
        x = net.add("LayerNormalization", "x", ones, zeros)
        x = net.add("Add", net.add("Mul", net.add("Tanh", x), net.constant(factor)), shift)
    else:
        x = net.add("LayerNormalization", "x", net.constant(factor), shift)
    left, right = (
        net.add(
            "MatMul", x, net.constant((net.random.standard_normal((64, 32)) / factor[:, None] / 8).astype(np.float32))
        )
        for _ in range(2)
    )
    x = net.add("Mul", left, net.add("Sigmoid", right))
    x = net.add("ReduceMean", x, net.constant(np.array([1], np.int64)), keepdims=0)
    return net.save(net.dense(x, 32, 5), ["batch", 5], path)
